"""metrics.json of one or more evaluations → Markdown tables, mean ± standard deviation over the runs.

    python -m benchmarks.table runs/demo/metrics.json
    python -m benchmarks.table runs/moodclips/*/evaluation/metrics.json

The same tables stand in docs/results/, where `benchmarks.tables` writes them.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from configs.errors import UserError

Rows = list[dict[str, Any]]


def main(paths: Sequence[str]) -> None:
    """Print the tables."""
    runs = [json.loads(Path(path).read_text()) for path in paths]
    print("\n\n".join(sections(runs).values()))


def writable(out: str, work: Path) -> None:
    """Raise UserError, before anything is measured, unless `out` can be a file beside the folder `work`."""
    if Path(out) == work or Path(out).is_dir():
        raise UserError(f"out={out} must be a file, say {out.rstrip('/')}.json, and not the folder work=")
    Path(out).parent.mkdir(parents=True, exist_ok=True)


def sections(runs: Sequence[dict[str, Any]]) -> dict[str, str]:
    """The tables of one catalogue or several seeds by name: methods; outcomes, search and genres if they have rows."""
    first = runs[0]
    found = [key for key in first["audience"][0] if key.startswith("target_users_found@")]
    recall = [key for key in first["audience"][0] if key.startswith("recall@") and not key.endswith("ci95")]
    new, heard = (np.mean([run[key] for run in runs]) for key in ("new_songs", "new_songs_with_a_listener"))
    head = f"{len(runs)} run(s); {new:.0f} new songs, {heard:.0f} of them with a held-out listener."
    parts = {"methods": f"{head}\n\n{markdown('method', [run['audience'] for run in runs], [*found, *recall])}"}
    if first["outcomes"]:
        columns = ["outcomes", "favourite_rate", "completion_rate"]
        outcomes = markdown("method", [run["outcomes"]["rows"] for run in runs], columns)
        parts["outcomes"] = f"What the reached users did ({first['outcomes']['source']}):\n\n{outcomes}"
    if first["retrieval"]:
        columns = [
            "pool_size", "recall@1", "recall@5", "recall@10", "chance_recall@10", "median_rank",
            "recall@1_within_genre", "chance_recall@1_within_genre",
        ]  # fmt: skip
        rows = [[{**row, "search": f"{row['direction']}, {row['pool']}"} for row in run["retrieval"]] for run in runs]
        parts["search"] = markdown("search", rows, columns)
    if first["genres"]:
        columns = ["knn_genre_accuracy", "genre_nmi", "chance_genre_nmi"]
        parts["genres"] = markdown("space", [run["genres"] for run in runs], columns)
    return parts


def markdown(key: str, runs: Sequence[Rows], columns: Sequence[str]) -> str:
    """One table: a row for each value of `key`, a column for each figure."""
    rows = []
    for name in [row[key] for row in runs[0]]:
        of_name = [next(row for row in run if row[key] == name) for run in runs]
        rows.append([name, *(cell([row.get(column) for row in of_name]) for column in columns)])
    return lines([key, *(column.replace("_", " ") for column in columns)], rows)


def lines(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Cells as a Markdown table."""
    body = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([f"| {' | '.join(head)} |", "|---" * len(head) + "|", *body])


def cell(values: Sequence[Any]) -> str:
    """Mean, and ± standard deviation where there are several runs."""
    known = [float(value) for value in values if value is not None]
    if not known:
        return "–"
    digits = 0 if all(isinstance(value, int) for value in values) else 3
    mean = f"{np.mean(known):.{digits}f}"
    return mean if len(known) == 1 else f"{mean} ± {np.std(known, ddof=1):.{digits}f}"


if __name__ == "__main__":
    if len(sys.argv) < 2 or sys.argv[1] in ("-h", "--help"):
        print(__doc__)
    else:
        main(sys.argv[1:])
