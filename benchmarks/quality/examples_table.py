"""The report of benchmarks.quality.examples as Markdown tables."""

from __future__ import annotations

from typing import Any

from benchmarks.table import lines


def names(report: dict[str, Any]) -> list[str]:
    """The tables that a report has: vectors and figure, such as "encoder AUC"."""
    return [f"{space} {figure}" for space, figures in report["spaces"].items() for figure in figures]


def tables(report: dict[str, Any]) -> str:
    """All tables, each with the weight that was chosen for it."""
    parts = []
    for name in names(report):
        space, figure = name.split()
        chosen = report["spaces"][space][figure]["chosen"]
        parts += [f"{name}: the half that chooses has its best mean at {chosen:g}", table(report, name)]
    return "\n\n".join(parts)


def table(report: dict[str, Any], name: str) -> str:
    """One of its tables: a row for each number of examples, then all of them, then the half that chooses."""
    space, figure = name.split()
    found, weights = report["spaces"][space][figure], report["weights"]
    head = ["liked", "disliked", "listeners", f"{figure}, weight 0", *(f"{weight:g}" for weight in weights[1:])]
    body = []
    for row in found["rows"]:
        more = [f"{mean:+.3f} ± {half:.3f}" for mean, half in row["more"][1:]]
        without = f"{row['without']:.3f} ± {row['without_ci95']:.3f}"
        body.append([str(row["liked"]), str(row["disliked"]), str(row["listeners"]), without, *more])
    first = [f"{value - found['choosing'][0]:+.3f}" for value in found["choosing"][1:]]
    body.append(["the half that chooses", "", str(found["listeners"]), f"{found['choosing'][0]:.3f}", *first])
    return lines(head, body)
