"""The report in a real browser: song maps under pointer and keys, without script; narrow, wide, dark, on paper."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.evaluation.report import report_data
from tests.evaluation.report.report_data import HOSTILE, SPACES, written

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = next((path for path in map(Path, ("/usr/bin/chromium", "/usr/bin/chromium-browser")) if path.exists()), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
FLAGS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync"]  # fmt: skip
WIDTHS = (360, 1000, 1600)
Open = Callable[..., Any]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=str(CHROMIUM), args=FLAGS)
        yield opened
        opened.close()


@pytest.fixture
def pictures() -> dict[str, Any]:
    return report_data.pictures()


@pytest.fixture
def report(tmp_path: Path, pictures: dict[str, Any]) -> Path:
    """A report some of whose names are markup."""
    metrics = report_data.metrics()
    metrics["audience"][2]["method"] = metrics["differences"][2]["method"] = HOSTILE
    metrics["buckets"]["rows"][2]["bucket"] = pictures["song_map"]["genre"][5] = HOSTILE
    pictures["song_map"]["title"] = [f"{HOSTILE}<img src=x onerror=alert({i})>" for i in range(400)]
    written(tmp_path, metrics, pictures)
    return tmp_path / "report.html"


@pytest.fixture
def page(browser: Any, report: Path) -> Iterator[Open]:
    """Opens the report; fails on dialogs, errors, messages of the console, and on any request but for the file."""
    result: list[str] = []
    contexts = []

    def visit(width: int = 1000, file: Path = report, **options: Any) -> Any:
        context = browser.new_context(viewport={"width": width, "height": 900}, **options)
        contexts.append(context)
        opened = context.new_page()
        opened.on("dialog", lambda one: (result.append(f"dialog {one.message}"), one.dismiss()))
        opened.on("pageerror", lambda one: result.append(f"error {one}"))
        opened.on("console", lambda one: result.append(f"console {one.text}"))
        opened.on("request", lambda one: one.url == file.as_uri() or result.append(f"request {one.url}"))
        opened.goto(file.as_uri())
        return opened

    yield visit
    for context in contexts:
        context.close()
    assert result == []


def assert_shown(page: Any, pictures: dict[str, Any], place: int) -> None:
    """The card tells the song at a place of the drawing and its neighbours in every map, and every map marks them."""
    drawn = pictures["song_map"]
    near = {space: drawn["maps"][space]["near"][place] for space in SPACES}

    def name(i: int) -> str:
        new = " · new" if drawn["new"][i] else ""
        return re.sub(r"\s+", " ", f"{drawn['title'][i]} · {drawn['genre'][i] or 'no genre'}{new}")

    assert page.locator(".song strong").inner_text() == name(place)
    lines = [f"{space}: {'; '.join(name(i) for i in near[space])}" for space in SPACES]
    assert page.locator(".song li").all_inner_texts() == lines
    for space, svg in zip(SPACES, page.locator("[data-near] svg").all(), strict=True):
        marked = svg.evaluate(
            "svg => { const all = [...svg.querySelectorAll('.known, .new')];"
            " return ['.on', '.near'].map(css => all.map((p, i) => p.matches(css) ? i : -1).filter(i => i >= 0)); }"
        )
        assert marked[0] == [place]
        assert set(marked[1]) == set(near[space]), "what is linked is what is told"


def test_pointing_at_a_song_tells_its_neighbours_and_marks_them_in_all_maps(page: Open, pictures) -> None:
    shown = page()
    assert "Point at a song" in shown.locator(".song").inner_text()
    songs = shown.locator("[data-near] svg").nth(1).locator(".known, .new")
    centre = "p => { const b = p.getBBox(); return [b.x + b.width / 2, b.y + b.height / 2]; }"
    for place in (399, 3):  # a new one, a known one
        target = songs.nth(place)
        target.evaluate("p => p.scrollIntoView({block: 'center'})")
        box = target.bounding_box()
        shown.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        marked = songs.evaluate_all("all => all.findIndex(p => p.matches('.on'))")
        there = songs.nth(marked).evaluate(centre)
        assert there == pytest.approx(target.evaluate(centre), abs=1.5), "the song under the pointer, or one upon it"
        assert_shown(shown, pictures, marked)
    assert shown.evaluate("document.images.length") == 0 and shown.evaluate("document.scripts.length") == 1


def test_a_finger_is_a_pointer(page: Open, pictures) -> None:
    shown = page(360, has_touch=True)
    target = shown.locator("[data-near] svg").nth(0).locator(".new").nth(0)
    target.evaluate("p => p.scrollIntoView({block: 'center'})")
    box = target.bounding_box()
    shown.touchscreen.tap(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    assert "Nearest, of the songs drawn" in shown.locator(".song").inner_text()


def test_keys_alone_walk_the_map(page: Open, pictures) -> None:
    shown = page()
    for _ in range(40):
        shown.keyboard.press("Tab")
        if shown.evaluate("document.activeElement.closest('[data-near]') !== null"):
            break
    assert_shown(shown, pictures, 399)
    shown.keyboard.press("Enter")
    assert_shown(shown, pictures, pictures["song_map"]["maps"][SPACES[0]]["near"][399][0])
    where = "document.activeElement.querySelector('.on').getBBox().{}"
    for key, axis, sign in zip(("Left", "Up", "Right", "Down"), "xyxy", (-1, -1, 1, 1), strict=True):
        before = shown.evaluate(where.format(axis))
        shown.keyboard.press(f"Arrow{key}")
        assert sign * (shown.evaluate(where.format(axis)) - before) > -2, key
        assert shown.locator("[data-near] svg .on").count() == 3
    shown.keyboard.press("Escape")
    assert shown.locator(".on, .near").count() == 0 and "Point at a song" in shown.locator(".song").inner_text()


def test_without_script_the_maps_are_there_with_their_titles(page: Open, pictures) -> None:
    shown = page(java_script_enabled=False)
    assert shown.locator(".song").count() == 0
    for svg in shown.locator("[data-near] svg").all():
        assert svg.locator(".known title, .new title").count() == 400 and svg.bounding_box()["width"] > 200
    assert HOSTILE in shown.locator("[data-near] title").nth(0).text_content()


def test_a_script_that_is_not_ours_does_not_run(page: Open, report: Path, browser: Any) -> None:
    """Were a name ever not escaped, the page's policy would stop it still."""
    source = report.read_text("utf-8")
    bad = report.with_name("bad.html")
    injected = "<script>document.title = 'run'</script><img src=x onerror='document.title=1'>"
    bad.write_text(source.replace("</h1>", f"</h1>{injected}"))
    opened = browser.new_page()
    opened.goto(bad.as_uri())
    assert opened.title() == "FirstPlay evaluation"
    assert opened.locator(".song").count() == 1, "ours does"
    opened.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_nothing_runs_out_of_the_page(page: Open, width: int, scheme: str) -> None:
    shown = page(width, color_scheme=scheme)
    assert shown.evaluate("document.documentElement.scrollWidth") == width
    wide = shown.evaluate(
        "[...document.querySelectorAll('main *')].filter(e => !e.closest('.scroll') && !e.closest('svg')"
        " && e.getBoundingClientRect().right > innerWidth + 1).map(e => e.outerHTML.slice(0, 80))"
    )
    assert wide == []
    if width == 360:
        assert shown.locator(".scroll").evaluate_all("all => all.some(e => e.scrollWidth > e.clientWidth)")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_its_ground(page: Open, scheme: str) -> None:
    """WCAG 2: 4.5 to 1 for text."""
    shown = page(color_scheme=scheme)
    channels = "e => getComputedStyle(e).{}.match(/[0-9.]+/g).map(Number)"

    def light(rgb: list[float]) -> float:
        linear = [c / 255 / 12.92 if c <= 10.31 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in rgb[:3]]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    ground_of = channels.format("backgroundColor")
    grounds = {of: shown.locator(of).first.evaluate(ground_of) for of in ("body", ".verdict", ".song")}
    on_page = [(of, "body", "color") for of in ("h1", ".note", "td", "figcaption")]
    in_boxes = [(of, ".verdict", "color") for of in (".claim", ".tiles dt", ".tiles dd")]
    drawn = [(of, "body", "fill") for of in ("svg text", "svg .faint")]
    for ink, ground, kind in [*on_page, *in_boxes, *drawn, (".song", ".song", "color")]:
        pair = sorted([light(shown.locator(ink).first.evaluate(channels.format(kind))), light(grounds[ground])])
        assert (pair[1] + 0.05) / (pair[0] + 0.05) >= 4.5, ink
    dark = light(grounds["body"]) < 0.1
    assert dark == (scheme == "dark")


def test_on_paper_it_is_light_and_whole(page: Open) -> None:
    shown = page(794, color_scheme="dark")
    shown.emulate_media(media="print")
    assert shown.locator("body").evaluate("e => getComputedStyle(e).backgroundColor") == "rgb(255, 255, 255)"
    cut = shown.locator(".scroll").evaluate_all("all => all.filter(e => e.scrollWidth > e.clientWidth + 1).length")
    assert cut == 0 and not shown.locator(".song").is_visible()
    assert len(re.findall(rb"/Type\s*/Page\b", shown.pdf(format="A4"))) <= 12
