"""The report's sections on who is found: methods side by side, what each part adds, and where more are found."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from evaluation.comparison import is_ours
from evaluation.outcomes import RATES
from evaluation.report import charts
from evaluation.report.boundary_sections import SOURCES
from evaluation.report.charts import between, figure, note, number, percent, points, section, signed, table

COLOURS = "Blue: more, and red: less, by an interval that leaves zero out"
RATE_NAMES = [name.replace("_", " ") for name in RATES]
Row = dict[str, Any]


def comparison(metrics: dict[str, Any]) -> str:
    """All methods at all budgets, and how each differs from the best baseline."""
    rows, less, middle = metrics["audience"], metrics["differences"], metrics["best_baseline"]["budget"]
    budgets = [int(key.split("@")[1]) for key in rows[0] if key.startswith("target_users_found@")]
    key, base = f"recall@{middle}", less[0]["less"]
    label = f"Recall at {middle} users a song"
    how = """Found: users named for a new song who are among its held-out listeners, summed over songs. Recall: the
    share of a song's held-out listeners that was found, averaged over songs that have one. Reached: all users named; a
    method with a boundary leaves users out. Intervals: 95 % bootstrap over songs, one seed. Methods are scored on the
    same songs: the interval of their difference, drawn from the same songs, shows whether two differ. Intervals that
    overlap do not show it."""
    return section(
        "Listeners found",
        note(how),
        _bars(f"{label}, with 95 % intervals", "FirstPlay in blue, baselines grey", rows, key, number),
        _differences(f"{label} less that of the best baseline, {base}", ((r["method"], r) for r in less), key, signed),
        _by_budget(
            "By users named a song; recall with its 95 % interval",
            rows,
            budgets,
            {
                "found": lambda row, b: number(row[f"target_users_found@{b}"]),
                "reached": lambda row, b: number(row[f"reached@{b}"]),
                "recall": _recall,
            },
        ),
        _by_budget(
            f"Less the best baseline, {base}, on the same songs, with 95 % intervals",
            less,
            budgets,
            {"found": _count, "recall": lambda row, b: _cell(row, f"recall@{b}", signed)},
        ),
        table(
            "Share of the users of one row that another row names too, mean over songs",
            ["method", "also named by", *(f"@{b}" for b in budgets)],
            [
                [row["method"], row["other"], *(number(row[f"overlap@{b}"]) for b in budgets)]
                for row in metrics["overlap"]
            ],
        ),
    )


def _bars(label: str, colours: str, rows: list[Row], key: str, show: Callable[[float], str]) -> str:
    """A figure of one bar a method, with its interval; methods without the figure are left out."""
    drawn = [
        charts.Bar(row["method"], row[key], "ours" if is_ours(row["method"]) else "plain", row[f"{key}_ci95"])
        for row in rows
        if row[key] is not None
    ]
    return figure(f"{label}; {colours}", charts.bars(label, drawn, show)) if drawn else ""


def _differences(label: str, rows: Iterable[tuple[str, Row]], key: str, show: Callable[[float], str]) -> str:
    """A figure of one difference in each of some rows, with its interval; rows without it are left out."""
    drawn = [(name, row[key], row[f"{key}_ci95"]) for name, row in rows if row[key] is not None]
    return figure(f"{label}. {COLOURS}.", charts.differences(label, drawn, show)) if drawn else ""


def _by_budget(caption: str, rows: list[Row], budgets: list[int], columns: dict[str, Callable[[Row, int], str]]) -> str:
    """A table of methods, the same columns for each budget."""
    head = ["method", *(f"{name} @{b}" for b in budgets for name in columns)]
    return table(
        caption, head, [[row["method"], *(show(row, b) for b in budgets for show in columns.values())] for row in rows]
    )


def _recall(row: Row, budget: int) -> str:
    low, high = row[f"recall@{budget}_ci95"]
    return f"{row[f'recall@{budget}']:.3f} ({low:.3f}–{high:.3f})"


def _count(row: Row, budget: int) -> str:
    """How many listeners more, with the interval."""
    return between(row[f"found@{budget}"], [round(end) for end in row[f"found@{budget}_ci95"]], signed)


def _cell(row: Row, key: str, show: Callable[[float], str]) -> str:
    """A figure and its interval, or a dash where there is none."""
    return "–" if row.get(key) is None else between(row[key], row[f"{key}_ci95"], show)


def parts(metrics: dict[str, Any]) -> str:
    """What each part of FirstPlay adds: the same songs with it and without it."""
    rows, budget = metrics["parts"], metrics["best_baseline"]["budget"]
    outcomes = {row["part"]: row for row in metrics["outcomes"].get("parts", [])}
    body = [
        [row["part"], row["method"], row["less"], _count(row, budget), _cell(row, f"recall@{budget}", signed)]
        + [_cell(outcomes.get(row["part"], {}), rate, points) for rate in RATES]
        for row in rows
    ]
    head = ["part", "with it", "without", f"found @{budget}", f"recall @{budget}", *RATE_NAMES]
    how = """The same new songs with a part and without it. A gate leaves out users who are not open to a song: it is
    there for what the others do with it, and costs listeners found."""
    recall = f"Recall at {budget} users a song, with the part less without it"
    rate = "Favourite rate of reached users, with the part less without it, in percentage points"
    return section(
        "What each part adds",
        note(how),
        _differences(recall, ((row["part"], row) for row in rows), f"recall@{budget}", signed),
        _differences(rate, outcomes.items(), "favourite_rate", points),
        table("Differences with their 95 % intervals; of rates, in percentage points", head, body),
    )


def buckets(metrics: dict[str, Any]) -> str:
    """Where FirstPlay finds more than the best baseline, and where less."""
    drawn, methods = metrics["buckets"], metrics["audience"]
    rows, budget, pair = drawn["rows"], drawn["budget"], (drawn["method"], drawn["baseline"])
    by = {row["by"]: [(one["bucket"], one) for one in rows if one["by"] == row["by"]] for row in rows}
    body = [
        [f"{row['by']}: {row['bucket']}"]
        + [number(row[name]) for name in ("songs", "listeners", "recall", "baseline_recall")]
        + [_cell(row, "difference", signed)]
        for row in rows
    ]
    thirds = [f"{third['bucket']}: {third['songs']} songs" for third in methods[0]["by_listeners"]]
    return section(
        "Where more are found",
        note(
            f"{pair[0]} less the best baseline, {pair[1]}: recall at {budget} users a song"
            f" among the held-out listeners of a bucket, paired by song. Of {len(rows)} intervals about one in twenty"
            " leaves zero out by chance."
        ),
        *(_differences(f"Difference in recall by {name}", of, "difference", signed) for name, of in by.items()),
        table(
            "Recall by bucket; the difference with its 95 % interval",
            ["bucket", "songs", "held-out listeners", *pair, "difference"],
            body,
        ),
        table(
            f"Recall at {budget} users a song by held-out listeners of the song",
            ["method", *thirds],
            [[row["method"], *(number(third["recall"]) for third in row["by_listeners"])] for row in methods],
        ),
    )


def outcomes(outcomes: dict[str, Any]) -> str:
    """What reached users did; nothing where no outcome is known."""
    if not outcomes:
        return ""
    rows = outcomes["rows"]
    body = [[row["method"], number(row["outcomes"]), *(_cell(row, rate, percent) for rate in RATES)] for row in rows]
    label = "Favourite rate of reached users, with 95 % intervals"
    return section(
        "What reached users did",
        note(
            f"{SOURCES[outcomes['source']]} Audiences are those of the largest budget. Intervals: 95 %"
            " bootstrap over songs; that users differ too is not in them."
        ),
        _bars(label, "FirstPlay in blue", rows, "favourite_rate", percent),
        table("Outcomes of reached users", ["method", "outcomes", *RATE_NAMES], body),
    )
