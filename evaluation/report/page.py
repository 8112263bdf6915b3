"""The evaluation as one HTML file that opens offline: the figures of metrics.json, rounded, and their pictures.

Nothing is computed anew here except ratios. A section on what was not measured is left out.
"""

from __future__ import annotations

from base64 import b64encode
from hashlib import sha256
from pathlib import Path
from string import Template
from typing import Any

from evaluation.report.boundary_sections import boundary, gate, reach
from evaluation.report.charts import STYLE, figure, number, percent, section, table
from evaluation.report.comparison_sections import buckets, comparison, outcomes, parts
from evaluation.report.genre_maps import maps_and_legend
from evaluation.report.headline import headline

Row = dict[str, Any]

SCRIPT = Path(__file__).with_name("report.js").read_text("utf-8")  # the only one that the page lets run
PAGE = Template("""<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy"
content="default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-$digest'">
<title>FirstPlay evaluation</title>
<style>$style</style>
</head><body><main>
<h1>FirstPlay evaluation</h1>
$body
<footer><p>Figures are those of metrics.json in this folder, rounded; only ratios are computed here. The run's options
are in manifest.json. One training seed: no interval here says how much another training run would differ.</p></footer>
</main><script>$script</script></body></html>
""")


def write_report(path: Path, metrics: dict[str, Any], pictures: dict[str, Any]) -> None:
    """Write the metrics and pictures of `pipeline.evaluate` to `path` as one HTML file."""
    sections = [
        headline(metrics),
        comparison(metrics),
        parts(metrics),
        buckets(metrics),
        outcomes(metrics["outcomes"]),
        _audio_text(metrics["retrieval"]),
        _songs(pictures["song_map"], metrics["genres"]),
    ]
    if "boundary" in metrics:
        sections += [
            boundary(pictures["boundary"], metrics["boundary"]),
            reach(metrics["reach"]),
            gate(metrics["gate"]),
        ]
    digest = b64encode(sha256(SCRIPT.encode()).digest()).decode()
    page = PAGE.substitute(style=STYLE, script=SCRIPT, digest=digest, body="\n".join(filter(None, sections)))
    path.write_text(page, encoding="utf-8")


def _audio_text(rows: list[Row]) -> str:
    head = "pool, direction|songs|R@1|R@5|R@10|chance R@10|R@10 / chance|median rank|R@1 in genre|chance in genre"
    body = [
        [
            f"{row['pool']}, {row['direction']}",
            *(number(row[name]) for name in ("pool_size", "recall@1", "recall@5", "recall@10", "chance_recall@10")),
            f"{row['recall@10'] / row['chance_recall@10']:.2f}×",
            f"{row['median_rank']:,.1f}",
            *(number(row[name]) for name in ("recall@1_within_genre", "chance_recall@1_within_genre")),
        ]
        for row in rows
    ]
    caption = """Retrieval of the exact song among the pool; ties rank last. R@10: how often it is among the first
    10. In genre: among songs of the query's genre. All new songs include the validation
    songs, on which the checkpoint was chosen; cold_test does not."""
    return section("Audio and text", table(caption, head.split("|"), body)) if rows else ""


def _songs(drawn: dict[str, Any], genres: list[Row]) -> str:
    label, maps = maps_and_legend(drawn)
    how = """t-SNE of each kind of song vectors: near is alike, axes and far distances mean nothing. Titles on
    hover. The untrained vectors are without the genre field; the trained encoders may have been given it."""
    shown = {"knn_genre_accuracy": percent, "genre_nmi": number, "chance_genre_nmi": number}
    body = [[row["space"], *(show(row.get(name)) for name, show in shown.items())] for row in genres]
    caption = """Accuracy: share of new songs whose nearest known songs (cosine) vote for the right first genre.
    NMI: what k-means clusters of all songs, as many as genres, tell about it, 0 to 1; chance: genres shuffled."""
    return section(
        "Songs and genres",
        figure(f"{label}. {how}", maps),
        table(caption, ["song vectors", "accuracy", "NMI", "chance NMI"], body) if genres else "",
    )
