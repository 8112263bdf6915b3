"""The report's sections on the interest boundary: how open users are, and where the gate stands."""

from __future__ import annotations

from typing import Any

import numpy as np

from evaluation.report.charts import Bar, Line, bars, curves, figure, histogram, note, number, percent, section, table

SOURCES = {
    "truth": "Source: the demo world's truth: outcomes for a fixed sample of users, exposed to the song or not.",
    "logged plays": "Source: logged plays. They are selected: only users who met the song have an outcome.",
}
RATES = (("favourite_rate", "favourite rate", "ours"), ("completion_rate", "completion rate", "plain"))
ERRORS = ("calibration_error_before", "calibration_error")
SHARE = "{:.0%}".format


def boundary(drawn: dict[str, Any], summary: dict[str, Any]) -> str:
    """How open users are to new songs."""
    gate = drawn["gate"]
    margin = f"Margin of (new song, user) pairs; above {gate:g}, right of the line, the user is open to the song"
    users = "Users by the share of new songs that they are open to"
    taste = "Share of new songs a user is open to, users in thirds by how popular the songs are that they play"
    thirds = [Bar(name, share, "ours") for name, share in summary["share_of_new_songs_by_taste"].items()]
    plain = [[name.replace("_", " "), percent(v)] for name, v in summary.items() if not isinstance(v, dict)]
    return section(
        "Interest boundaries",
        figure(
            f"{margin}. The outermost 0.1 % at each end are not drawn.",
            histogram(margin, drawn["margin_count"], drawn["margin_edge"], "{:.3g}".format, gate),
        ),
        figure(users, histogram(users, drawn["open_count"], drawn["open_edge"], SHARE)),
        figure(taste, bars(taste, thirds, percent)) if thirds else "",
        table("Openness to new songs", ["figure", "share"], plain),
    )


def reach(reach: dict[str, Any]) -> str:
    """What reached users do, by how many are reached: with the gate and without."""
    if not reach.get("gated") or not reach.get("ungated"):
        return ""
    parts = []
    for key, name, _ in RATES:
        lines = [
            Line(way, css, [row["reached"] for row in reach[way]], [row[key] for row in reach[way]])
            for way, css in (("gated", "ours"), ("ungated", "plain"))
        ]
        label = f"{name.capitalize()} of the users reached by I2I2U, by the share of users reached"
        parts.append(figure(f"{label}; blue: gated, grey: ungated", curves(label, lines, SHARE)))
    return section(
        "Reach and response",
        note(f"{SOURCES['truth']} Each new song goes to the best 1 %, 2 % … of the sampled users; the gate leaves out"
             " those whose boundary it does not clear, so that its line ends where nobody else is open to a song."),
        *parts,
    )  # fmt: skip


def gate(gate: dict[str, Any]) -> str:
    """What passes the gate at other margins, and how sure the margins are."""
    if not gate:
        return ""
    curve = gate["curve"]
    passed = [row["passed"] for row in curve]
    lines = [Line(name, css, passed, [row[key] for row in curve]) for key, name, css in RATES]
    stands = gate["margin"]
    at = np.interp(stands, [row["margin"] for row in curve], passed, right=np.nan)  # nan: no row lies above it
    label = "Favourite rate (darker) and completion rate of the exposures that pass, by how many pass"
    where = f"targeting.margin={stands:g}" + ("" if stands else ", the boundary itself")
    how = f"Left: a high gate, right: none. The dashed line is {where}."
    rows = [
        [f"{row['margin']:+.2f}", percent(row["passed"]), *(percent(row[key]) for key, _, _ in RATES)]
        for row in curve[:: max(1, len(curve) // 7)]
    ]
    classified = gate["at_the_boundary"] | {name: gate[name] for name in ERRORS if name in gate}
    return section(
        "Where the gate stands",
        note(f"{SOURCES[gate['source']]} {gate['exposures']:,} exposures; liked: completed or favourited."),
        figure(f"{label}. {how}", curves(label, lines, SHARE, None if np.isnan(at) else float(at))),
        table("The gate at other margins", ["targeting.margin", "passed", *(name for _, name, _ in RATES)], rows),
        table(
            "The gate as a classifier of what is liked",
            ["figure", "value"],
            [[name.replace("_", " "), number(value)] for name, value in classified.items()],
        ),
    )
