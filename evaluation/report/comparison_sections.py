"""The report's sections on who is found: methods side by side, what each part adds, and where more are found."""

from __future__ import annotations

from typing import Any

from evaluation.comparison import is_ours
from evaluation.report import charts
from evaluation.report.boundary_sections import SOURCES
from evaluation.report.charts import Bar, figure, note, number, percent, section, table
from evaluation.report.differences import between, differences, points, signed

COLOURS = "Blue: more, and red: less, by an interval that leaves zero out"
RATES = {"favourite_rate": "favourite rate", "completion_rate": "completion rate"}
Row = dict[str, Any]


def comparison(metrics: dict[str, Any]) -> str:
    """All methods at all budgets, and how each differs from the best baseline."""
    rows, best = metrics.get("audience") or [], metrics.get("best_baseline") or {}
    budgets = [int(key.split("@")[1]) for key in (rows[0] if rows else {}) if key.startswith("target_users_found@")]
    if not budgets:
        return ""
    middle = best.get("budget", budgets[len(budgets) // 2])
    groups = [
        (row["method"], [Bar(row[f"recall@{middle}"], _css(row["method"]), "", row[f"recall@{middle}_ci95"])])
        for row in rows
    ]
    label = f"Recall at {middle} users a song, with 95 % intervals"
    told = """Found: users named for a new song who are among its held-out listeners, summed over songs. Recall: the
    share of a song's held-out listeners that was found, averaged over songs that have one. Reached: all users named; a
    method with a boundary leaves users out. Intervals: 95 % bootstrap over songs, one seed. Methods are scored on the
    same songs: whether two differ is told by the interval of their difference, drawn from the same songs, and not by
    intervals that overlap."""
    return section(
        "Listeners found",
        note(told),
        figure(f"{label}; FirstPlay in blue, baselines grey", charts.bars(label, groups, number)),
        _less(metrics, middle),
        _table(rows, budgets),
        _table_of_differences(metrics.get("differences") or [], budgets),
    )


def _css(method: str) -> str:
    return "ours" if is_ours(method) else "plain"


def _less(metrics: dict[str, Any], budget: int) -> str:
    rows = metrics.get("differences") or []
    if not rows:
        return ""
    label = f"Recall at {budget} users a song less that of the best baseline, {rows[0]['less']}"
    return _differences(label, [(row["method"], row) for row in rows], f"recall@{budget}", signed)


def _differences(label: str, rows: list[tuple[str, Row]], key: str, show: Any) -> str:
    """A figure of one difference in each of some rows, with its interval; rows without it are left out."""
    drawn = [(name, row[key], row[f"{key}_ci95"]) for name, row in rows if row.get(key) is not None]
    return figure(f"{label}. {COLOURS}.", differences(label, drawn, show)) if drawn else ""


def _table(rows: list[Row], budgets: list[int]) -> str:
    head, body = ["method"], []
    for b in budgets:
        head += [f"found @{b}", f"reached @{b}", f"recall @{b}"]
    for row in rows:
        body.append([row["method"]])
        for b in budgets:
            low, high = row[f"recall@{b}_ci95"]
            recall = f"{row[f'recall@{b}']:.3f} ({low:.3f}–{high:.3f})"
            body[-1] += [number(row[f"target_users_found@{b}"]), number(row[f"reached@{b}"]), recall]
    return table("By users named a song; recall with its 95 % interval", head, body)


def _table_of_differences(rows: list[Row], budgets: list[int]) -> str:
    if not rows:
        return ""
    head, body = ["method"], []
    for b in budgets:
        head += [f"found @{b}", f"recall @{b}"]
    for row in rows:
        body.append([row["method"]])
        for b in budgets:
            body[-1] += [_count(row, b), between(row[f"recall@{b}"], row[f"recall@{b}_ci95"], signed)]
    return table(f"Less the best baseline, {rows[0]['less']}, on the same songs, with 95 % intervals", head, body)


def _count(row: Row, budget: int) -> str:
    """How many listeners more, with the interval."""
    return between(row[f"found@{budget}"], [round(end) for end in row[f"found@{budget}_ci95"]], signed)


def parts(metrics: dict[str, Any]) -> str:
    """What each part of FirstPlay adds: the same songs with it and without it."""
    rows, budget = metrics.get("parts") or [], (metrics.get("best_baseline") or {}).get("budget")
    if not rows or budget is None:
        return ""
    outcomes = {row["part"]: row for row in (metrics.get("outcomes") or {}).get("parts", [])}
    body = []
    for row in rows:
        met = outcomes.get(row["part"]) or {}
        rates = [between(met[k], met[f"{k}_ci95"], points) if met.get(k) is not None else "–" for k in RATES]
        recall = between(row[f"recall@{budget}"], row[f"recall@{budget}_ci95"], signed)
        body.append([row["part"], row["method"], row["less"], _count(row, budget), recall, *rates])
    head = ["part", "with it", "without", f"found @{budget}", f"recall @{budget}", *RATES.values()]
    told = """The same new songs with a part and without it. A gate leaves out users who are not open to a song: it is
    there for what the others do with it, and costs listeners found."""
    label, rate = f"Recall at {budget} users a song, with the part less without it", "Favourite rate of reached users"
    return section(
        "What each part adds",
        note(told),
        _differences(label, [(row["part"], row) for row in rows], f"recall@{budget}", signed),
        _differences(
            f"{rate}, with the part less without it, in percentage points",
            list(outcomes.items()),
            "favourite_rate",
            points,
        ),
        table("Differences with their 95 % intervals; of rates, in percentage points", head, body),
    )


def buckets(metrics: dict[str, Any]) -> str:
    """Where FirstPlay finds more than the best baseline, and where less."""
    told = metrics.get("buckets") or {}
    rows = told.get("rows") or []
    if not rows:
        return ""
    shown, body = [], []
    for by in dict.fromkeys(row["by"] for row in rows):
        label = f"Difference in recall by {by}"
        shown.append(_differences(label, [(r["bucket"], r) for r in rows if r["by"] == by], "difference", signed))
    for row in rows:
        less = between(row["difference"], row["difference_ci95"], signed)
        counts = [number(row[name]) for name in ("songs", "listeners", "recall", "baseline_recall")]
        body.append([f"{row['by']}: {row['bucket']}", *counts, less])
    head = ["bucket", "songs", "held-out listeners", told["method"], told["baseline"], "difference"]
    return section(
        "Where more are found",
        note(
            f"{told['method']} less the best baseline, {told['baseline']}: recall at {told['budget']} users a song"
            f" among the held-out listeners of a bucket, paired by song. Of {len(rows)} intervals about one in twenty"
            " leaves zero out by chance."
        ),
        *shown,
        table("Recall by bucket; the difference with its 95 % interval", head, body),
        _thirds(metrics.get("audience") or [], told["budget"]),
    )


def _thirds(rows: list[Row], budget: int) -> str:
    """All methods in the thirds of the songs."""
    if not rows:
        return ""
    head = [f"{b['bucket']}: {b['songs']} songs" for b in rows[0]["by_listeners"]]
    body = [[row["method"], *(number(b["recall"]) for b in row["by_listeners"])] for row in rows]
    return table(f"Recall at {budget} users a song by held-out listeners of the song", ["method", *head], body)


def outcomes(told: dict[str, Any]) -> str:
    """What reached users did."""
    rows = told.get("rows") or []
    if not rows:
        return ""
    cells = [[between(row[k], row[f"{k}_ci95"], percent) if row[k] is not None else "–" for k in RATES] for row in rows]
    body = [[row["method"], number(row["outcomes"]), *rates] for row, rates in zip(rows, cells, strict=True)]
    drawn = [
        (row["method"], [Bar(row["favourite_rate"], _css(row["method"]), "", row["favourite_rate_ci95"])])
        for row in rows
        if row["favourite_rate"] is not None
    ]
    label = "Favourite rate of reached users, with 95 % intervals"
    return section(
        "What reached users did",
        note(
            f"{SOURCES.get(told['source'], told['source'])} Audiences are those of the largest budget. Intervals: 95 %"
            " bootstrap over songs; that users differ too is not in them."
        ),
        figure(f"{label}; FirstPlay in blue", charts.bars(label, drawn, percent)) if drawn else "",
        table("Outcomes of reached users", ["method", "outcomes", *RATES.values()], body),
    )
