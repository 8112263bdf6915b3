"""The report's sections on the interest boundary: how open users are, and where the gate stands."""

from __future__ import annotations

from typing import Any

import numpy as np

from evaluation.report import charts
from evaluation.report.charts import Bar, figure, note, number, percent, section, table
from evaluation.report.curves import Line, curves

SOURCES = {
    "truth": "Source: the demo world's truth: outcomes for a fixed sample of users, exposed to the song or not.",
    "logged plays": "Source: logged plays. They are selected: only users who met the song have an outcome.",
}
ERRORS = ("calibration_error_before", "calibration_error")


def boundary(drawn: dict[str, Any], summary: dict[str, Any]) -> str:
    """How open users are to new songs."""
    parts = []
    if drawn.get("margin_count"):
        label = "Margin of (new song, user) pairs; above 0, right of the line, the user is open to the song"
        picture = charts.histogram(label, drawn["margin_count"], drawn["margin_edge"], "{:.3g}".format, 0)
        parts.append(figure(f"{label}. The outermost 0.1 % at each end are not drawn.", picture))
    if drawn.get("open_count"):
        label = "Users by the share of new songs that they are open to"
        parts.append(figure(label, charts.histogram(label, drawn["open_count"], drawn["open_edge"], "{:.0%}".format)))
    if summary.get("share_of_new_songs_by_taste"):
        shares = summary["share_of_new_songs_by_taste"].items()
        label = "Share of new songs a user is open to, users in thirds by how popular the songs are that they play"
        parts.append(figure(label, charts.bars(label, [(name, [Bar(v, "ours")]) for name, v in shares], percent)))
    plain = [[name.replace("_", " "), percent(v)] for name, v in summary.items() if not isinstance(v, dict)]
    parts.append(table("Openness to new songs", ["figure", "share"], plain) if plain else "")
    return section("Interest boundaries", *parts)


def reach(reach: dict[str, Any]) -> str:
    """What reached users do, by how many are reached: with the gate and without."""
    if not reach.get("gated") or not reach.get("ungated"):
        return ""
    parts = []
    for key, name in (("favourite_rate", "Favourite rate"), ("completion_rate", "Completion rate")):
        lines = [
            Line(told, css, [row["reached"] for row in reach[told]], [row[key] for row in reach[told]])
            for told, css in (("gated", "ours"), ("ungated", "plain"))
        ]
        label = f"{name} of the users reached by I2I2U, by the share of users reached"
        parts.append(figure(f"{label}; blue: gated, grey: ungated", curves(label, lines, "{:.0%}".format)))
    return section(
        "Reach and response",
        note(f"{SOURCES['truth']} Each new song goes to the best 1 %, 2 % … of the sampled users; the gate leaves out"
             " those whose boundary it does not clear, so that its line ends where nobody else is open to a song."),
        *parts,
    )  # fmt: skip


def gate(gate: dict[str, Any]) -> str:
    """What passes the gate at other margins, and how sure the margins are."""
    curve = gate.get("curve") or []
    if not curve:
        return ""
    passed = [row["passed"] for row in curve]
    names = (("favourite_rate", "favourite rate", "ours"), ("completion_rate", "completion rate", "plain"))
    lines = [Line(name, css, passed, [row[key] for row in curve]) for key, name, css in names]
    at = np.interp(0.0, [row["margin"] for row in curve], passed, right=np.nan)  # nan: no row lies above it
    label = "Favourite rate (darker) and completion rate of the exposures that pass, by how many pass"
    told = f"{label}. Left: a high gate, right: none. The dashed line is the boundary itself, targeting.margin=0."
    rows = [
        [f"{row['margin']:+.2f}", percent(row["passed"]), *(percent(row[key]) for key, _, _ in names)]
        for row in curve[:: max(1, len(curve) // 7)]
    ]
    figures = [[name.replace("_", " "), number(v)] for name, v in gate["at_the_boundary"].items()]
    figures += [[name.replace("_", " "), number(gate.get(name))] for name in ERRORS if gate.get(name) is not None]
    return section(
        "Where the gate stands",
        note(f"{SOURCES[gate['source']]} {gate['exposures']:,} exposures; liked: completed or favourited."),
        figure(told, curves(label, lines, "{:.0%}".format, None if np.isnan(at) else float(at))),
        table("The gate at other margins", ["targeting.margin", "passed", *(name for _, name, _ in names)], rows),
        table("The boundary as a classifier of what is liked", ["figure", "value"], figures),
    )
