"""The report: figures of metrics.json appear, data is escaped, nothing is loaded, missing parts are left out."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline import charts
from pipeline.report import write_report

POOLS = {"all new songs": 240, "cold_test": 120}
HOSTILE = "<script>alert(1)</script>\"'&"
BASELINES = {"random": 21, "most active users": 64, "content kNN": 311, "CB2CF (λ=0)": 402}
OURS = {"I2I2U": 603, "I2I2U, gated": 577, "U2I, no boundary": 350, "U2I boundary": 333}
SPACES = ("content, no genre", "CB2CF (λ=0)", "FirstPlay")
METHODS = BASELINES | {f"FirstPlay {name}": found for name, found in OURS.items()}


def method_row(name: str, found: int) -> dict[str, Any]:
    row: dict[str, Any] = {"method": name}
    for budget in (10, 50, 100):
        recall = found * budget / 100_000
        row |= {f"target_users_found@{budget}": found * budget // 50, f"reached@{budget}": budget * 120}
        row |= {f"recall@{budget}": recall, f"recall@{budget}_ci95": [recall * 0.9, recall * 1.1]}
        row[f"ndcg@{budget}"] = recall / 2
    row["by_listeners"] = [
        {"bucket": bucket, "songs": 40, "listeners": span, "recall": found / 1000 / (i + 1)}
        for i, (bucket, span) in enumerate({"rare": [1, 4], "middle": [4, 11], "popular": [11, 97]}.items())
    ]
    return row


def outcome(name: str, favourite: float | None) -> dict[str, Any]:
    rates = {"favourite_rate": favourite, "favourite_rate_se": None if favourite is None else 0.0123}
    return {"method": name, "outcomes": 2345, **rates, "completion_rate": 0.4567, "completion_rate_se": 0.0311}


def retrieval(pool: str, direction: str, size: int) -> dict[str, Any]:
    recalls = {"recall@1": 0.0417, "recall@5": 0.1678, "recall@10": 0.2871, "chance_recall@10": 10 / size}
    recalls["median_rank"] = 31.5
    within = {"recall@1_within_genre": 0.1833, "chance_recall@1_within_genre": 0.0714}
    return {"pool": pool, "direction": direction, "pool_size": size, **recalls, **within}


@pytest.fixture
def metrics() -> dict[str, Any]:
    reached = [outcome(name, 0.06 + n / 10_000) for name, n in METHODS.items()]
    return {
        "catalogue": {"songs": 2000, "songs_cold_test": 120, "users": 3000, "training_plays": 81234},
        **{"split": "cold_test", "new_songs": 120, "new_songs_with_a_listener": 117},
        "audience": [method_row(name, found) for name, found in METHODS.items()],
        "outcomes": {"source": "truth", "rows": [outcome("everybody", 0.0501), *reached]},
        "retrieval": [
            retrieval(pool, way, size) for pool, size in POOLS.items() for way in ("text→audio", "audio→text")
        ],
        "genres": [
            {"space": "most frequent genre", "knn_genre_accuracy": 0.1417},
            {"space": "raw content", "knn_genre_accuracy": 0.6583, "genre_nmi": 0.3187, "chance_genre_nmi": 0.0512},
            {"space": "FirstPlay", "knn_genre_accuracy": 0.7249, "genre_nmi": 0.5471, "chance_genre_nmi": 0.0613},
        ],
        "boundary": {
            **{"share_of_pairs_above_the_boundary": 0.2345, "share_of_users_with_no_new_song": 0.0678},
            "share_of_new_songs_by_taste": {"rare songs": 0.3111, "middle": 0.2222, "popular songs": 0.1777},
        },
        "reach": {
            way: [{"reached": x, "favourite_rate": 0.2 - x / 10, "completion_rate": 0.5 - x / 3} for x in places]
            for way, places in (("ungated", (0.1, 0.5, 1.0)), ("gated", (0.1, 0.4)))
        },
        "gate": {
            "source": "truth",
            "exposures": 2000,
            "curve": [
                {"margin": 1.0 - 2 * n / 5, "passed": n / 5, "favourite_rate": 0.15 - n / 50, "completion_rate": 0.5}
                for n in range(5, 0, -1)
            ],
            "at_the_boundary": {"precision": 0.4444, "recall": 0.5555, "f1": 0.4938},
            "calibration_error_before": 0.1234,
            "calibration": {"slope": 0.5, "intercept": -0.25},
            "calibration_error": 0.0123,
        },
    }


@pytest.fixture
def pictures() -> dict[str, Any]:
    rng = np.random.default_rng(0)
    n, genres = 400, ["", "techno", "folk & blues", *(f"genre {i}" for i in range(13))]
    margin, share = np.histogram(rng.normal(-0.8, 1, 5000), 60), np.histogram(rng.beta(2, 6, 300), 20, (0, 1))
    return {
        "song_map": {
            "maps": {name: dict(zip("xy", rng.normal(size=(2, n)).tolist(), strict=True)) for name in SPACES},
            "new": (rng.random(n) < 0.2).tolist(),
            "genre": [genres[i] for i in rng.integers(0, len(genres), n)],
            "title": [f"Song {i}" if i % 7 else "" for i in range(n)],
        },
        "boundary": {
            **{"margin_count": margin[0].tolist(), "margin_edge": margin[1].tolist()},
            **{"open_count": share[0].tolist(), "open_edge": share[1].tolist()},
        },
    }


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
        if self.open[-1:] != ["style"]:
            self.texts.append(data)

    def count(self, tag: str, css: str = "") -> int:
        return sum(t == tag and (not css or css in (a.get("class") or "").split()) for t, a in self.elements)


def written(tmp_path: Path, metrics: dict[str, Any], pictures: dict[str, Any]) -> str:
    write_report(tmp_path / "report.html", metrics, pictures)
    return (tmp_path / "report.html").read_text(encoding="utf-8")


def test_headline_says_ours_beside_the_best_baseline_at_the_middle_budget(tmp_path, metrics, pictures) -> None:
    head = dict(re.findall(r"<div><dt>(.*?)</dt>(.*?)</div>", written(tmp_path, metrics, pictures)))
    assert "120" in head["New songs"] and "117 of them" in head["New songs"]
    found = head["Listeners found by FirstPlay I2I2U, 50 users a song"]
    assert "603" in found and "CB2CF (λ=0): 402" in found and "1.50×" in found
    assert re.search(r"recall 0\.301 \(0\.271–0\.33\d\), baseline 0\.201 \(0\.181–0\.221\)", found)
    gate = head["Favourite rate of reached users, FirstPlay I2I2U, gated"]
    assert "11.77 ± 1.23" in gate and "no gate: 12.03 ± 1.23" in gate and "0.98×" in gate, "a loss is shown as it is"
    text = head["Text→audio R@10, cold_test"]
    assert text.index("cold_test, 120 songs") < text.index("all new songs, 240 songs") and "3.45×" in text


def test_every_section_shows_its_figures(tmp_path, metrics, pictures) -> None:
    page = Page(written(tmp_path, metrics, pictures))
    for row in metrics["audience"]:
        for budget in (10, 50, 100):
            low, high = row[f"recall@{budget}_ci95"]
            assert f"{row[f'recall@{budget}']:.3f} ({low:.3f}–{high:.3f})" in page.text
            assert f" {row[f'target_users_found@{budget}']:,} {row[f'reached@{budget}']:,} " in page.text
        for bucket in row["by_listeners"]:
            assert f" {bucket['recall']:.3f} " in page.text
    for words in ("5.01 ± 1.23", "45.67 ± 3.11", "2,345", "demo world's truth", "0.287", "0.042", "31.5", "0.183"):
        assert words in page.text
    for words in ("14.2", "65.8", "72.5", "23.4", "6.8", "31.1", "22.2", "17.8", "81,234", "11 to 97 listeners"):
        assert words in page.text
    for words in ("raw content 65.8\u202f% 0.319 0.051", "FirstPlay 72.5\u202f% 0.547 0.061", "14.2\u202f% – –"):
        assert words.replace("\u202f", " ") in page.text
    assert page.count("path", "whisker") == len(METHODS) and page.count("path", "mark") == 2
    assert "one seed" in page.text and "over songs" in page.text


def test_page_opens_offline_and_is_readable_by_a_screen_reader(tmp_path, metrics, pictures) -> None:
    source = written(tmp_path, metrics, pictures)
    page = Page(source)
    assert not re.search(r"https?:|//[a-z]|@import|url\(", source)
    assert not {"script", "link", "img", "iframe"} & {tag for tag, _ in page.elements}
    assert not [a for _, a in page.elements if {"src", "href", "onload", "onclick"} & set(a)]
    images = [a for tag, a in page.elements if tag == "svg" and "aria-hidden" not in a]
    assert len(images) == 11 and all(a["role"] == "img" and a["aria-label"] and a["viewbox"] for a in images)
    assert page.count("caption") == page.count("table") == page.count("div", "scroll") == 7
    assert page.count("h1") == 1 and page.count("h2") == 7 and "prefers-color-scheme:dark" in source


def test_data_is_escaped_wherever_it_appears(tmp_path, metrics, pictures) -> None:
    metrics, pictures = json.loads(json.dumps([metrics, pictures]).replace('"genre 1"', json.dumps(HOSTILE)))
    pictures["song_map"]["title"][3] = HOSTILE
    metrics["split"] = metrics["retrieval"][0]["pool"] = metrics["genres"][1]["space"] = HOSTILE
    metrics["audience"][2]["method"] = metrics["outcomes"]["rows"][1]["method"] = HOSTILE
    metrics["outcomes"]["source"] = HOSTILE
    metrics["catalogue"][HOSTILE] = 1
    pictures["song_map"]["maps"][HOSTILE] = pictures["song_map"]["maps"].pop("FirstPlay")
    metrics["boundary"]["share_of_new_songs_by_taste"][HOSTILE] = 0.5
    page = Page(source := written(tmp_path, metrics, pictures))
    assert "<script" not in source and page.text.count("<script>alert(1)</script>") >= 8
    assert any(HOSTILE in (a.get("aria-label") or "") for _, a in page.elements), "unescaped again by the parser"
    assert HOSTILE not in charts.table("caption", ["a", "b"], [["row", HOSTILE]])


def test_every_map_shows_each_song_once_new_ones_as_outlines(tmp_path, metrics, pictures) -> None:
    source, songs = written(tmp_path, metrics, pictures), pictures["song_map"]
    maps = re.findall(r"<div><h3>([^<]*)</h3><svg(.*?)</svg></div>", source, re.DOTALL)
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


TITLES = {"audience": "Listeners found", "outcomes": "What reached users did", "retrieval": "Audio and text"}
TITLES["boundary"] = "Openness to new songs"
TITLES["gate"] = "Where the gate stands"
TITLES["reach"] = "Reach and response"


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
    assert float(mark) == pytest.approx(places[3], abs=0.1), "two fifths pass at a margin above zero"
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
    one = {"FirstPlay": {"x": [1.0], "y": [2.0]}}
    pictures["song_map"] = {"maps": one, "genre": [""], "title": [""], "new": [True]}
    pictures["boundary"] |= {"margin_count": [0, 0], "margin_edge": [1.0, 1.0, 1.0]}
    shut = {"margin": -1.0, "passed": 1.0, "favourite_rate": 0.0, "completion_rate": 0.0}
    nothing = {"precision": 0.0, "recall": 0.0, "f1": 0.0}
    metrics["gate"] = {"source": "truth", "exposures": 20, "curve": [shut], "at_the_boundary": nothing}
    page = Page(source := written(tmp_path, metrics, pictures))
    assert "ratio –" in page.text and "flattered" in page.text and "selected" in page.text
    assert "untitled · no genre · new" in page.text and "Favourite rate of reached" not in page.text
    assert "nan" not in source.lower() and "None" not in page.text and page.count("path", "mark") == 0
