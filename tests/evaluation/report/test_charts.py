"""The drawing of bars, differences, histograms, ticks, and the kinds of points."""

from __future__ import annotations

import re

import pytest

from evaluation.report import charts
from evaluation.report.charts import between, differences, points, side, signed
from evaluation.report.genre_maps import N_KINDS, kinds


def test_ticks_are_round_and_inside() -> None:
    assert charts.ticks(0, 1) == [0, 0.2, 0.4, 0.6, 0.8, 1]
    assert charts.ticks(-3.1, 2.2) == [-2, 0, 2]
    assert charts.ticks(0.012, 0.031) == [0.015, 0.02, 0.025, 0.03]
    assert charts.ticks(2, 2) == [2]


def test_bar_lengths_are_proportional_and_whiskers_span_the_interval() -> None:
    drawn = charts.bars("l", [charts.Bar("a", 1.0, "c"), charts.Bar("b", 0.5, "c", [0.25, 2.0])], str)
    widths = [float(w) for w in re.findall(r'<rect [^>]*width="([\d.]+)"', drawn)]
    assert widths[0] == 2 * widths[1] == pytest.approx((charts.WIDTH - charts.VALUE_ROOM) / 2)
    a, b = map(float, re.search(r'whisker" d="M([\d.]+) [\d.]+H([\d.]+)', drawn).groups())
    assert b == charts.WIDTH - charts.VALUE_ROOM and a == pytest.approx(b / 8)


def test_histogram_mark_stands_at_its_value_if_in_range() -> None:
    drawn = charts.histogram("l", [1, 3, 2], [-1.0, 0.0, 1.0, 3.0], str, 0)
    assert f'class="mark" d="M{charts.WIDTH / 4:.1f} ' in drawn and "6 in all" in drawn and "highest column: 3" in drawn
    assert 'class="mark"' not in charts.histogram("l", [1], [1.0, 2.0], str, 0)


def test_the_most_frequent_names_get_kinds_ties_by_name() -> None:
    names = [f"g{i:02d}" for i in range(N_KINDS + 2) for _ in range(1 + (i == 5))] + [""]
    found, legend = kinds(names, "other")
    kind = dict(zip(names, found, strict=True))
    assert (kind["g05"], kind["g00"], kind["g06"]) == (0, 1, 6) and kind[""] == -1
    assert [name for name in kind if kind[name] < 0] == ["g12", "g13", ""]
    assert [(name, at) for name, _, at in legend] == [
        *sorted(((name, at) for name, at in kind.items() if at >= 0), key=lambda item: item[1]), ("other", -1)
    ]  # fmt: skip
    assert kinds(["b", "a", "b"], "other") == ([0, 1, 0], [("b", "known k0", 0), ("a", "known k1", 1)])


def test_differences_stand_on_one_scale_and_are_coloured_by_their_interval() -> None:
    rows = [("more", 0.02, [0.01, 0.03]), ("less", -0.01, [-0.02, -0.005]), ("open", 0.0, [-0.01, 0.01])]
    drawn = differences("l", rows, signed)
    zeros = {float(x) for x in re.findall(r'class="zero" d="M([\d.]+) ', drawn)}
    spans = re.findall(r'class="span (\w+)" d="M([\d.]+) [\d.]+H([\d.]+)"', drawn)
    dots = [float(x) for x in re.findall(r'<circle class="\w+" cx="([\d.]+)"', drawn)]
    assert [css for css, *_ in spans] == ["ours", "loss", "plain"] and len(zeros) == 1
    (zero,) = zeros
    unit = (charts.WIDTH - 12) / 0.05
    for (_, value, (low, high)), (_, a, b), dot in zip(rows, spans, dots, strict=True):
        assert [float(a), float(b), dot] == pytest.approx([zero + unit * x for x in (low, high, value)], abs=0.11)
    assert "more +0.020 (+0.010 to +0.030); less -0.010 (-0.020 to -0.005); open 0.000" in drawn
    assert "…" in differences("l", [("x" * 40, 0.0, [0.0, 0.0])], signed), "a long name does not run into the figure"


def test_differences_show_their_sign_and_nothing_has_none() -> None:
    assert [signed(x) for x in (3, -4, 0, 1234, 0.25, -0.0004, 0.0)] == [
        "+3", "-4", "0", "+1,234", "+0.250", "0.000", "0.000"
    ]  # fmt: skip
    assert [points(x) for x in (0.0123, -0.5, 0.0001)] == ["+1.2", "-50.0", "0.0"]
    assert between(2, [-1, 5], signed) == "+2 (-1 to +5)"
    assert [side(x) for x in ([0.1, 2], [-2, -0.1], [0, 1], [-1, 0], [0, 0])] == ["ours", "loss", *["plain"] * 3]
