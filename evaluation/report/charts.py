"""The look of the report: style sheet, tables and inline SVG (bars with whiskers, histograms, a map of points).

Every chart is drawn on a grid 400 units wide and stretched to its column, so that its text stays legible on a phone.
Colours are CSS classes, so that one chart serves the light and the dark page.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from html import escape
from pathlib import Path
from typing import NamedTuple

WIDTH = 400
VALUE_ROOM = 48  # right of the longest bar, for its figure

NO_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")  # what no XML file may hold
# Twelve kinds of points (.k0 to .k11) in four marker shapes in turn: colours that share a shape stay apart (CIE76
# difference above 20) in normal sight and in simulated protanopia, deuteranopia and tritanopia, on both pages.
N_KINDS = 12
STYLE = Path(__file__).with_name("report.css").read_text("utf-8")


class Bar(NamedTuple):
    """One bar: its value, CSS class, the name used in tooltips, and an interval drawn as a whisker."""

    value: float
    css: str
    name: str = ""
    interval: Sequence[float] | None = None


def number(value: float | None) -> str:
    """Three digits, or thousands with commas."""
    return "–" if value is None else f"{value:.3f}" if isinstance(value, float) else f"{value:,}"


def percent(value: float | None) -> str:
    """One digit after the point."""
    return "–" if value is None else f"{100 * value:.1f}\u202f%"


def section(title: str, *parts: str) -> str:
    """A titled section, or nothing if none of its parts is there."""
    return f"<section><h2>{title}</h2>\n{''.join(parts)}</section>" if any(parts) else ""


def note(content: str) -> str:
    """A paragraph that says how to read what stands beside it."""
    return f'<p class="note">{escape(content)}</p>'


def figure(caption: str, *parts: str) -> str:
    """A chart and its caption."""
    return f"<figure><figcaption>{escape(caption)}</figcaption>{''.join(parts)}</figure>"


def table(caption: str, head: list[str], rows: list[list[str]]) -> str:
    """A table that scrolls in its own container; the first column holds the row headings."""
    top = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in head)
    body = "".join(
        f'<tr><th scope="row">{escape(first)}</th>{"".join(f"<td>{escape(cell)}</td>" for cell in rest)}</tr>\n'
        for first, *rest in rows
    )
    content = f"<table><caption>{escape(caption)}</caption><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>"
    return f'<div class="scroll" role="region" tabindex="0" aria-label="{escape(caption)}">{content}</div>'


def svg(label: str, height: float, body: str) -> str:
    """Wrap `body` as an image that a screen reader announces as `label`."""
    return f'<svg role="img" aria-label="{escape(label)}" viewBox="0 0 {WIDTH} {height:g}">{body}</svg>'


def text(x: float, y: float, content: str, css: str = "", anchor: str = "start") -> str:
    """A line of text whose baseline is at (x, y)."""
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{css}" text-anchor="{anchor}">{escape(content)}</text>'


def bars(label: str, groups: list[tuple[str, list[Bar]]], show: Callable[[float], str]) -> str:
    """Horizontal bars from zero in named groups, each with its figure (formatted by `show`) and any interval."""
    ends = [max([bar.value, *(bar.interval or [])]) for _, group in groups for bar in group]
    scale = (WIDTH - VALUE_ROOM) / (max(ends, default=0) or 1)
    y, parts, told = 0.0, [], []
    for name, group in groups:
        parts.append(text(0, y + 12, name))
        y += 17
        for bar in group:
            height = 14 if len(group) == 1 else 11
            parts.append(_bar(bar, y, height, scale, show))
            told.append(" ".join(filter(None, (name, bar.name, show(bar.value)))))
            y += height + 2
        y += 8
    return svg(f"{label}: {'; '.join(told)}", y, "".join(parts))


def _bar(bar: Bar, y: float, height: float, scale: float, show: Callable[[float], str]) -> str:
    tip, end = f"{bar.name} {show(bar.value)}".strip(), bar.value
    drawn = f'<rect class="{bar.css}" y="{y:g}" width="{bar.value * scale:.1f}" height="{height}"></rect>'
    if bar.interval:
        low, high = bar.interval
        end, tip = max(end, high), f"{tip} ({show(low)} to {show(high)})"
        a, b, caps, middle = low * scale, high * scale, f"{y + 3:g}v{height - 6}", y + height / 2
        drawn += f'<path class="whisker" d="M{a:.1f} {middle:g}H{b:.1f}M{a:.1f} {caps}M{b:.1f} {caps}"></path>'
    drawn += text(end * scale + 5, y + height / 2 + 4, show(bar.value), "faint")
    return f"<g><title>{escape(tip)}</title>{drawn}</g>"


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers (1, 2 or 5 times a power of ten apart) within [low, high]."""
    if not high > low:
        return [low]
    rough = (high - low) / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * m for m in (1, 2, 5, 10) if power * m >= rough * 0.999)
    return [round(i * step, 12) for i in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def histogram(
    label: str, counts: Sequence[int], edges: Sequence[float], show: Callable[[float], str], mark: float | None = None
) -> str:
    """Columns of `counts` between consecutive `edges`; ticks below; a dashed line at `mark` if it is in range."""
    height, floor = 185, 165
    low, high, most = edges[0], edges[-1], max(counts) or 1
    scale = WIDTH / ((high - low) or 1)
    drawn = [text(0, 11, f"highest column: {most:,}", "faint")]
    for count, left, right in zip(counts, edges, edges[1:], strict=False):
        tall, width = (floor - 20) * count / most, max((right - left) * scale - 0.6, 0.4)
        shape = f'x="{(left - low) * scale:.1f}" y="{floor - tall:.1f}" width="{width:.1f}" height="{tall:.1f}"'
        tip = escape(f"{show(left)} to {show(right)}: {count:,}")
        drawn.append(f'<rect class="ours" {shape}><title>{tip}</title></rect>')
    drawn.append(f'<path class="axis" d="M0 {floor}H{WIDTH}"></path>')
    for value in ticks(low, high):
        x = (value - low) * scale
        drawn.append(text(x, height - 5, show(value), "faint", "start" if x < 12 else "end" if x > 388 else "middle"))
    if mark is not None and low <= mark <= high:
        drawn.append(f'<path class="mark" d="M{(mark - low) * scale:.1f} 0V{floor}"></path>')
    return svg(f"{label}: from {show(low)} to {show(high)}, {sum(counts):,} in all", height, "".join(drawn))


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
    """A map of points: colour and shape by kind (−1: grey), `tips` as tooltips, drawn in `drawing_order`."""
    edge, left, low = 6, min(x), min(y)
    scale = (WIDTH - 2 * edge) / (max(max(x) - left, max(y) - low) or 1.0)
    height = (max(y) - low) * scale + 2 * edge
    drawn = []
    for i in drawing_order(new):
        shape = marker(kind[i], edge + (x[i] - left) * scale, height - edge - (y[i] - low) * scale, 3 if new[i] else 2)
        css = f"{'new' if new[i] else 'known'} k{kind[i]}"
        drawn.append(f'<path class="{css}" d="{shape}"><title>{escape(tips[i])}</title></path>')
    return svg(label, height, "".join(drawn))


def drawing_order(new: Sequence[bool]) -> list[int]:
    """Numbers of the points of a map as they are drawn: new ones, which are outlines, above known ones."""
    return sorted(range(len(new)), key=lambda i: new[i])


def maps_in_a_row(pictures: Iterable[tuple[str, str]], near: Iterable[str]) -> str:
    """Titled maps in a row, below each other on a narrow page; `near` is what evaluation/report/report.js reads."""
    shown = "".join(
        f'<div data-near="{escape(numbers)}"><h3>{escape(name)}</h3>{picture}</div>'
        for (name, picture), numbers in zip(pictures, near, strict=True)
    )
    return f'<div class="maps">{shown}</div>'


def kinds(names: Sequence[str], other: str) -> tuple[list[int], list[tuple[str, str, int | None]]]:
    """The kind of point of each name (−1: no name, or not among the most frequent), and the legend's entries."""
    often = sorted(Counter(filter(None, names)).items(), key=lambda item: (-item[1], item[0]))
    kind = {name: i for i, (name, _) in enumerate(often[:N_KINDS])}
    entries: list[tuple[str, str, int | None]] = [(name, f"known k{i}", i) for name, i in kind.items()]
    found = [kind.get(name, -1) for name in names]
    return found, entries + ([(other, "known", -1)] if -1 in found else [])


def key(entries: Iterable[tuple[str, str, int | None]]) -> str:
    """A legend: (text, CSS class, point kind), with a square patch where the kind is None."""
    items = ""
    for name, css, kind in entries:
        shape = "M1 1h10v10h-10z" if kind is None else marker(kind, 6, 6, 4)
        icon = f'<svg viewBox="0 0 12 12" aria-hidden="true"><path class="{css}" d="{shape}"></path></svg>'
        items += f"<li>{icon}{escape(name)}</li>"
    return f'<ul class="key">{items}</ul>'


def poster(label: str, pictures: Sequence[tuple[str, str]], entries: Sequence[tuple[str, str, int | None]]) -> str:
    """Square pictures in a row, each under its name, above their legend: one SVG file that needs no page around it."""
    side, head, gap = WIDTH, 28, 24
    width = len(pictures) * (side + gap) - gap
    columns = max(1, width // 200)
    drawn = []
    for i, (name, picture) in enumerate(pictures):
        x = i * (side + gap)
        drawn.append(text(x, 18, name))
        drawn.append(f'<svg x="{x}" y="{head}" {picture.removeprefix("<svg ")}')
    for i, (name, css, kind) in enumerate(entries):
        left, y = (i % columns) * width / columns, head + side + gap + (i // columns) * 20
        drawn.append(f'<path class="{css}" d="{marker(-1 if kind is None else kind, left + 6, y, 5)}"></path>')
        drawn.append(text(left + 18, y + 5, name))
    height = head + side + gap + math.ceil(len(entries) / columns) * 20
    style = f"{STYLE}svg{{font:15px system-ui,sans-serif}}svg svg{{width:{side}px;height:{side}px}}"
    image = (
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" aria-label="{escape(label)}" width="{width}" '
        f'height="{height}" viewBox="0 -4 {width} {height + 4}"><style>{style}</style>'
        f'<rect y="-4" width="{width}" height="{height + 4}" style="fill:var(--page)"></rect>{"".join(drawn)}</svg>\n'
    )
    return NO_XML.sub("", image)
