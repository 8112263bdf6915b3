"""The head of the report: in one sentence and four tiles, what FirstPlay finds against the best baseline."""

from __future__ import annotations

from html import escape
from typing import Any

from evaluation.comparison import OURS, is_ours
from evaluation.report.charts import between, note, number, percent, points, side, signed

GATE = "gate on I2I2U"
MORE_OR_LESS = {"ours": "more", "loss": "fewer"}
SURE = "The interval leaves zero out: other songs of this kind would hardly turn it round."
UNSURE = "The interval holds zero: on other songs of this kind it may be the other way round."
SPLITS = "Warm songs are known; of the new ones, cold val chose the checkpoints, and cold test did not."
Row = dict[str, Any]


def headline(metrics: dict[str, Any]) -> str:
    """The verdict, tiles, and what is in the catalogue."""
    rows = {row["method"]: row for row in metrics["audience"]}
    ours, base = rows[OURS], rows[metrics["best_baseline"]["method"]]
    more = next(row for row in metrics["differences"] if row["method"] == OURS)
    heard = f"{number(metrics['new_songs_with_a_listener'])} of them with a held-out listener"
    tiles = [
        _tile("New songs", number(metrics["new_songs"]), heard, f"split {metrics['split']}"),
        _recall_tile(metrics["best_baseline"]["budget"], ours, base, more),
        _gate_tile(metrics["outcomes"]),
        _text_tile(metrics["retrieval"], metrics["split"]),
    ]
    counts = ", ".join(f"{key.replace('_', ' ')} {number(n)}" for key, n in metrics["catalogue"].items())
    flattered = "These are validation songs, on which checkpoints were chosen: the figures are flattered."
    return (
        f'{verdict(metrics, ours, base, more)}<dl class="tiles">{"".join(tiles)}</dl>'
        f"{note(flattered) if metrics['split'] == 'cold_val' else ''}{note(f'The catalogue: {counts}. {SPLITS}')}"
    )


def verdict(metrics: dict[str, Any], ours: Row, base: Row, more: Row) -> str:
    """Who finds more, by how much, and whether that could be chance: the interval of the paired difference decides."""
    best, baselines = metrics["best_baseline"], [row for row in metrics["audience"] if not is_ours(row["method"])]
    budget = best["budget"]
    key, interval = f"target_users_found@{budget}", [round(end) for end in more[f"found@{budget}_ci95"]]
    css, share = side(interval), f"{abs(ours[key] / base[key] - 1):.0%} " if base[key] else ""
    claim = "On these new songs FirstPlay cannot be told from the best baseline."
    if css != "plain":
        claim = f"FirstPlay finds {share}{MORE_OR_LESS[css]} listeners of new songs than the best baseline."
    why = f"""The {number(metrics["new_songs"])} new songs have {number(best["held_out_listeners"])} known listeners,
    who were held out. Asked for {budget} users a song, {OURS} names {number(ours[key])} of them, and the best of
    {len(baselines)} baselines, {best["method"]}, {number(base[key])}: a difference of
    {between(more[f"found@{budget}"], interval, signed)}, with its 95 % interval.
    {UNSURE if css == "plain" else SURE}"""
    return f'<div class="verdict {css}"><p class="claim">{claim}</p><p>{escape(why)}</p></div>'


def _tile(name: str, value: str, *lines: str) -> str:
    more = "".join(f"<dd>{escape(line)}</dd>" for line in lines)
    return f'<div><dt>{escape(name)}</dt><dd class="figure">{escape(value)}</dd>{more}</div>'


def _recall_tile(budget: int, ours: Row, base: Row, more: Row) -> str:
    key = f"recall@{budget}"
    return _tile(
        f"Recall, {budget} users a song: every song counts alike",
        number(ours[key]),
        f"best baseline, {base['method']}: {number(base[key])}",
        f"difference {between(more[key], more[f'{key}_ci95'], signed)}",
    )


def _gate_tile(outcomes: dict[str, Any]) -> str:
    gate = next((row for row in outcomes.get("parts", []) if row["part"] == GATE), None)
    if gate is None or gate["favourite_rate"] is None:
        return ""
    gated, free = (next(row for row in outcomes["rows"] if row["method"] == gate[key]) for key in ("method", "less"))
    return _tile(
        f"Favourite rate of reached users, {gate['method']}",
        percent(gated["favourite_rate"]),
        f"no gate: {percent(free['favourite_rate'])}",
        f"difference {between(gate['favourite_rate'], gate['favourite_rate_ci95'], points)} percentage points",
        f"{number(gated['outcomes'])} and {number(free['outcomes'])} outcomes",
    )


def _text_tile(rows: list[Row], split: str) -> str:
    rows = sorted((row for row in rows if row["direction"] == "text→audio"), key=lambda row: row["pool"] != split)
    lines = [
        f"{row['pool']}, {number(row['pool_size'])} songs: {number(row['recall@10'])}, chance "
        f"{number(row['chance_recall@10'])}, ratio {row['recall@10'] / row['chance_recall@10']:.2f}×"
        for row in rows
    ]
    return _tile(f"Text→audio recall@10, {rows[0]['pool']}", number(rows[0]["recall@10"]), *lines) if rows else ""
