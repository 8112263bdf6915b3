"""The head of the report: in one sentence and four tiles, what FirstPlay finds against the best baseline."""

from __future__ import annotations

from html import escape
from typing import Any

from evaluation.comparison import OURS, is_ours
from evaluation.report.charts import note, number, percent
from evaluation.report.differences import between, points, side, signed

GATE = "gate on I2I2U"
CLAIMS = {
    "ours": "FirstPlay finds {share}more listeners of new songs than the best baseline.",
    "loss": "FirstPlay finds {share}fewer listeners of new songs than the best baseline.",
    "plain": "On these new songs FirstPlay cannot be told from the best baseline.",
}
LIMITS = {
    "ours": "The interval leaves zero out: other songs of this kind would hardly turn it round.",
    "loss": "The interval leaves zero out: other songs of this kind would hardly turn it round.",
    "plain": "The interval holds zero: on other songs of this kind it may be the other way round.",
}
SPLITS = "Warm songs are known; of the new ones, cold val chose the checkpoints, and cold test did not."
Row = dict[str, Any]


def headline(metrics: dict[str, Any]) -> str:
    """The verdict, tiles, and what is in the catalogue; what has no figures is left out."""
    split = metrics.get("split")
    tiles = [
        _new_tile(metrics),
        _recall_tile(metrics),
        _gate_tile(metrics.get("outcomes") or {}),
        _text_tile(metrics.get("retrieval") or [], split),
    ]
    shown = verdict(metrics) + (f'<dl class="tiles">{"".join(tiles)}</dl>' if any(tiles) else "")
    if split == "cold_val":
        shown += note("These are validation songs, on which checkpoints were chosen: the figures are flattered.")
    if metrics.get("catalogue"):
        counts = ", ".join(f"{key.replace('_', ' ')} {number(n)}" for key, n in metrics["catalogue"].items())
        shown += note(f"The catalogue: {counts}. {SPLITS}")
    return shown


def _against(metrics: dict[str, Any]) -> tuple[Row, Row, Row] | None:
    """Our row of the comparison, the best baseline's, and the difference; None where they are missing."""
    rows = {row["method"]: row for row in metrics.get("audience") or []}
    less = {row["method"]: row for row in metrics.get("differences") or []}
    best = (metrics.get("best_baseline") or {}).get("method")
    return (rows[OURS], rows[best], less[OURS]) if OURS in less and OURS in rows and best in rows else None


def verdict(metrics: dict[str, Any]) -> str:
    """Who finds more, by how much, and whether that could be chance: the interval of the paired difference decides."""
    rows = _against(metrics)
    if rows is None:
        return ""
    (ours, base, more), best = rows, metrics["best_baseline"]
    budget, baselines = best["budget"], [row for row in metrics["audience"] if not is_ours(row["method"])]
    key, interval = f"target_users_found@{budget}", [round(end) for end in more[f"found@{budget}_ci95"]]
    css, share = side(interval), f"{abs(ours[key] / base[key] - 1):.0%} " if base[key] else ""
    told = f"""The {number(metrics["new_songs"])} new songs have {number(best["held_out_listeners"])} known listeners,
    who were held out. Asked for {budget} users a song, {OURS} names {number(ours[key])} of them, and the best of
    {len(baselines)} baselines, {best["method"]}, {number(base[key])}: a difference of
    {between(more[f"found@{budget}"], interval, signed)}, with its 95 % interval.
    {LIMITS[css]}"""
    claim = escape(CLAIMS[css].format(share=share))
    return f'<div class="verdict {css}"><p class="claim">{claim}</p><p>{escape(told)}</p></div>'


def _tile(name: str, value: str, *lines: str) -> str:
    more = "".join(f"<dd>{escape(line)}</dd>" for line in lines)
    return f'<div><dt>{escape(name)}</dt><dd class="figure">{escape(value)}</dd>{more}</div>'


def _new_tile(metrics: dict[str, Any]) -> str:
    if "new_songs" not in metrics:
        return ""
    heard = f"{number(metrics.get('new_songs_with_a_listener'))} of them with a held-out listener"
    return _tile("New songs", number(metrics["new_songs"]), heard, f"split {metrics.get('split')}")


def _recall_tile(metrics: dict[str, Any]) -> str:
    rows = _against(metrics)
    if rows is None:
        return ""
    (ours, base, more), best = rows, metrics["best_baseline"]
    key = f"recall@{best['budget']}"
    return _tile(
        f"Recall, {best['budget']} users a song: every song counts alike",
        number(ours[key]),
        f"best baseline, {best['method']}: {number(base[key])}",
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


def _text_tile(rows: list[Row], split: str | None) -> str:
    rows = sorted((row for row in rows if row["direction"] == "text→audio"), key=lambda row: row["pool"] != split)
    lines = [
        f"{row['pool']}, {number(row['pool_size'])} songs: {number(row['recall@10'])}, chance "
        f"{number(row['chance_recall@10'])}, ratio {row['recall@10'] / row['chance_recall@10']:.2f}×"
        for row in rows
    ]
    return _tile(f"Text→audio recall@10, {rows[0]['pool']}", number(rows[0]["recall@10"]), *lines) if rows else ""
