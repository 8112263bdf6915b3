"""The report: figures of metrics.json appear, data is escaped, nothing is loaded, missing parts are left out."""

from __future__ import annotations

import json
import re
from base64 import b64encode
from hashlib import sha256
from html.parser import HTMLParser
from typing import Any

import pytest

from evaluation.report import charts
from tests.evaluation.report import report_data
from tests.evaluation.report.report_data import (
    BEST,
    BUCKETS,
    FIRST,
    HOSTILE,
    METHODS,
    PARTS,
    SPACES,
    less,
    method_row,
    outcome,
    part,
    written,
)
from tests.evaluation.report.report_tables import assert_tables_are, read_tables

TITLES = {"audience": "Listeners found", "outcomes": "What reached users did", "retrieval": "Audio and text"}
TITLES["boundary"] = "Openness to new songs"
TITLES["parts"], TITLES["buckets"] = "What each part adds", "Where more are found"
TITLES["gate"] = "Where the gate stands"
TITLES["reach"] = "Reach and response"


@pytest.fixture
def metrics() -> dict[str, Any]:
    return report_data.metrics()


@pytest.fixture
def pictures() -> dict[str, Any]:
    return report_data.pictures()


class Page(HTMLParser):
    """Parses a page: fails on tags that do not match, keeps the elements and the text outside the style sheet."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(source)
        self.close()
        self.text = re.sub(r"\s+", " ", " ".join(self.texts))
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open.pop() == tag, f"</{tag}> does not close the open element"

    def handle_data(self, data: str) -> None:
        if self.open[-1:] not in (["style"], ["script"]):
            self.texts.append(data)

    def count(self, tag: str, css: str = "") -> int:
        return sum(t == tag and (not css or css in (a.get("class") or "").split()) for t, a in self.elements)


def verdict(source: str) -> tuple[str, str, str]:
    """CSS class, claim and reasons."""
    shown = re.search(r'<div class="verdict (\w+)"><p class="claim">(.*?)</p><p>(.*?)</p></div>', source, re.DOTALL)
    assert shown is not None
    return shown[1], shown[2], re.sub(r"\s+", " ", shown[3])


def test_the_verdict_is_that_of_the_paired_interval(tmp_path, metrics, pictures) -> None:
    css, claim, told = verdict(written(tmp_path, metrics, pictures))
    assert (css, claim) == ("ours", "FirstPlay finds 50% more listeners of new songs than the best baseline.")
    for words in (
        "120 new songs have 2,311 known listeners",
        "Asked for 50 users a song, FirstPlay I2I2U names 603 of them",
        "best of 4 baselines, CB2CF (λ=0), 402",
        "+201 (+141 to +261), with its 95 % interval",
        "leaves zero out",
    ):
        assert words in told
    metrics["differences"][3] = less(FIRST, BEST, spread=202)
    css, claim, told = verdict(written(tmp_path, metrics, pictures))
    assert css == "plain" and "cannot be told from" in claim and "holds zero" in told and "+201 (-1 to +403)" in told
    metrics["differences"][3]["found@50_ci95"] = [0.3, 400.0]
    assert verdict(written(tmp_path, metrics, pictures))[0] == "plain", "what is shown as 0 is not more than 0"


def test_the_verdict_admits_a_loss_and_nothing_found(tmp_path, metrics, pictures) -> None:
    better = {"target_users_found@50": 700}
    metrics["audience"][3] |= better
    metrics["differences"][3] |= {"found@50": -97, "found@50_ci95": [-150.0, -41.0]}
    css, claim, told = verdict(written(tmp_path, metrics, pictures))
    assert (css, claim) == ("loss", "FirstPlay finds 14% fewer listeners of new songs than the best baseline.")
    assert "-97 (-150 to -41)" in told and "700" in told
    metrics["audience"][3]["target_users_found@50"] = 0
    metrics["differences"][3] |= {"found@50": 603, "found@50_ci95": [500.0, 700.0]}
    assert verdict(written(tmp_path, metrics, pictures))[1].startswith("FirstPlay finds more listeners")


def test_tiles_say_ours_beside_what_it_is_measured_against(tmp_path, metrics, pictures) -> None:
    head = dict(re.findall(r"<div><dt>(.*?)</dt>(.*?)</div>", written(tmp_path, metrics, pictures)))
    assert "120" in head["New songs"] and "117 of them" in head["New songs"]
    recall = head["Recall, 50 users a song: every song counts alike"]
    assert "0.301" in recall and "CB2CF (λ=0): 0.201" in recall and "+0.101 (+0.070 to +0.131)" in recall
    gate = head["Favourite rate of reached users, FirstPlay I2I2U, gated"]
    assert "11.8" in gate and "no gate: 12.0" in gate and "2,345 and 2,345 outcomes" in gate
    assert "difference -0.3 (-1.4 to +0.6) percentage points" in gate, "a loss is shown as it is"
    text = head["Text→audio recall@10, cold_test"]
    assert text.index("cold_test, 120 songs") < text.index("all new songs, 240 songs") and "3.45×" in text


def test_tables_hold_the_metrics(tmp_path, metrics, pictures) -> None:
    """Every cell of the tables of differences, parts, buckets and outcomes is read back and compared."""
    tables = read_tables(written(tmp_path, metrics, pictures))
    assert_tables_are(tables, metrics)


def test_every_section_shows_its_figures(tmp_path, metrics, pictures) -> None:
    page = Page(written(tmp_path, metrics, pictures))
    for row in metrics["audience"]:
        for budget in (10, 50, 100):
            low, high = row[f"recall@{budget}_ci95"]
            assert f"{row[f'recall@{budget}']:.3f} ({low:.3f}–{high:.3f})" in page.text
            assert f" {row[f'target_users_found@{budget}']:,} {row[f'reached@{budget}']:,} " in page.text
        for bucket in row["by_listeners"]:
            assert f" {bucket['recall']:.3f} " in page.text
    for words in ("2,345", "demo world's truth", "0.287", "0.042", "31.5", "0.183"):
        assert words in page.text
    for words in ("14.2", "65.8", "72.5", "23.4", "6.8", "31.1", "22.2", "17.8", "81,234", "popular: 11 to 97"):
        assert words in page.text
    for words in ("raw content 65.8\u202f% 0.319 0.051", "FirstPlay 72.5\u202f% 0.547 0.061", "14.2\u202f% – –"):
        assert words.replace("\u202f", " ") in page.text
    assert page.count("path", "whisker") == 2 * len(METHODS) + 1 and page.count("path", "mark") == 2
    assert page.count("path", "span") == len(METHODS) - 1 + 2 * len(PARTS) + len(BUCKETS)
    assert "one seed" in page.text and "over songs" in page.text


def test_page_opens_offline_and_is_readable_by_a_screen_reader(tmp_path, metrics, pictures) -> None:
    source = written(tmp_path, metrics, pictures)
    page = Page(source)
    assert not re.search(r"https?:|//[a-z]|@import|url\(", source)
    assert not {"link", "img", "iframe"} & {tag for tag, _ in page.elements}
    assert not [a for _, a in page.elements if {"src", "href", "onload", "onclick"} & set(a)]
    (script,) = re.findall(r"<script>(.*?)</script>", source, re.DOTALL)
    digest = b64encode(sha256(script.encode()).digest()).decode()
    assert f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'" in source
    images = [a for tag, a in page.elements if tag == "svg" and "aria-hidden" not in a]
    assert len(images) == 16 and all(a["role"] == "img" and a["aria-label"] and a["viewbox"] for a in images)
    assert page.count("caption") == page.count("table") == page.count("div", "scroll") == 11
    assert page.count("h1") == 1 and page.count("h2") == 9 and "prefers-color-scheme:dark" in source


def test_data_is_escaped_wherever_it_appears(tmp_path, metrics, pictures) -> None:
    metrics, pictures = json.loads(json.dumps([metrics, pictures]).replace('"genre 1"', json.dumps(HOSTILE)))
    pictures["song_map"]["title"][3] = HOSTILE
    metrics["split"] = metrics["retrieval"][0]["pool"] = metrics["genres"][1]["space"] = HOSTILE
    metrics["audience"][2]["method"] = metrics["outcomes"]["rows"][1]["method"] = HOSTILE
    metrics["outcomes"]["source"] = metrics["buckets"]["rows"][0]["by"] = metrics["parts"][0]["part"] = HOSTILE
    metrics["best_baseline"]["method"] = metrics["audience"][2]["method"]
    metrics["buckets"]["baseline"] = metrics["differences"][0]["less"] = HOSTILE
    metrics["catalogue"][HOSTILE] = 1
    pictures["song_map"]["maps"][HOSTILE] = pictures["song_map"]["maps"].pop("FirstPlay")
    metrics["boundary"]["share_of_new_songs_by_taste"][HOSTILE] = 0.5
    page = Page(source := written(tmp_path, metrics, pictures))
    assert source.count("<script") == 1 and page.text.count("<script>alert(1)</script>") >= 10
    assert any(HOSTILE in (a.get("aria-label") or "") for _, a in page.elements), "unescaped again by the parser"
    assert HOSTILE not in charts.table("caption", ["a", "b"], [["row", HOSTILE]])


def test_every_map_shows_each_song_once_new_ones_as_outlines(tmp_path, metrics, pictures) -> None:
    source, songs = written(tmp_path, metrics, pictures), pictures["song_map"]
    maps = re.findall(r"<div data-near=[^>]*><h3>([^<]*)</h3><svg(.*?)</svg></div>", source, re.DOTALL)
    assert [name for name, _ in maps] == list(SPACES)
    told = set()
    for _, picture in maps:
        drawn = re.findall(r'<path class="(known|new) k(-?\d+)" d="[^"]+"><title>([^<]*)</title>', picture)
        assert len(drawn) == len(songs["genre"]) and sum(css == "new" for css, _, _ in drawn) == sum(songs["new"])
        assert [css for css, _, _ in drawn] == sorted(css for css, _, _ in drawn), "new ones are drawn above known ones"
        names: dict[str, set[str]] = {}
        for _, kind, tip in drawn:
            names.setdefault(kind, set()).add(tip.split(" · ")[1])
        assert len(names.pop("-1")) == 1 + 14 + 1 - charts.N_KINDS, "no genre and the rarest ones are grey"
        assert len(names) == charts.N_KINDS and all(len(genres) == 1 for genres in names.values())
        told.add(tuple(drawn))
    assert len(told) == 1, "a song looks alike in all maps"


@pytest.mark.parametrize(("key", "title"), TITLES.items())
@pytest.mark.parametrize("empty", ["absent", "empty", "none"])
def test_missing_metrics_leave_their_section_out(tmp_path, metrics, pictures, key, title, empty) -> None:
    assert title in Page(written(tmp_path, metrics, pictures)).text
    value = metrics.pop(key)
    if empty != "absent":
        metrics[key] = type(value)() if empty == "empty" else None
    assert title not in Page(written(tmp_path, metrics, pictures)).text


def test_the_gate_is_drawn_and_told(tmp_path, metrics, pictures) -> None:
    source = written(tmp_path, metrics, pictures)
    page, section = Page(source), source[source.index("Where the gate stands") :]
    assert "2,000 exposures" in page.text and "0.494" in page.text and "0.123" in page.text and "0.012" in page.text
    drawn = re.search(r'<svg role="img" aria-label="(Favourite rate.*?)".*?</svg>', section, re.S)
    assert drawn and "favourite rate from 5% to 13%" in drawn.group(1) and drawn.group(0).count("<circle") == 10
    places = [float(x) for x in re.findall(r'<circle class="ours" cx="([\d.]+)"', drawn.group(0))]
    assert places == sorted(places, reverse=True) and len(places) == 5, "further right, more pass"
    (mark,) = re.findall(r'<path class="mark" d="M([\d.]+)', drawn.group(0))
    between = (places[2] + places[3]) / 2
    assert float(mark) == pytest.approx(between, abs=0.1), "three fifths pass at -0.2, two fifths at +0.2: half at 0"
    assert "+0.60" in page.text and "-1.00" in page.text


def test_reach_is_drawn_with_and_without_the_gate(tmp_path, metrics, pictures) -> None:
    source = written(tmp_path, metrics, pictures)
    section = source[source.index("Reach and response") : source.index("Where the gate stands")]
    labels = re.findall(r'aria-label="([^"]+)"', section)
    assert len(labels) == 2 and "gated from 19% to 16%" in labels[0] and "ungated from 47% to 17%" in labels[1]
    assert section.count('circle class="ours"') == 4 and section.count('circle class="plain"') == 6
    metrics["reach"]["gated"] = []
    assert "Reach and response" not in written(tmp_path, metrics, pictures)


def test_nothing_to_show_is_still_a_page(tmp_path) -> None:
    page = Page(written(tmp_path, {}, {}))
    assert [page.count(tag) for tag in ("h1", "h2", "table", "svg", "dl")] == [1, 0, 0, 0, 0]
    assert page.count("div", "verdict") == 0


def test_section_without_picture_keeps_its_table_and_the_other_way_round(tmp_path, metrics, pictures) -> None:
    text = Page(written(tmp_path, metrics, {})).text
    assert "vote for the right first genre" in text and "t-SNE" not in text and "Margin" not in text
    metrics["genres"], metrics["boundary"] = [], None
    text = Page(written(tmp_path, metrics, pictures)).text
    assert "t-SNE" in text and "Margin" in text and "vote for" not in text


def test_edge_values(tmp_path, metrics, pictures) -> None:
    """No baseline hit, no outcome, one song, a constant histogram, validation songs, no boundary methods."""
    metrics = metrics | {"split": "cold_val"}
    metrics["audience"] = [method_row(name, 0) for name in ("random", "FirstPlay I2I2U")]
    metrics["outcomes"] = {"source": "logged plays", "rows": [outcome("everybody", None), outcome("random", 0.0)]}
    metrics["outcomes"]["parts"] = [part("gate on I2I2U", FIRST, "random", None)]
    metrics["best_baseline"] |= {"method": "random"}
    figures = {key: one for key, one in less(FIRST, BEST).items() if "@" in key}
    nothing: dict[str, Any] = {key: [0.0, 0.0] if "ci95" in key else 0 * one for key, one in figures.items()}
    metrics["differences"] = [{"method": FIRST, "less": "random", **nothing}]
    metrics["parts"] = [{"part": "gate on I2I2U", **metrics["differences"][0]}]
    one = {"FirstPlay": {"x": [1.0], "y": [2.0], "near": [[]]}}
    pictures["song_map"] = {"maps": one, "genre": [""], "title": [""], "new": [True]}
    pictures["boundary"] |= {"margin_count": [0, 0], "margin_edge": [1.0, 1.0, 1.0]}
    shut = {"margin": -1.0, "passed": 1.0, "favourite_rate": 0.0, "completion_rate": 0.0}
    nothing = {"precision": 0.0, "recall": 0.0, "f1": 0.0}
    metrics["gate"] = {"source": "truth", "exposures": 20, "curve": [shut], "at_the_boundary": nothing}
    page = Page(source := written(tmp_path, metrics, pictures))
    assert "cannot be told from" in page.text and "flattered" in page.text and "selected" in page.text
    assert "untitled · no genre · new" in page.text and "<dt>Favourite rate" not in source
    assert "nan" not in source.lower() and "None" not in page.text and page.count("path", "mark") == 0
