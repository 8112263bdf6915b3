"""Line charts for the report, in the look of evaluation/report/charts.py."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape
from typing import NamedTuple

from evaluation.report.charts import WIDTH, svg, text, ticks

HEIGHT, FLOOR, LEFT = 220, 195, 44


class Line(NamedTuple):
    """One line: its name and where it goes; points with their values appear as tooltips."""

    name: str
    css: str
    x: Sequence[float]
    y: Sequence[float]


def curves(label: str, lines: Sequence[Line], show: Callable[[float], str], mark: float | None = None) -> str:
    """Lines from zero up over a common x axis, figures formatted by `show`; a dashed line at x = `mark`."""
    low, high = min(min(line.x) for line in lines), max(max(line.x) for line in lines)
    most = max(max(line.y) for line in lines) or 1.0
    right = WIDTH - 8

    def at(x: float, y: float) -> tuple[float, float]:
        return LEFT + (x - low) / ((high - low) or 1) * (right - LEFT), FLOOR - (FLOOR - 20) * y / most

    drawn = [f'<path class="axis" d="M{LEFT} {FLOOR}H{right}"></path>']
    for value in ticks(low, high):
        x = at(value, 0)[0]
        drawn.append(text(x, HEIGHT - 8, show(value), "faint", "end" if x > WIDTH - 20 else "middle"))
    for value in ticks(0, most, 4):
        drawn.append(text(LEFT - 5, at(low, value)[1] + 4, show(value), "faint", "end"))
    if mark is not None and low <= mark <= high:
        drawn.append(f'<path class="mark" d="M{at(mark, 0)[0]:.1f} 8V{FLOOR}"></path>')
    for line in lines:
        places = [at(x, y) for x, y in zip(line.x, line.y, strict=True)]
        way = "L".join(f"{x:.1f} {y:.1f}" for x, y in places)
        drawn.append(f'<path class="line {line.css}" d="M{way}"></path>')
        for (x, y), value, share in zip(places, line.y, line.x, strict=True):
            tip = escape(f"{line.name}: {show(value)} at {show(share)}")
            dot = f'<circle class="{line.css}" cx="{x:.1f}" cy="{y:.1f}" r="3">'
            drawn.append(f"{dot}<title>{tip}</title></circle>")
    told = "; ".join(f"{line.name} from {show(line.y[0])} to {show(line.y[-1])}" for line in lines)
    return svg(f"{label}: {told}", HEIGHT, "".join(drawn))
