"""The report: figures of metrics.json appear, data is escaped, nothing is loaded, missing parts are left out."""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from evaluation.report import charts
from evaluation.report.genre_maps import N_KINDS
from tests.evaluation.report import report_data as data
from tests.evaluation.report.report_tables import assert_tables_are, body_of, read_tables, text_of


@pytest.fixture
def metrics() -> dict[str, Any]:
    return data.metrics()


@pytest.fixture
def pictures() -> dict[str, Any]:
    return data.pictures()


@pytest.fixture
def page(tmp_path: Path, metrics: dict[str, Any], pictures: dict[str, Any]) -> Callable[[], str]:
    """`page()`: the HTML of the metrics and pictures as the test has changed them."""
    return lambda: data.written(tmp_path, metrics, pictures)


def text_shown(source: str) -> str:
    """All text that a reader sees."""
    return text_of(body_of(source))


def count(source: str, tag: str, css: str = "") -> int:
    return sum(not css or css in one.get("class", "").split() for one in body_of(source).iter(tag))


def verdict(source: str) -> tuple[str, str, str]:
    """CSS class, claim and reasons."""
    shown = re.search(r'<div class="verdict (\w+)"><p class="claim">(.*?)</p><p>(.*?)</p></div>', source, re.DOTALL)
    assert shown is not None
    return shown[1], shown[2], re.sub(r"\s+", " ", shown[3])


def test_the_verdict_is_that_of_the_paired_interval(page, metrics) -> None:
    css, claim, reasons = verdict(page())
    assert (css, claim) == ("ours", "FirstPlay finds 50% more listeners of new songs than the best baseline.")
    for words in (
        "120 new songs have 2,311 known listeners",
        "Asked for 50 users a song, FirstPlay I2I2U names 603 of them",
        "best of 4 baselines, CB2CF (λ=0), 402",
        "+201 (+141 to +261), with its 95 % interval",
        "leaves zero out",
    ):
        assert words in reasons
    metrics["differences"][3] = data.less(data.FIRST, data.BEST, spread=202)
    css, claim, reasons = verdict(page())
    assert (
        css == "plain" and "cannot be told from" in claim and "holds zero" in reasons and "+201 (-1 to +403)" in reasons
    )
    metrics["differences"][3]["found@50_ci95"] = [0.3, 400.0]
    assert verdict(page())[0] == "plain", "what is shown as 0 is not more than 0"


def test_the_verdict_admits_a_loss_and_nothing_found(page, metrics) -> None:
    better = {"target_users_found@50": 700}
    metrics["audience"][3] |= better
    metrics["differences"][3] |= {"found@50": -97, "found@50_ci95": [-150.0, -41.0]}
    css, claim, reasons = verdict(page())
    assert (css, claim) == ("loss", "FirstPlay finds 14% fewer listeners of new songs than the best baseline.")
    assert "-97 (-150 to -41)" in reasons and "700" in reasons
    metrics["audience"][3]["target_users_found@50"] = 0
    metrics["differences"][3] |= {"found@50": 603, "found@50_ci95": [500.0, 700.0]}
    assert verdict(page())[1].startswith("FirstPlay finds more listeners")


def test_tiles_say_ours_beside_what_it_is_measured_against(page) -> None:
    head = dict(re.findall(r"<div><dt>(.*?)</dt>(.*?)</div>", page()))
    assert "120" in head["New songs"] and "117 of them" in head["New songs"]
    recall = head["Recall, 50 users a song: every song counts alike"]
    assert "0.301" in recall and "CB2CF (λ=0): 0.201" in recall and "+0.101 (+0.070 to +0.131)" in recall
    gate = head["Favourite rate of reached users, FirstPlay I2I2U, gated"]
    assert "11.8" in gate and "no gate: 12.0" in gate and "2,345 and 2,345 outcomes" in gate
    assert "difference -0.3 (-1.4 to +0.6) percentage points" in gate, "a loss is shown as it is"
    text = head["Text→audio recall@10, cold_test"]
    assert text.index("cold_test, 120 songs") < text.index("all new songs, 240 songs") and "3.45×" in text


def test_tables_hold_the_metrics(page, metrics) -> None:
    """Every cell of the tables of differences, parts, buckets and outcomes is read back and compared."""
    assert_tables_are(read_tables(page()), metrics)


def test_every_section_shows_its_figures(page) -> None:
    text = text_shown(source := page())
    for words in (
        "demo world's truth", "0.287", "0.042", "31.5", "0.183", "23.4", "6.8", "31.1", "22.2", "17.8", "81,234",
        "raw content 65.8 % 0.319 0.051", "FirstPlay 72.5 % 0.547 0.061", "14.2 % – –", "one seed", "over songs",
    ):  # fmt: skip
        assert words in text
    assert count(source, "path", "whisker") == 2 * len(data.METHODS) + 1 and count(source, "path", "mark") == 2
    assert count(source, "path", "span") == len(data.METHODS) - 1 + 2 * len(data.PARTS) + len(data.BUCKETS)


def test_page_opens_offline_and_is_readable_by_a_screen_reader(page) -> None:
    source = page()
    elements = list(body_of(source).iter())
    assert not re.search(r"https?:|//[a-z]|@import|url\(", source)
    assert not {"link", "img", "iframe"} & {one.tag for one in elements}
    assert not [one for one in elements if {"src", "href", "onload", "onclick"} & set(one.attrib)]
    (script,) = re.findall(r"<script>(.*?)</script>", source, re.DOTALL)
    digest = b64encode(sha256(script.encode()).digest()).decode()
    assert f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'" in source
    images = [one for one in elements if one.tag == "svg" and "aria-hidden" not in one.attrib]
    assert len(images) == 16 and all(
        one.get("role") == "img" and one.get("aria-label") and one.get("viewBox") for one in images
    )
    assert count(source, "caption") == count(source, "table") == count(source, "div", "scroll") == 12
    assert count(source, "h1") == 1 and count(source, "h2") == 9 and "prefers-color-scheme:dark" in source


def test_data_is_escaped_wherever_it_appears(page, metrics, pictures) -> None:
    songs = pictures["song_map"]
    songs["genre"] = [data.HOSTILE if genre == "genre 1" else genre for genre in songs["genre"]]
    songs["title"][3] = metrics["buckets"]["rows"][2]["bucket"] = data.HOSTILE
    metrics["split"] = metrics["retrieval"][0]["pool"] = metrics["genres"][1]["space"] = data.HOSTILE
    metrics["audience"][2]["method"] = metrics["outcomes"]["rows"][1]["method"] = data.HOSTILE
    metrics["buckets"]["rows"][0]["by"] = metrics["parts"][0]["part"] = data.HOSTILE
    metrics["best_baseline"]["method"] = metrics["audience"][2]["method"]
    metrics["buckets"]["baseline"] = metrics["differences"][0]["less"] = data.HOSTILE
    metrics["catalogue"][data.HOSTILE] = 1
    songs["maps"][data.HOSTILE] = songs["maps"].pop("FirstPlay")
    metrics["boundary"]["share_of_new_songs_by_taste"][data.HOSTILE] = 0.5
    source = page()
    assert source.count("<script") == 1 and text_shown(source).count("<script>alert(1)</script>") >= 10
    assert any(data.HOSTILE in one.get("aria-label", "") for one in body_of(source).iter()), (
        "unescaped again by the parser"
    )
    assert data.HOSTILE not in charts.table("caption", ["a", "b"], [["row", data.HOSTILE]])


def test_every_map_shows_each_song_once_new_ones_as_outlines(page, pictures) -> None:
    source, songs = page(), pictures["song_map"]
    maps = re.findall(r"<div data-near=[^>]*><h3>([^<]*)</h3><svg(.*?)</svg></div>", source, re.DOTALL)
    assert [name for name, _ in maps] == list(data.SPACES)
    looks = set()
    for _, picture in maps:
        drawn = re.findall(r'<path class="(known|new) k(-?\d+)" d="[^"]+"><title>([^<]*)</title>', picture)
        assert len(drawn) == len(songs["genre"]) and sum(css == "new" for css, _, _ in drawn) == sum(songs["new"])
        assert [css for css, _, _ in drawn] == sorted(css for css, _, _ in drawn), "new ones are drawn above known ones"
        names: dict[str, set[str]] = {}
        for _, kind, tip in drawn:
            names.setdefault(kind, set()).add(tip.split(" · ")[1])
        assert len(names.pop("-1")) == 1 + 14 + 1 - N_KINDS, "no genre and the rarest ones are grey"
        assert len(names) == N_KINDS and all(len(genres) == 1 for genres in names.values())
        looks.add(tuple(drawn))
    assert len(looks) == 1, "a song looks alike in all maps"


@pytest.mark.parametrize(
    ("key", "empty", "title"),
    [
        ("outcomes", {}, "What reached users did"),
        ("retrieval", [], "Audio and text"),
        ("genres", [], "vote for the right first genre"),
        ("gate", {}, "Where the gate stands"),
        ("reach", {}, "Reach and response"),
        ("reach", {"gated": [], "ungated": []}, "Reach and response"),
    ],
)
def test_what_was_not_measured_is_left_out(page, metrics, key, empty, title) -> None:
    assert title in text_shown(page())
    metrics[key] = empty
    assert title not in text_shown(page())


def test_without_a_boundary_model_its_sections_are_left_out(page, metrics, pictures) -> None:
    for key in ("boundary", "gate", "reach"):
        del metrics[key]
    del pictures["boundary"]
    assert not any(
        title in text_shown(page()) for title in ("Interest boundaries", "Where the gate", "Reach and response")
    )


def test_the_gate_is_drawn_and_told(page) -> None:
    source = page()
    text, section = text_shown(source), source[source.index("Where the gate stands") :]
    assert all(words in text for words in ("2,000 exposures", "0.494", "0.123", "0.012", "+0.60", "-1.00"))
    drawn = re.search(r'<svg role="img" aria-label="(Favourite rate.*?)".*?</svg>', section, re.S)
    assert drawn and "favourite rate from 5% to 13%" in drawn.group(1) and drawn.group(0).count("<circle") == 10
    places = [float(x) for x in re.findall(r'<circle class="ours" cx="([\d.]+)"', drawn.group(0))]
    assert places == sorted(places, reverse=True) and len(places) == 5, "further right, more pass"
    (mark,) = re.findall(r'<path class="mark" d="M([\d.]+)', drawn.group(0))
    between = (places[2] + places[3]) / 2
    assert float(mark) == pytest.approx(between, abs=0.1), "three fifths pass at -0.2, two fifths at +0.2: half at 0"


def test_the_lines_stand_at_the_gate(page, metrics, pictures) -> None:
    metrics["gate"]["margin"] = pictures["boundary"]["gate"] = 0.2
    source = page()
    text, section = text_shown(source), source[source.index("Where the gate stands") :]
    assert "above 0.2, right of the line" in text and "targeting.margin=0.2." in text
    places = [float(x) for x in re.findall(r'<circle class="ours" cx="([\d.]+)"', section)]
    (mark,) = re.findall(r'<path class="mark" d="M([\d.]+)', section)
    assert float(mark) == pytest.approx(places[3], abs=0.1), "two fifths pass there"
    edges = pictures["boundary"]["margin_edge"]
    histogram = source[source.index("Interest boundaries") :]
    at = charts.WIDTH * (0.2 - edges[0]) / (edges[-1] - edges[0])
    assert float(re.findall(r'<path class="mark" d="M([\d.]+)', histogram)[0]) == pytest.approx(at, abs=0.1)


def test_reach_is_drawn_with_and_without_the_gate(page) -> None:
    source = page()
    section = source[source.index("Reach and response") : source.index("Where the gate stands")]
    labels = re.findall(r'aria-label="([^"]+)"', section)
    assert len(labels) == 2 and "gated from 19% to 16%" in labels[0] and "ungated from 47% to 17%" in labels[1]
    assert section.count('circle class="ours"') == 4 and section.count('circle class="plain"') == 6


def test_edge_values(page, metrics, pictures) -> None:
    """No baseline hit, no outcome, one song, a constant histogram, validation songs, no boundary methods."""
    metrics["split"] = "cold_val"
    metrics["audience"] = [data.method_row(name, 0) for name in ("random", "FirstPlay I2I2U")]
    metrics["outcomes"] = {
        "source": "logged plays",
        "rows": [data.outcome("everybody", None), data.outcome("random", 0.0)],
    }
    metrics["outcomes"]["parts"] = [data.part("gate on I2I2U", data.FIRST, "random", None)]
    metrics["best_baseline"] |= {"method": "random"}
    figures = {key: one for key, one in data.less(data.FIRST, data.BEST).items() if "@" in key}
    nothing: dict[str, Any] = {key: [0.0, 0.0] if "ci95" in key else 0 * one for key, one in figures.items()}
    metrics["differences"] = [{"method": data.FIRST, "less": "random", **nothing}]
    metrics["parts"] = [{"part": "gate on I2I2U", **metrics["differences"][0]}]
    one = {"FirstPlay": {"x": [1.0], "y": [2.0], "near": [[]]}}
    pictures["song_map"] = {"maps": one, "genre": [""], "title": [""], "new": [True]}
    pictures["boundary"] |= {"margin_count": [0, 0], "margin_edge": [1.0, 1.0, 1.0]}
    shut = {"margin": -1.0, "passed": 1.0, "favourite_rate": 0.0, "completion_rate": 0.0}
    nothing = {"precision": 0.0, "recall": 0.0, "f1": 0.0}
    metrics["gate"] = {"source": "truth", "exposures": 20, "margin": 0.0, "curve": [shut], "at_the_boundary": nothing}
    text = text_shown(source := page())
    assert "cannot be told from" in text and "flattered" in text and "selected" in text
    assert "untitled · no genre · new" in text and "<dt>Favourite rate" not in source
    assert "nan" not in source.lower() and "None" not in text and count(source, "path", "mark") == 0
