"""The drawing of bars, histograms, ticks, and the kinds of points."""

from __future__ import annotations

import re

import pytest

from pipeline import charts


def test_ticks_are_round_and_inside() -> None:
    assert charts.ticks(0, 1) == [0, 0.2, 0.4, 0.6, 0.8, 1]
    assert charts.ticks(-3.1, 2.2) == [-2, 0, 2]
    assert charts.ticks(0.012, 0.031) == [0.015, 0.02, 0.025, 0.03]
    assert charts.ticks(2, 2) == [2]


def test_bar_lengths_are_proportional_and_whiskers_span_the_interval() -> None:
    drawn = charts.bars("l", [("a", [charts.Bar(1.0, "c")]), ("b", [charts.Bar(0.5, "c", "", [0.25, 2.0])])], str)
    widths = [float(w) for w in re.findall(r'<rect [^>]*width="([\d.]+)"', drawn)]
    assert widths[0] == 2 * widths[1] == pytest.approx((charts.WIDTH - charts.VALUE_ROOM) / 2)
    a, b = map(float, re.search(r'whisker" d="M([\d.]+) [\d.]+H([\d.]+)', drawn).groups())
    assert b == charts.WIDTH - charts.VALUE_ROOM and a == pytest.approx(b / 8)


def test_histogram_mark_stands_at_its_value_if_in_range() -> None:
    drawn = charts.histogram("l", [1, 3, 2], [-1.0, 0.0, 1.0, 3.0], str, 0)
    assert f'class="mark" d="M{charts.WIDTH / 4:.1f} ' in drawn and "6 in all" in drawn and "highest column: 3" in drawn
    assert 'class="mark"' not in charts.histogram("l", [1], [1.0, 2.0], str, 0)


def test_the_most_frequent_names_get_kinds_ties_by_name() -> None:
    names = [f"g{i:02d}" for i in range(charts.N_KINDS + 2) for _ in range(1 + (i == 5))] + [""]
    found, legend = charts.kinds(names, "other")
    kind = dict(zip(names, found, strict=True))
    assert (kind["g05"], kind["g00"], kind["g06"]) == (0, 1, 6) and kind[""] == -1
    assert [name for name in kind if kind[name] < 0] == ["g12", "g13", ""]
    assert [(name, at) for name, _, at in legend] == [
        *sorted(((name, at) for name, at in kind.items() if at >= 0), key=lambda item: item[1]), ("other", -1)
    ]  # fmt: skip
    assert charts.kinds(["b", "a", "b"], "other") == ([0, 1, 0], [("b", "known k0", 0), ("a", "known k1", 1)])
