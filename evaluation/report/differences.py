"""Differences and their intervals, for the report: as text, and as a chart in the look of charts.py."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape

from evaluation.report.charts import WIDTH, svg, text

NAME_ROOM = 30  # letters of a name beside a difference with its interval
ROW = 38


def signed(value: float) -> str:
    """A difference, as `charts.number` but with its sign; without one where it is rounded to nothing."""
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


def side(interval: Sequence[float]) -> str:
    """CSS class of a difference: `ours` above zero, `loss` below, `plain` where the interval does not tell."""
    return "ours" if interval[0] > 0 else "loss" if interval[1] < 0 else "plain"


def differences(label: str, rows: Sequence[tuple[str, float, Sequence[float]]], show: Callable[[float], str]) -> str:
    """Named differences, each a dot on its interval above a common zero; coloured where that leaves zero out."""
    low, high = (end(0.0, *(edge for _, _, interval in rows for edge in interval)) for end in (min, max))
    scale = (WIDTH - 12) / ((high - low) or 1)

    def at(value: float) -> str:
        return f"{6 + (value - low) * scale:.1f}"

    drawn = []
    for i, (name, value, interval) in enumerate(rows):
        y, short = ROW * i, name if len(name) <= NAME_ROOM else f"{name[: NAME_ROOM - 1]}…"
        told, css = between(value, interval, show), side(interval)
        drawn.append(
            f"<g><title>{escape(f'{name}: {told}')}</title>{text(0, y + 12, short)}"
            f"{text(WIDTH, y + 12, told, 'faint', 'end')}"
            f'<path class="zero" d="M{at(0)} {y + 16}v16"></path>'
            f'<path class="span {css}" d="M{at(interval[0])} {y + 24}H{at(interval[1])}"></path>'
            f'<circle class="{css}" cx="{at(value)}" cy="{y + 24}" r="5"></circle></g>'
        )
    told = "; ".join(f"{name} {between(value, interval, show)}" for name, value, interval in rows)
    return svg(f"{label}: {told}", ROW * len(rows), "".join(drawn))
