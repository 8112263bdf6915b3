"""The evaluation as one HTML file that opens offline: the figures of metrics.json, rounded, and their pictures.

Nothing is computed anew here except ratios. A section whose data is missing is left out.
"""

from __future__ import annotations

from html import escape
from pathlib import Path
from string import Template
from typing import Any

from pipeline import charts
from pipeline.boundary_sections import SOURCES, boundary, gate, reach
from pipeline.charts import Bar, figure, note, number, percent, section, table
from pipeline.genre_maps import genre_maps

OURS, GATED = "FirstPlay I2I2U", "FirstPlay I2I2U, gated"
SHADES = {"rare": "low", "middle": "mid", "popular": "high"}
Row = dict[str, Any]

PAGE = Template("""<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>FirstPlay evaluation</title>
<style>$style</style>
</head><body><main>
<h1>FirstPlay evaluation</h1>
$body
<footer><p>Figures are those of metrics.json in this folder, rounded; only ratios are computed here. The run's options
are in manifest.json. One training seed: no interval here says how much another training run would differ.</p></footer>
</main></body></html>
""")


def write_report(path: Path, metrics: dict[str, Any], pictures: dict[str, Any]) -> None:
    """Write the metrics and pictures of `pipeline.evaluate` to `path` as one HTML file."""
    rows = metrics.get("audience") or []
    budgets = [int(key.split("@")[1]) for key in (rows[0] if rows else {}) if key.startswith("target_users_found@")]
    sections = (
        _headline(metrics, rows, budgets),
        _comparison(rows, budgets),
        _outcomes(metrics.get("outcomes") or {}),
        _audio_text(metrics.get("retrieval") or []),
        _songs(pictures.get("song_map") or {}, metrics.get("genres") or []),
        boundary(pictures.get("boundary") or {}, metrics.get("boundary") or {}),
        reach(metrics.get("reach") or {}),
        gate(metrics.get("gate") or {}),
    )
    path.write_text(PAGE.substitute(style=charts.STYLE, body="\n".join(filter(None, sections))), encoding="utf-8")


def _ratio(value: float | None, base: float | None) -> str:
    return f"{value / base:.2f}×" if value is not None and base else "–"


def _rate(row: Row, name: str) -> str:
    value, error = row[name], row[f"{name}_se"]
    return "–" if value is None else f"{100 * value:.2f} ± {100 * error:.2f}\u202f%"


def _recall(row: Row, budget: int) -> str:
    low, high = row[f"recall@{budget}_ci95"]
    return f"{row[f'recall@{budget}']:.3f} ({low:.3f}–{high:.3f})"


def _css(method: str) -> str:
    return "ours" if method.startswith("FirstPlay") else "plain"


def _middle(budgets: list[int]) -> int:
    return sorted(budgets)[len(budgets) // 2]


def _headline(metrics: dict[str, Any], rows: list[Row], budgets: list[int]) -> str:
    split, shown, tiles = metrics.get("split"), "", []
    if metrics.get("catalogue"):
        shown = note(", ".join(f"{key.replace('_', ' ')} {number(n)}" for key, n in metrics["catalogue"].items()))
    if split == "cold_val":
        shown += note("These are validation songs, on which checkpoints were chosen: the figures are flattered.")
    if "new_songs" in metrics:
        heard = f"{number(metrics.get('new_songs_with_a_listener'))} of them with a held-out listener"
        tiles.append(_tile("New songs", number(metrics["new_songs"]), heard, f"split {split}"))
    tiles.append(_found_tile(rows, budgets))
    tiles.append(_gate_tile({row["method"]: row for row in (metrics.get("outcomes") or {}).get("rows", [])}))
    tiles.append(_text_tile(metrics.get("retrieval") or [], split))
    return shown + (f'<dl class="tiles">{"".join(tiles)}</dl>' if any(tiles) else "")


def _tile(name: str, value: str, *lines: str) -> str:
    more = "".join(f"<dd>{escape(line)}</dd>" for line in lines)
    return f'<div><dt>{escape(name)}</dt><dd class="figure">{escape(value)}</dd>{more}</div>'


def _found_tile(rows: list[Row], budgets: list[int]) -> str:
    ours = next((row for row in rows if row["method"] == OURS), None)
    baselines = [row for row in rows if _css(row["method"]) == "plain"]
    if ours is None or not baselines:
        return ""
    key = f"target_users_found@{_middle(budgets)}"
    best = max(baselines, key=lambda row: row[key])  # chosen on these same songs, in the baseline's favour
    return _tile(
        f"Listeners found by {OURS}, {_middle(budgets)} users a song",
        number(ours[key]),
        f"best baseline, {best['method']}: {number(best[key])}; ratio {_ratio(ours[key], best[key])}",
        f"recall {_recall(ours, _middle(budgets))}, baseline {_recall(best, _middle(budgets))}",
    )


def _gate_tile(rows: dict[str, Row]) -> str:
    if GATED not in rows or OURS not in rows:
        return ""
    gated, free = rows[GATED], rows[OURS]
    return _tile(
        f"Favourite rate of reached users, {GATED}",
        _rate(gated, "favourite_rate"),
        f"no gate: {_rate(free, 'favourite_rate')}; ratio {_ratio(gated['favourite_rate'], free['favourite_rate'])}",
        f"{number(gated['outcomes'])} and {number(free['outcomes'])} outcomes; ± is one standard error",
    )


def _text_tile(rows: list[Row], split: str | None) -> str:
    rows = sorted((row for row in rows if row["direction"] == "text→audio"), key=lambda row: row["pool"] != split)
    lines = [
        f"{row['pool']}, {number(row['pool_size'])} songs: {number(row['recall@10'])}, chance "
        f"{number(row['chance_recall@10'])}, ratio {_ratio(row['recall@10'], row['chance_recall@10'])}"
        for row in rows
    ]
    return _tile(f"Text→audio R@10, {rows[0]['pool']}", number(rows[0]["recall@10"]), *lines) if rows else ""


def _comparison(rows: list[Row], budgets: list[int]) -> str:
    if not budgets:
        return ""
    head, body, groups, middle = ["method"], [], [], _middle(budgets)
    for b in budgets:
        head += [f"found @{b}", f"reached @{b}", f"recall @{b}"]
    for row in rows:
        body.append([row["method"]])
        for b in budgets:
            body[-1] += [number(row[f"target_users_found@{b}"]), number(row[f"reached@{b}"]), _recall(row, b)]
        bar = Bar(row[f"recall@{middle}"], _css(row["method"]), "", row[f"recall@{middle}_ci95"])
        groups.append((row["method"], [bar]))
    label = f"Recall at {middle} users a song, with 95 % intervals"
    told = """Found: users named for a new song who are among its held-out listeners, summed over songs. Reached: all
    users named; a method with a boundary leaves users out. Recall: the share of a song's held-out listeners that was
    found, averaged over songs that have one. Intervals: 95 % bootstrap over songs, one seed. The methods are scored on
    the same songs, so overlapping intervals alone do not mean that two methods are equal."""
    picture = figure(f"{label}; FirstPlay in blue, baselines grey", charts.bars(label, groups, number))
    figures = table("By users named a song; recall with its 95 % interval", head, body)
    return section("Listeners found", picture, _buckets(rows, budgets), note(told), figures)


def _buckets(rows: list[Row], budgets: list[int]) -> str:
    rows = [row for row in rows if row.get("by_listeners")]
    if not rows:
        return ""
    groups, key = [], []
    for row in rows:
        members = [Bar(b["recall"], SHADES[b["bucket"]], b["bucket"]) for b in row["by_listeners"]]
        groups.append((row["method"], members))
    for b in rows[0]["by_listeners"]:
        span = f"{b['listeners'][0]} to {b['listeners'][1]} listeners"
        key.append((f"{b['bucket']}: {span}, {b['songs']} songs", SHADES[b["bucket"]], None))
    label = f"Recall at {budgets[-1]} users a song, new songs in thirds by how many held-out listeners they have"
    return figure(label, charts.key(key), charts.bars(label, groups, number))


def _outcomes(outcomes: dict[str, Any]) -> str:
    body = [
        [row["method"], number(row["outcomes"]), _rate(row, "favourite_rate"), _rate(row, "completion_rate")]
        for row in outcomes.get("rows", [])
    ]
    if not body:
        return ""
    told = f"""{SOURCES.get(outcomes["source"], outcomes["source"])} Audiences are those of the largest budget. ± is one
    standard error as if outcomes were independent; those of one song or user are not, so it is too small."""
    head = ["method", "outcomes", "favourite rate", "completion rate"]
    return section("What reached users did", table("Outcomes of reached users", head, body), note(told))


def _audio_text(rows: list[Row]) -> str:
    head = "pool, direction|songs|R@1|R@5|R@10|chance R@10|R@10 / chance|median rank|R@1 in genre|chance in genre"
    body = [
        [
            f"{row['pool']}, {row['direction']}",
            *(number(row[name]) for name in ("pool_size", "recall@1", "recall@5", "recall@10", "chance_recall@10")),
            _ratio(row["recall@10"], row["chance_recall@10"]),
            f"{row['median_rank']:,.1f}",
            *(number(row[name]) for name in ("recall@1_within_genre", "chance_recall@1_within_genre")),
        ]
        for row in rows
    ]
    caption = """Retrieval of the exact song among the pool; ties rank last. In genre: among songs of the query's genre.
    All new songs include the validation songs, on which the checkpoint was chosen; cold_test does not."""
    return section("Audio and text", table(caption, head.split("|"), body)) if rows else ""


def _songs(drawn: dict[str, Any], genres: list[Row]) -> str:
    parts = []
    if drawn.get("maps"):
        label, maps, key = genre_maps(drawn)
        how = """t-SNE of each kind of song vectors: near is alike, axes and far distances mean nothing. Titles on
        hover. The untrained vectors are without the genre field; the trained encoders may have been given it."""
        parts.append(figure(f"{label}. {how}", charts.key(key), charts.side_by_side(maps)))
    if genres:
        shown = {"knn_genre_accuracy": percent, "genre_nmi": number, "chance_genre_nmi": number}
        body = [[row["space"], *(show(row.get(name)) for name, show in shown.items())] for row in genres]
        caption = """Accuracy: share of new songs whose nearest known songs (cosine) vote for the right first genre.
        NMI: what k-means clusters of all songs, as many as genres, tell about it, 0 to 1; chance: genres shuffled."""
        parts.append(table(caption, ["song vectors", "accuracy", "NMI", "chance NMI"], body))
    return section("Songs and genres", *parts)
