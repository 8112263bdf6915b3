"""Maps of the songs coloured by genre, one for each kind of song vectors: in the report, and as a file of their own."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from html import escape
from typing import Any

from evaluation.report.charts import STYLE, WIDTH, svg, text

Entry = tuple[str, str, int]  # of a legend: text, CSS class, kind of point
NO_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")  # what no XML file may hold
# Twelve kinds of points (.k0 to .k11) in four marker shapes in turn: colours that share a shape stay apart (CIE76
# difference above 20) in normal sight and in simulated protanopia, deuteranopia and tritanopia, on both pages.
N_KINDS = 12


def genre_maps(drawn: dict[str, Any]) -> tuple[str, dict[str, str], list[Entry]]:
    """What is to be seen, the picture of each kind of vectors by its name, and the legend, of a `figures.song_map`."""
    kind_N, entries = kinds(drawn["genre"], "other or no genre")
    tips = [
        f"{title or 'untitled'} · {genre or 'no genre'}{' · new' if new else ''}"
        for title, genre, new in zip(drawn["title"], drawn["genre"], drawn["new"], strict=True)
    ]
    label = f"{len(tips):,} songs, {sum(drawn['new']):,} of them new, coloured by first genre"
    maps = {
        name: point_map(f"{name}: {label}", xy["x"], xy["y"], kind_N, drawn["new"], tips)
        for name, xy in drawn["maps"].items()
    }
    return label, maps, [*entries, ("filled: known song", "plain", -1), ("outline: new song", "new", -1)]


def kinds(names: Sequence[str], other: str) -> tuple[list[int], list[Entry]]:
    """The kind of point of each name (−1: no name, or not among the most frequent), and the legend's entries."""
    often = sorted(Counter(filter(None, names)).items(), key=lambda item: (-item[1], item[0]))
    kind = {name: i for i, (name, _) in enumerate(often[:N_KINDS])}
    found = [kind.get(name, -1) for name in names]
    entries = [(name, f"known k{i}", i) for name, i in kind.items()]
    return found, entries + ([(other, "known", -1)] if -1 in found else [])


def marker(kind: int, x: float, y: float, r: float) -> str:
    """Path of a point: circle, square, triangle, diamond in turn by kind; a circle for kind −1."""
    shapes = (
        f"M{x - r:.1f} {y:.1f}a{r} {r} 0 1 0 {2 * r} 0a{r} {r} 0 1 0 {-2 * r} 0",
        f"M{x - r:.1f} {y - r:.1f}h{2 * r}v{2 * r}h{-2 * r}z",
        f"M{x:.1f} {y - 1.2 * r:.1f}l{1.2 * r:g} {2.2 * r:g}h{-2.4 * r:g}z",
        f"M{x:.1f} {y - 1.3 * r:.1f}l{1.3 * r:g} {1.3 * r:g} {-1.3 * r:g} {1.3 * r:g} {-1.3 * r:g} {-1.3 * r:g}z",
    )
    return shapes[max(kind, 0) % 4]


def point_map(
    label: str, x: Sequence[float], y: Sequence[float], kind: Sequence[int], new: Sequence[bool], tips: Sequence[str]
) -> str:
    """A map of points: colour and shape by kind (−1: grey), `tips` as tooltips, later points above earlier ones."""
    edge, left, low = 6, min(x), min(y)
    scale = (WIDTH - 2 * edge) / (max(max(x) - left, max(y) - low) or 1.0)
    height = (max(y) - low) * scale + 2 * edge
    drawn = []
    for i, tip in enumerate(tips):
        shape = marker(kind[i], edge + (x[i] - left) * scale, height - edge - (y[i] - low) * scale, 3 if new[i] else 2)
        css = f"{'new' if new[i] else 'known'} k{kind[i]}"
        drawn.append(f'<path class="{css}" d="{shape}"><title>{escape(tip)}</title></path>')
    return svg(label, height, "".join(drawn))


def maps_and_legend(drawn: dict[str, Any]) -> tuple[str, str]:
    """What is to be seen, and the legend above titled maps in a row (on a narrow page, below each other).

    `data-near` is what evaluation/report/report.js reads: of each song the places of those nearest to it, as
    "3 5;0;1 4" of three songs.
    """
    label, maps, entries = genre_maps(drawn)
    key = "".join(
        f'<li><svg viewBox="0 0 12 12" aria-hidden="true"><path class="{css}" d="{marker(kind, 6, 6, 4)}"></path></svg>'
        f"{escape(name)}</li>"
        for name, css, kind in entries
    )
    near = {name: ";".join(" ".join(map(str, row)) for row in xy["near"]) for name, xy in drawn["maps"].items()}
    shown = "".join(
        f'<div data-near="{near[name]}"><h3>{escape(name)}</h3>{picture}</div>' for name, picture in maps.items()
    )
    return label, f'<ul class="key">{key}</ul><div class="maps">{shown}</div>'


def genre_maps_svg(drawn: dict[str, Any], genres: list[dict[str, Any]]) -> str:
    """The maps in a row above their legend, as one SVG file that needs no page around it.

    The name of each says how well k-means clusters tell the genre (NMI), where that was measured.
    """
    label, maps, entries = genre_maps(drawn)
    agreement = {row["space"]: f", genre NMI {row['genre_nmi']:.3f}" for row in genres if "genre_nmi" in row}
    head, gap = 28, 24
    width = len(maps) * (WIDTH + gap) - gap
    columns = max(1, width // 200)
    parts = []
    for i, (name, picture) in enumerate(maps.items()):
        x = i * (WIDTH + gap)
        parts.append(text(x, 18, name + agreement.get(name, "")))
        parts.append(f'<svg x="{x}" y="{head}" {picture.removeprefix("<svg ")}')
    for i, (name, css, kind) in enumerate(entries):
        left, y = (i % columns) * width / columns, head + WIDTH + gap + (i // columns) * 20
        parts.append(f'<path class="{css}" d="{marker(kind, left + 6, y, 5)}"></path>')
        parts.append(text(left + 18, y + 5, name))
    height = head + WIDTH + gap + math.ceil(len(entries) / columns) * 20
    style = f"{STYLE}svg{{font:15px system-ui,sans-serif}}svg svg{{width:{WIDTH}px;height:{WIDTH}px}}"
    image = (
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" aria-label="{escape(label)}" width="{width}" '
        f'height="{height}" viewBox="0 -4 {width} {height + 4}"><style>{style}</style>'
        f'<rect y="-4" width="{width}" height="{height + 4}" style="fill:var(--page)"></rect>{"".join(parts)}</svg>\n'
    )
    return NO_XML.sub("", image)
