"""The look of the report: style sheet, tables and inline SVG (bars, differences, histograms and lines).

Every chart is drawn on a grid 400 units wide and stretched to its column, so that its text stays legible on a phone.
Colours are CSS classes, so that one chart serves the light and the dark page.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path
from typing import NamedTuple

WIDTH = 400
VALUE_ROOM = 48  # right of the longest bar, for its figure
NAME_ROOM = 30  # letters of a name beside a difference with its interval
STYLE = Path(__file__).with_name("report.css").read_text("utf-8")


class Bar(NamedTuple):
    """One bar, with an interval drawn as a whisker."""

    name: str
    value: float
    css: str
    interval: Sequence[float] | None = None


class Line(NamedTuple):
    """One line: its name and where it goes; points with their values appear as tooltips."""

    name: str
    css: str
    x: Sequence[float]
    y: Sequence[float]


def number(value: float | None) -> str:
    """Three digits, or thousands with commas."""
    return "–" if value is None else f"{value:.3f}" if isinstance(value, float) else f"{value:,}"


def percent(value: float | None) -> str:
    """One digit after the point."""
    return "–" if value is None else f"{100 * value:.1f}\u202f%"


def signed(value: float) -> str:
    """A difference, as `number` but with its sign; without one where it is rounded to nothing."""
    shown = f"{value:+.3f}" if isinstance(value, float) else f"{value:+,}"
    return shown if shown.strip("+-0.") else shown[1:]


def points(value: float) -> str:
    """A difference of two shares in percentage points, likewise."""
    shown = f"{100 * value:+.1f}"
    return shown if shown.strip("+-0.") else shown[1:]


def between(value: float, interval: Sequence[float], show: Callable[[float], str]) -> str:
    """A figure and its 95 % interval."""
    low, high = interval
    return f"{show(value)} ({show(low)} to {show(high)})"


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


def bars(label: str, rows: Sequence[Bar], show: Callable[[float], str]) -> str:
    """Horizontal bars from zero, each below its name, with its figure (formatted by `show`) and any interval."""
    height, row = 14, 41
    scale = (WIDTH - VALUE_ROOM) / (max(end for bar in rows for end in (bar.value, *(bar.interval or ()))) or 1)
    drawn = []
    for i, bar in enumerate(rows):
        y, tip, end, whisker = row * i + 17, show(bar.value), bar.value, ""
        if bar.interval:
            low, high = bar.interval
            end, tip = max(end, high), f"{tip} ({show(low)} to {show(high)})"
            a, b, caps = low * scale, high * scale, f"{y + 3}v{height - 6}"
            whisker = f'<path class="whisker" d="M{a:.1f} {y + 7}H{b:.1f}M{a:.1f} {caps}M{b:.1f} {caps}"></path>'
        drawn.append(
            f"{text(0, y - 5, bar.name)}<g><title>{escape(tip)}</title>"
            f'<rect class="{bar.css}" y="{y}" width="{bar.value * scale:.1f}" height="{height}"></rect>'
            f"{whisker}{text(end * scale + 5, y + 11, show(bar.value), 'faint')}</g>"
        )
    summary = "; ".join(f"{bar.name} {show(bar.value)}" for bar in rows)
    return svg(f"{label}: {summary}", row * len(rows), "".join(drawn))


def side(interval: Sequence[float]) -> str:
    """CSS class of a difference: `ours` above zero, `loss` below, `plain` where the interval does not tell."""
    return "ours" if interval[0] > 0 else "loss" if interval[1] < 0 else "plain"


def differences(label: str, rows: Sequence[tuple[str, float, Sequence[float]]], show: Callable[[float], str]) -> str:
    """Named differences, each a dot on its interval above a common zero; coloured where that leaves zero out."""
    row_height = 38
    low, high = (end(0.0, *(edge for _, _, interval in rows for edge in interval)) for end in (min, max))
    scale = (WIDTH - 12) / ((high - low) or 1)

    def at(value: float) -> str:
        return f"{6 + (value - low) * scale:.1f}"

    drawn = []
    for i, (name, value, interval) in enumerate(rows):
        y, short = row_height * i, name if len(name) <= NAME_ROOM else f"{name[: NAME_ROOM - 1]}…"
        value_shown, css = between(value, interval, show), side(interval)
        drawn.append(
            f"<g><title>{escape(f'{name}: {value_shown}')}</title>{text(0, y + 12, short)}"
            f"{text(WIDTH, y + 12, value_shown, 'faint', 'end')}"
            f'<path class="zero" d="M{at(0)} {y + 16}v16"></path>'
            f'<path class="span {css}" d="M{at(interval[0])} {y + 24}H{at(interval[1])}"></path>'
            f'<circle class="{css}" cx="{at(value)}" cy="{y + 24}" r="5"></circle></g>'
        )
    summary = "; ".join(f"{name} {between(value, interval, show)}" for name, value, interval in rows)
    return svg(f"{label}: {summary}", row_height * len(rows), "".join(drawn))


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


def curves(label: str, lines: Sequence[Line], show: Callable[[float], str], mark: float | None = None) -> str:
    """Lines from zero up over a common x axis, figures formatted by `show`; a dashed line at x = `mark`."""
    height, floor, first, last = 220, 195, 44, WIDTH - 8
    low, high = min(min(line.x) for line in lines), max(max(line.x) for line in lines)
    most = max(max(line.y) for line in lines) or 1.0

    def at(x: float, y: float) -> tuple[float, float]:
        return first + (x - low) / ((high - low) or 1) * (last - first), floor - (floor - 20) * y / most

    drawn = [f'<path class="axis" d="M{first} {floor}H{last}"></path>']
    for value in ticks(low, high):
        x = at(value, 0)[0]
        drawn.append(text(x, height - 8, show(value), "faint", "end" if x > WIDTH - 20 else "middle"))
    for value in ticks(0, most, 4):
        drawn.append(text(first - 5, at(low, value)[1] + 4, show(value), "faint", "end"))
    if mark is not None and low <= mark <= high:
        drawn.append(f'<path class="mark" d="M{at(mark, 0)[0]:.1f} 8V{floor}"></path>')
    for line in lines:
        places = [at(x, y) for x, y in zip(line.x, line.y, strict=True)]
        way = "L".join(f"{x:.1f} {y:.1f}" for x, y in places)
        drawn.append(f'<path class="line {line.css}" d="M{way}"></path>')
        for (x, y), value, share in zip(places, line.y, line.x, strict=True):
            tip = escape(f"{line.name}: {show(value)} at {show(share)}")
            dot = f'<circle class="{line.css}" cx="{x:.1f}" cy="{y:.1f}" r="3">'
            drawn.append(f"{dot}<title>{tip}</title></circle>")
    summary = "; ".join(f"{line.name} from {show(line.y[0])} to {show(line.y[-1])}" for line in lines)
    return svg(f"{label}: {summary}", height, "".join(drawn))
