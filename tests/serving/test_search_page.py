"""The console's search page in a real Chromium: by the keyboard alone, with filters, examples and recordings."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

from tests.serving.test_console import (
    CHROMIUM,
    PALE,
    SIZES,
    browser,  # noqa: F401 (a fixture)
    expect,
    overflow,
    until,
    visit,  # noqa: F401 (a fixture)
    wave,
)

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on this machine")


def searched(live: Any, **asked: Any) -> list[str]:
    """Titles that the service itself answers."""
    with live.client() as client:
        songs = client.post("/search", json={"k": 30} | asked).raise_for_status().json()["songs"]
    return [song["title"] or f"Untitled ({song['song_id']})" for song in songs]


def names(page: Any) -> Any:
    """The names of the songs that are shown."""
    return page.locator("#search .rows .name > .link")


def test_songs_are_searched_by_keyboard_alone(visit: Callable[..., Any], live: Any) -> None:  # noqa: F811
    page = visit()
    expect(page.locator("#main")).to_be_visible()
    page.locator("header a").focus()
    page.keyboard.press("Enter")
    expect(page.locator("#search")).to_be_visible()
    expect(page.locator("#empty")).to_be_hidden()
    expect(page.locator("#search-h")).to_be_focused()
    page.keyboard.press("Tab")
    page.keyboard.type("calm piano at night")
    page.keyboard.press("Enter")
    expect(names(page)).to_have_text(searched(live, text="calm piano at night"))
    expect(page.locator("#said")).to_have_text("30 songs found")
    page.locator("#search .rows .quiet").nth(1).focus()
    page.keyboard.press("Enter")  # more like the second one
    with live.client() as client:
        found = client.post("/search", json={"text": "calm piano at night", "k": 30}).json()["songs"]
    like, dislike = [found[1]["song_id"]], None
    expect(names(page)).to_have_text(searched(live, like=like))
    expect(page.locator("#search-h")).to_be_focused()
    expect(page.locator("#search .examples li")).to_have_count(1)
    with live.client() as client:
        dislike = [client.post("/search", json={"like": like, "k": 1}).json()["songs"][0]["song_id"]]
    page.locator("#search .rows > li").first.get_by_role("button", name="Not like this").press("Enter")
    expect(names(page)).to_have_text(searched(live, like=like, dislike=dislike))
    page.locator("#search .examples button").first.press("Enter")  # what is not meant says nothing alone
    expect(page.locator("#search .examples")).to_be_hidden()
    expect(names(page)).to_have_count(0)
    page.fill("#search [name=text]", "loud")
    page.press("#search [name=text]", "Enter")
    expect(names(page)).to_have_count(30)
    page.locator("#search .rows .link").first.press("Enter")
    expect(page.locator("#search")).to_be_hidden()
    expect(page.locator("#song-h")).to_be_visible()
    page.go_back()
    expect(names(page)).to_have_count(30)


def test_filters_are_a_condition(visit: Callable[..., Any], live: Any) -> None:  # noqa: F811
    page = visit()
    page.goto(f"{live.url}/#search")
    page.fill("#search [name=text]", "loud")
    page.select_option("#search [name=among]", "new")
    page.fill("#search [name=language]", "zh")
    page.fill("#search [name=from]", "2026-01-01")
    page.click("#search [type=submit]")
    where = 'language == "zh" and released_at >= "2026-01-01"'
    expected = searched(live, text="loud", among="new", where=where)
    assert 0 < len(expected) < 30
    expect(names(page)).to_have_text(expected)
    page.fill("#search [name=genre]", 'no "such')
    page.click("#search [type=submit]")
    expect(page.locator("#search .split .body").last).to_have_text("No song matches.")


def test_filters_of_columns_that_songs_lack_are_not_there(visit: Callable[..., Any], live: Any) -> None:  # noqa: F811
    page = visit()
    expect(page.locator("#main")).to_be_visible()

    def without(route: Any) -> None:
        answer = route.fetch()
        model = answer.json()
        model["conditions"]["songs"]["columns"] = {"language": "text", "genres": "list of text"}
        route.fulfill(response=answer, json=model)

    page.route(re.compile(r"/model\b"), without)
    page.goto(f"{live.url}/#search")
    page.reload()
    expect(page.locator("#search [name=genre]")).to_be_visible()
    for name, there in (("language", 1), ("artist_id", 0), ("from", 0), ("until", 0)):
        expect(page.locator(f"#search [name={name}]:visible")).to_have_count(there)


def test_a_search_by_nothing_is_told_without_asking(visit: Callable[..., Any], live: Any) -> None:  # noqa: F811
    page = visit()
    page.goto(f"{live.url}/#search")
    page.fill("#search [name=text]", "  ")
    page.click("#search [type=submit]")
    alert = page.locator("#search").get_by_role("alert")
    expect(alert).to_have_text("There is nothing to search by: describe the songs, or choose a recording.")
    expect(alert.get_by_role("button")).to_have_count(0)  # the same again would find nothing either


def test_a_recording_is_searched_by(visit: Callable[..., Any], live: Any) -> None:  # noqa: F811
    page = visit(refused="422")
    page.goto(f"{live.url}/#search")
    expect(page.locator("#search")).to_be_visible()
    page.set_input_files("#search [name=audio]", {"name": "a.wav", "mimeType": "audio/wav", "buffer": wave()})
    page.click("#search [type=submit]")
    expect(names(page)).to_have_count(30)
    play = page.locator("#search button.play").first
    play.click()
    expect(play).to_have_attribute("aria-pressed", "true")
    page.set_input_files("#search [name=audio]", {"name": "a.txt", "mimeType": "audio/wav", "buffer": b"no sound"})
    page.click("#search [type=submit]")
    expect(page.locator("#search .trouble")).to_contain_text("The recording cannot be used")
    expect(page.locator("#search .trouble button")).to_have_count(0)


@pytest.mark.parametrize("size", [*SIZES, (1280, 900)], ids=lambda size: str(size[0]))
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_overflows_and_all_can_be_read(
    visit: Callable[..., Any],  # noqa: F811
    live: Any,
    size: tuple[int, int],
    scheme: str,
) -> None:
    page = visit(size=size, color_scheme=scheme, reduced_motion="reduce")
    page.goto(f"{live.url}/#search")
    page.fill("#search [name=text]", "loud")
    page.keyboard.press("Enter")
    expect(names(page)).to_have_count(30)
    page.locator("#search .rows .quiet").first.click()
    until(page, "document.querySelectorAll('#search .rows .quiet').length === 60")
    assert overflow(page) == [] and page.evaluate(PALE) == []
