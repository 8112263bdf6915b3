"""The console in a real Chromium, against the real service: what an editor or an engineer sees and does."""

from __future__ import annotations

import csv
import io
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest
import soundfile

CHROMIUM = shutil.which("chromium")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on this machine")
sync_api = pytest.importorskip("playwright.sync_api")
expect = sync_api.expect
expect.set_options(timeout=20_000)  # ms: the machine may be busy

FOLDER = Path(__file__).parents[2] / "serving" / "console"
QUIET = "--no-sandbox --disable-gpu --no-first-run --disable-background-networking --disable-component-update"
HOSTILE = '<img src=x onerror="window.hit=1">'
SIZES = [(360, 740), (1600, 900)]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=[*QUIET.split(), "--disable-sync"])
        yield opened
        opened.close()


class Seen:
    """What went wrong on a page, and where it asked."""

    def __init__(self, page: Any) -> None:
        self.errors: list[str] = []
        self.hosts: set[str] = set()
        page.on("console", lambda line: line.type in ("error", "warning") and self.errors.append(line.text))
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("request", lambda request: self.hosts.add(re.sub(r"^(\w+://[^/]*|\w+:).*", r"\1", request.url)))


@pytest.fixture
def visit(browser: Any, live: Any) -> Iterator[Callable[..., Any]]:
    """`visit(song=None, size=(1600, 900), …)` opens the console with the token. No visit may end with an error or a
    request elsewhere, but for errors that `refused` matches: a browser logs each refusal of the service."""
    contexts = []
    bearer = live.headers["authorization"].removeprefix("Bearer ")

    def opened(
        song: str = "", size: tuple[int, int] = (1600, 900), refused: str = "", token: str = bearer, **options: Any
    ) -> Any:
        width, height = size
        context = browser.new_context(viewport={"width": width, "height": height}, **options)
        context.set_default_timeout(20_000)
        if token:
            context.add_init_script(f"sessionStorage.setItem('firstplay-token', '{token}')")
        page = context.new_page()
        contexts.append((context, Seen(page), refused))
        page.goto(f"{live.url}/" + (f"#song={song}" if song else ""))
        return page

    yield opened
    for context, seen, refused in contexts:
        context.close()
        assert [line for line in seen.errors if not (refused and re.search(refused, line))] == []
        assert seen.hosts <= {live.url, "blob:", "data:"}


def asked(page: Any, path: str) -> Any:
    """The service's own answer."""
    return page.evaluate(
        """path => fetch(path, {headers: {Authorization: `Bearer ${sessionStorage.getItem("firstplay-token")}`}})
        .then(answer => answer.json())""",
        path,
    )


def until(page: Any, true: str) -> None:
    """Wait for an expression to be true (Playwright's own way needs an eval that the page forbids)."""
    for _ in range(200):
        if page.evaluate(true):
            return
        page.wait_for_timeout(50)
    raise AssertionError(f"never: {true}")


def wave(seconds: float = 4.0, rate: int = 16000) -> bytes:
    """A rising tone as WAV."""
    t = np.arange(int(seconds * rate)) / rate
    out = io.BytesIO()
    soundfile.write(out, 0.5 * np.sin(2 * np.pi * (200 + 100 * t) * t), rate, format="WAV")
    return out.getvalue()


def send(page: Any, audio: bytes | None = None, name: str = "song.wav", **fields: str) -> None:
    """Fill the form in and send it."""
    if audio is not None:
        expect(page.locator("#main")).to_be_visible()  # a hidden field takes files before anybody listens
        page.set_input_files("#upload [name=audio]", {"name": name, "mimeType": "audio/wav", "buffer": audio})
    for field, text in fields.items():
        page.fill(f"#upload [name={field}]", text)
    page.click("#upload [type=submit]")


def settled(page: Any) -> None:
    """Until every panel has its answer."""
    expect(page.locator("#about")).to_be_visible()
    expect(page.locator("[aria-busy]")).to_have_count(0)
    expect(page.locator("#audience .size")).to_be_visible()


@pytest.fixture
def known(visit: Callable[..., Any]) -> dict[str, Any]:
    """A new song of the catalogue."""
    songs = asked(visit(), "songs?limit=200")["songs"]
    return next(song for song in songs if not song["accepted"])


def painted(page: Any, canvas: str) -> int:
    """How many different colours a canvas shows."""
    count = """canvas => { const {width, height} = canvas;
        return new Set(new Uint32Array(canvas.getContext("2d").getImageData(0, 0, width, height).data.buffer)).size }"""
    return page.locator(canvas).evaluate(count)


# ----------------------------------------------------------------------------------------------- a song and its results


def test_an_uploaded_song_comes_back_with_its_audience(visit: Callable[..., Any]) -> None:
    page = visit()
    expect(page.locator("#empty")).to_contain_text("No song is chosen yet")
    before = asked(page, "model")["accepted_songs"]
    send(page, wave(), title="Rising tone", artist_id="somebody", genres="folk,  rock", language="en", lyrics="la la")
    expect(page.locator("#song-h")).to_have_text("Rising tone")
    settled(page)
    expect(page).to_have_title("Rising tone · FirstPlay")
    song = asked(page, "songs/" + page.evaluate("location.hash").split("=")[1])
    given = [song[name] for name in ("title", "artist_id", "genres", "language", "lyrics")]
    assert given == ["Rising tone", "somebody", ["folk", "rock"], "en", "la la"]
    expect(page.locator("#song .chip", has_text="uploaded")).to_be_visible()
    assert painted(page, ".wave") > 1 and painted(page, ".tones") > 20
    expect(page.locator("#song .bars li")).to_have_count(min(8, len(song["guessed"])))
    assert page.locator("#similar .rows > li").count() > 5 and page.locator("#audience tbody").count() > 0
    expect(page.locator("#known li").first).to_contain_text("Rising tone")
    expect(page.locator("#model")).to_contain_text(f"{before + 1} uploaded")
    until(page, "document.querySelector('#song audio').duration > 3.9")
    assert page.input_value("#upload [name=title]") == "", "the form is free for the next"


def test_a_dropped_file_is_taken(visit: Callable[..., Any]) -> None:
    page = visit()
    drop = """zone => { const data = new DataTransfer(); data.items.add(new File(["abc"], "dropped.wav"));
        zone.dispatchEvent(new DragEvent("drop", {dataTransfer: data, bubbles: true, cancelable: true})) }"""
    page.locator("#upload .zone").evaluate(drop)
    expect(page.locator("#zone-name")).to_have_text("dropped.wav")
    page.click("#zone-clear")
    expect(page.locator("#zone-name")).to_contain_text("Drop a recording")
    page.locator("header").evaluate(drop)
    expect(page.locator("#zone-name")).to_contain_text("Drop a recording")
    assert page.evaluate("document.querySelector('#upload [name=audio]').files.length") == 0


def test_a_known_song_shows_what_the_service_answers(visit: Callable[..., Any], known: dict[str, Any]) -> None:
    page, name = visit(), known["title"] or f"Untitled ({known['song_id']})"
    page.fill("#known input", known["song_id"])
    page.locator("#known li button", has_text=name).first.click()
    expect(page.locator("#song-h")).to_have_text(name)
    settled(page)
    expect(page.locator("#known [aria-current=true]")).to_contain_text(name)
    similar = asked(page, f"songs/{known['song_id']}/similar?k=20")["similar"]
    shown = page.locator("#similar .rows .figure").all_inner_texts()
    assert shown == [f"{row['score']:.3f}" for row in similar]
    users = [row["user_id"] for row in asked(page, f"songs/{known['song_id']}/audience?budget=50")["users"]]
    assert page.locator("#audience tbody button").all_inner_texts() == users
    clusters = asked(page, f"songs/{known['song_id']}/clusters")
    expect(page.locator(".map .point")).to_have_count(len(clusters["points"]))
    expect(page.locator(".legend button")).to_have_count(len(clusters["centroids"]))
    page.reload()
    expect(page.locator("#song-h")).to_have_text(name)  # the address holds the choice


def test_the_audience_follows_way_budget_and_gate(visit: Callable[..., Any], known: dict[str, Any]) -> None:
    page = visit(known["song_id"])
    settled(page)
    path = f"songs/{known['song_id']}/audience"
    page.fill("#audience [name=budget]", "7")
    for mode in asked(page, "model")["modes"]:
        page.select_option("#audience [name=mode]", mode)
        users = [row["user_id"] for row in asked(page, f"{path}?mode={mode}&budget=7")["users"]]
        expect(page.locator("#audience tbody button")).to_have_text(users)
        expect(page.locator("#audience .size")).to_have_text(f"{len(users)} of at most 7 users")
    page.select_option("#audience [name=mode]", "taste")
    page.check("#audience [name=gate]")
    gated = [row["user_id"] for row in asked(page, f"{path}?mode=taste&budget=7&gate=true")["users"]]
    expect(page.locator("#audience tbody button")).to_have_text(gated)
    page.fill("#audience [name=budget]", "0")
    expect(page.locator("#budget-note")).to_contain_text("whole number from 1 to")
    page.locator("#known li button").last.click()  # another song
    expect(page.locator("#budget-note")).to_be_hidden()
    expect(page.locator("#audience .size")).to_contain_text("of at most 50 users")


def test_the_audience_is_of_users_for_whom_a_condition_holds(visit: Callable[..., Any], known: dict[str, Any]) -> None:
    page, where = visit(known["song_id"], refused="422"), 'member_days < 300 and country != "US"'
    settled(page)
    example = asked(page, "model")["conditions"]["users"]["example"]
    expect(page.locator("#audience [name=where]")).to_have_attribute("placeholder", example)
    assert 0 < asked(page, f"songs/{known['song_id']}/audience?users_where={quote(example)}")["users_total"] < 120
    page.fill("#audience [name=where]", where)
    page.press("#audience [name=where]", "Enter")
    answer = asked(page, f"songs/{known['song_id']}/audience?budget=50&users_where={quote(where)}")
    expect(page.locator("#audience tbody button")).to_have_text([row["user_id"] for row in answer["users"]])
    above = f"{answer['above_boundary']} of the {answer['users_total']} users of whom it holds are above"
    expect(page.locator("#audience .body")).to_contain_text(above)
    send(page, title="For some", genres="folk")
    expect(page.locator("#song-h")).to_have_text("For some")
    settled(page)
    expect(page.locator("#audience .body")).to_contain_text(f"of the {answer['users_total']} users of whom it holds")
    page.fill("#audience [name=where]", "member_days < ")
    page.locator("#audience [name=where]").blur()
    label = page.locator("#audience label.where").inner_text().strip()
    expect(page.locator("#users-note")).to_have_text(re.compile(f"^“{label}”: not a condition: write comparisons by"))
    expect(page.locator("#said")).to_contain_text("; columns: user_id (text), age_group")
    expect(page.locator("#audience [name=where]")).to_have_attribute("aria-invalid", "true")
    expect(page.locator("#audience .body")).to_have_text("Nothing is shown until the condition can be read.")
    send(page, title="For none", genres="folk")
    expect(page.locator("#upload-trouble")).to_contain_text(f"“{label}”: not a condition")
    page.fill("#audience [name=where]", "")
    page.locator("#audience [name=where]").blur()
    expect(page.locator("#audience .body")).to_contain_text(" of all 120 users are above")
    expect(page.locator("#users-note")).to_be_hidden()
    expect(page.locator("#audience [name=where]")).to_have_attribute("aria-invalid", "false")


def test_similar_songs_are_those_for_which_a_condition_holds(visit: Callable[..., Any], known: dict[str, Any]) -> None:
    page, where = visit(known["song_id"], refused="422"), 'language == "zh" and not ("folk" in genres)'
    settled(page)
    figures, field = page.locator("#similar .rows .figure"), page.locator("#similar [name=where]")

    def scores(song: str, of: str) -> list[str]:
        answer = asked(page, f"songs/{song}/similar?k=20{of}")["similar"]
        return [f"{row['score']:.3f}" for row in answer]

    example = asked(page, "model")["conditions"]["songs"]["example"]
    expect(field).to_have_attribute("placeholder", example)
    assert scores(known["song_id"], f"&where={quote(example)}")
    field.fill(where)
    field.press("Enter")
    held = scores(known["song_id"], f"&where={quote(where)}")
    assert held and held != scores(known["song_id"], "")
    expect(figures).to_have_text(held)
    send(page, title="Filtered at once", genres="folk")  # its own similar songs come with it, and are of all songs
    expect(page.locator("#song-h")).to_have_text("Filtered at once")
    settled(page)
    song = page.evaluate("location.hash").split("=")[1]
    expect(figures).to_have_text(scores(song, f"&where={quote(where)}"))
    field.fill('language == "xx"')
    field.blur()
    expect(page.locator("#similar .body")).to_have_text("It holds of no known song.")
    field.fill('"folk" == genres')
    field.blur()
    label = page.locator("#similar label.where").inner_text().strip()
    told = re.compile(f'^“{label}”: genres holds lists: write "…" in genres; columns: song_id')
    expect(page.locator("#songs-note")).to_have_text(told)
    expect(page.locator("#similar .body")).to_have_text("Nothing is shown until the condition can be read.")
    expect(page.locator("#similar .trouble")).to_have_count(0)
    field.fill("")
    field.blur()
    expect(figures).to_have_text(scores(song, ""))
    expect(page.locator("#songs-note")).to_be_hidden()


def test_a_ranked_audience_says_who_named_a_user_and_what_raised_the_score(
    visit: Callable[..., Any], known: dict[str, Any]
) -> None:
    page = visit(known["song_id"])
    settled(page)
    expect(page.locator("#audience [name=mode] option[value=rank]")).to_contain_text("Ranked by what listeners did")
    page.select_option("#audience [name=mode]", "rank")
    users = asked(page, f"songs/{known['song_id']}/audience?mode=rank&budget=50")["users"]
    expect(page.locator("#audience tbody button")).to_have_text([row["user_id"] for row in users])
    shown = page.locator("#audience .why").all_inner_texts()
    assert len(shown) == len(users) and any(row["raised_by"] for row in users)
    widths = "all => all.map((one) => parseFloat(one.style.width))"
    bars = page.locator("#audience tbody .bar span").evaluate_all(widths)
    assert bars[0] == 100 > bars[-1] and bars == sorted(bars, reverse=True), "log-odds may be below 0"
    channels = {"i2i2u": "I2I2U", "taste": "taste", "cat": "CAT", "boundary": "boundary"}
    for text, row in zip(shown, users, strict=True):
        named = ", ".join(f"{channels[one['channel']]} (place {one['rank']})" for one in row["named_by"])
        assert f"named by {named}" in text and "listened to " in text
        assert all(f"{one['words']} (" in text for one in row["raised_by"]), text
        assert ("raised by" in text) == bool(row["raised_by"]) and "undefined" not in text
    page.select_option("#audience [name=mode]", "taste")
    expect(page.locator("#audience .why", has_text="named by")).to_have_count(0)


def test_a_song_is_uploaded_with_a_ranked_audience(visit: Callable[..., Any], known: dict[str, Any]) -> None:
    page = visit(known["song_id"])
    settled(page)
    page.select_option("#audience [name=mode]", "rank")
    send(page, title="Ranked at once", genres="folk")
    expect(page.locator("#song-h")).to_have_text("Ranked at once")
    settled(page)
    expect(page.locator("#audience [name=mode]")).to_have_value("rank")
    expect(page.locator("#audience .why", has_text="named by").first).to_be_visible()


@pytest.mark.parametrize("mode", ["i2i2u", "boundary", "rank"])
def test_the_audience_is_saved_as_a_table(visit: Callable[..., Any], known: dict[str, Any], mode: str) -> None:
    page = visit(known["song_id"])
    settled(page)
    page.select_option("#audience [name=mode]", mode)
    page.fill("#audience [name=budget]", "12")
    named = asked(page, f"songs/{known['song_id']}/audience?mode={mode}&budget=12")["users"]
    expect(page.locator("#audience tbody button")).to_have_text([row["user_id"] for row in named])
    with page.expect_download() as told:
        page.click("#audience >> text=Save as CSV")
    assert told.value.suggested_filename == f"audience of {known['song_id']} ({mode}).csv"
    with Path(told.value.path()).open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(int(row["rank"]), row["user_id"]) for row in rows] == [(row["rank"], row["user_id"]) for row in named]
    for row, one in zip(rows, named, strict=True):
        assert float(row["score"]) == one["score"] and float(row["margin"]) == one["margin"]
        assert all(song["title"] in row["reason"] for song in one["because"])
        assert all(raised["words"] in row["reason"] for raised in one["raised_by"] or ())


def test_the_slider_moves_the_boundary(visit: Callable[..., Any], known: dict[str, Any]) -> None:
    page = visit(known["song_id"])
    settled(page)
    margins = asked(page, f"songs/{known['song_id']}/margins")
    above, liked = page.locator("#boundary dd").first, page.locator("#boundary dd").last
    expect(above).to_have_text(f"{margins['above']:,}")
    slope, intercept = margins["calibration"]
    expect(liked).to_have_text(f"{100 / (1 + np.exp(-intercept)):.1f}\u202f%")
    bars = page.locator(".histogram .above")
    before = bars.count()
    slider = page.locator("#boundary [type=range]")
    slider.focus()
    with page.expect_response(lambda answer: "margin=0." in answer.url and "/audience" in answer.url) as told:
        for _ in range(2):
            page.keyboard.press("PageUp")
    audience = told.value.json()
    assert audience["margin"] == pytest.approx(float(slider.input_value())) and audience["margin"] > 0
    expect(above).to_have_text(f"{audience['above_boundary']:,}")
    assert audience["above_boundary"] <= margins["above"] and bars.count() < before
    assert slider.get_attribute("aria-valuetext").startswith(f"+{audience['margin']:.3f}")
    other = page.locator("#known li button:not([aria-current]) > bdi").last
    name = other.inner_text()
    other.click()
    expect(page.locator("#song-h")).to_have_text(name)
    settled(page)
    assert float(slider.input_value()) == pytest.approx(audience["margin"]), "a setting, which outlives the song"
    chance = 100 / (1 + np.exp(-(slope * audience["margin"] + intercept)))  # the same for every song
    expect(liked).to_have_text(f"{chance:.1f}\u202f%")
    page.go_back()
    settled(page)
    expect(above).to_have_text(f"{audience['above_boundary']:,}")
    page.click("#boundary button")
    expect(above).to_have_text(f"{margins['above']:,}")


def test_feedback_reaches_the_service(visit: Callable[..., Any], known: dict[str, Any]) -> None:
    page = visit(known["song_id"])
    settled(page)
    before = asked(page, "model")["plays_received"]
    page.locator("#boundary [type=range]").focus()
    page.keyboard.press("PageDown")
    for _ in range(30):  # so low a boundary that somebody gets a song
        page.keyboard.press("PageDown")
    user = page.locator("#audience tbody button").first.inner_text()
    page.locator("#audience tbody button").first.click()
    line = page.locator("#recommended .rows > li").first
    expect(page.locator("#recommended h3")).to_have_text(user)
    expect(line.locator(".score .figure")).to_have_text(re.compile(r"[+−]\d"))
    line.get_by_role("button", name="favourited").click()
    expect(line.get_by_role("button", name="favourited")).to_have_attribute("aria-pressed", "true")
    expect(page.locator("#said")).to_contain_text(f"Recorded: {user} favourited")
    expect(page.locator("#model")).to_contain_text(f"{before + 1:,} play")
    assert asked(page, "model")["plays_received"] == before + 1


def test_the_card_says_what_came_of_a_song(visit: Callable[..., Any], live: Any) -> None:
    page = visit()
    send(page, title="Played", genres="folk")
    settled(page)
    card = page.locator("#song .outcomes")
    expect(card.locator(".body")).to_have_text("Nobody has played it yet.")
    song = page.evaluate("location.hash").split("=")[1]
    plays = [{"user_id": f"u0000{n}", "song_id": song, "completed": n < 2} for n in range(3)]
    with live.client() as client:
        client.post("/plays", json={"plays": plays}).raise_for_status()
    page.reload()
    completed = asked(page, f"songs/{song}/outcomes")["completed"]
    rate, low, high, usual = (f"{100 * completed[name]:.1f}" for name in ("rate", "low", "high", "catalogue"))
    told = (
        f"completed by 2 of 3: {rate}\u202f% (90\u202f% interval {low} to {high}\u202f%; the catalogue {usual}\u202f%)"
    )
    expect(card.locator(".body")).to_contain_text("3 users played it")
    expect(card.locator("li")).to_have_text([told, "favourited: no play tells"])
    expect(card.locator(".range")).to_have_count(1)


def test_the_card_advises_where_it_is_known_who_was_shown_a_song(visit: Callable[..., Any], live: Any) -> None:
    with live.client() as client:
        song = client.get("/songs").json()["songs"][-1]["song_id"]
        plays = [{"user_id": f"u{n:05}", "song_id": song, "completed": True, "favourited": n < 9} for n in range(15)]
        client.post("/plays", json={"plays": plays}).raise_for_status()
    page = visit(song)
    settled(page)
    card = page.locator("#song .outcomes")
    expect(card.locator("li")).to_have_count(2)
    expect(card.locator(".advice")).to_be_empty()
    shown = page.get_by_label("Shown to, users")
    for users, word in (("15", "Widen"), ("4000", "Stop"), ("1", "Widen")):  # all who played it were shown it
        shown.fill(users)
        expect(card.locator(".advice strong")).to_contain_text(word)
        chance = asked(page, f"songs/{song}/outcomes?shown={users}")["advice"]
        told = ", ".join(f"{name} {100 * chance[name]:.0f}\u202f%" for name in ("completed", "favourited"))
        expect(card.locator(".advice")).to_contain_text(f"{told}, of {chance['shown']:,} users.")
    shown.fill("1.5")
    expect(shown).to_have_attribute("aria-invalid", "true")
    shown.fill("")
    expect(card.locator(".advice")).to_be_empty()


def test_a_user_opts_out_and_in_again(visit: Callable[..., Any], known: dict[str, Any]) -> None:
    page = visit(known["song_id"])
    settled(page)
    named, list_ = page.locator("#audience tbody button"), page.locator("#who li")
    user = named.first.inner_text()
    before = named.all_inner_texts()
    page.fill("#who input", user)
    expect(list_).to_have_count(1)
    named.first.click()
    out, again = (page.get_by_role("button", name=name, exact=True) for name in ("Opt out", "Opt in again"))
    dialog = page.get_by_role("dialog", name="Opt this user out?")
    out.click()
    expect(dialog).to_contain_text(f"{user} will be in no audience")
    expect(dialog.get_by_role("button", name="Cancel")).to_be_focused()
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    expect(out).to_be_focused()
    assert asked(page, f"users?query={user}")["users"][0]["opted_out"] is False
    out.click()
    dialog.get_by_role("button", name="Opt out").click()
    expect(page.locator("#recommended .body")).to_contain_text("This user has opted out, and gets nothing new.")
    expect(page.locator("#users-h")).to_be_focused()
    expect(list_).to_contain_text("opted out")
    expect(page.locator("#audience tbody button", has_text=user)).to_have_count(0)
    expect(page.locator("#audience .body")).to_contain_text("of all 119 users are above")
    assert asked(page, f"users?query={user}")["users"][0]["opted_out"] is True
    again.press("Enter")
    page.get_by_role("dialog", name="Opt this user in again?").get_by_role("button", name="Opt in again").press("Enter")
    expect(named).to_have_text(before)
    expect(list_).not_to_contain_text("opted out")
    expect(out).to_be_visible()


def test_an_opt_out_that_is_refused(visit: Callable[..., Any]) -> None:
    page = visit(refused="503")
    page.route("**/opt-outs", lambda route: route.fulfill(status=503, json={"detail": "the disk is full"}))
    page.locator("#who li button").first.click()
    page.get_by_role("button", name="Opt out", exact=True).click()
    page.locator("#out-dialog [value=yes]").click()
    expect(page.locator("#recommended").get_by_role("alert")).to_contain_text("The disk is full.")
    expect(page.get_by_role("button", name="Opt out", exact=True)).to_be_focused()


def test_one_thing_sounds_at_a_time(visit: Callable[..., Any]) -> None:
    page = visit()
    send(page, wave(), title="Heard")
    settled(page)
    until(page, "document.querySelector('#song audio').duration > 0")
    page.evaluate("document.querySelector('#song audio').play()")
    buttons = page.locator("#similar button.play")
    if buttons.count() == 0:
        pytest.skip("no similar song has a recording")
    buttons.first.click()
    expect(buttons.first).to_have_attribute("aria-pressed", "true")
    until(page, "document.querySelector('#song audio').paused")
    buttons.first.click()
    expect(buttons.first).to_have_attribute("aria-pressed", "false")
    page.route("**/songs/*/audio*", lambda route: route.fulfill(body=b"no sound"))
    buttons.first.click()
    expect(page.locator("#similar .rows .bad").first).to_have_text("Cannot be played")


def test_without_a_boundary_the_page_says_so(visit: Callable[..., Any], known: dict[str, Any]) -> None:
    page = visit()
    model = asked(page, "model")
    bare = model | {"boundary": None, "clip": None, "modes": [mode for mode in model["modes"] if mode != "boundary"]}
    page.route("**/model*", lambda route: route.fulfill(json=bare))
    page.evaluate("id => location.hash = `song=${id}`", known["song_id"])
    page.reload()
    settled(page)
    expect(page.locator("#boundary")).to_contain_text("The service has no boundary model")
    expect(page.locator("#boundary input")).to_have_count(0)
    expect(page.locator("#zone-hint")).to_contain_text("this model does not hear")
    expect(page.locator("#audience [name=gate]")).to_be_hidden()
    named = page.locator("#audience tbody button")
    user = named.first.inner_text()
    named.first.click()
    expect(page.locator("#recommended")).to_contain_text("The service has no boundary model")
    for change in ("Opt out", "Opt in again"):
        page.get_by_role("button", name=change, exact=True).click()
        page.locator("#out-dialog [value=yes]").click()
        expect(named.filter(has_text=user)).to_have_count(int(change == "Opt in again"))


# ------------------------------------------------------------------------------------------------------------- refusals


def test_a_text_file_is_no_song(visit: Callable[..., Any]) -> None:
    page = visit(refused="422")
    send(page, b"once upon a time " * 100, "story.wav")
    alert = page.locator("#upload").get_by_role("alert")
    expect(alert).to_be_visible()
    expect(alert).to_contain_text("The recording cannot be used")
    expect(page.locator("#upload [type=submit]")).to_be_enabled()
    expect(page.locator("#upload [type=submit]")).to_be_focused()  # the one who sent it by keys goes on from there
    expect(page.locator("#zone-name")).to_have_text("story.wav")


def test_what_cannot_go_is_not_sent(visit: Callable[..., Any]) -> None:
    page = visit()
    page.click("#upload [type=submit]")
    expect(page.locator("#upload").get_by_role("alert")).to_contain_text("nothing to go by")
    page.evaluate("""Object.defineProperty(document.querySelector('#upload form').audio, 'files',
        {value: [{name: 'long.wav', size: 2 ** 40}]})""")
    page.click("#upload [type=submit]")
    alert = page.locator("#upload").get_by_role("alert")
    expect(alert).to_contain_text(re.compile("larger than the service accepts. At most .* and long.wav has"))


@pytest.mark.parametrize(
    ("status", "wait", "words"),
    [
        (413, None, "larger than the service accepts"),
        (429, "7", "Try again in 7 s."),
        (503, None, "cannot take this at the moment"),
        (500, None, "The service failed (500)."),
    ],
)
def test_refusals_are_told_in_words(visit: Callable[..., Any], status: int, wait: str | None, words: str) -> None:
    page = visit(refused=str(status))
    headers = {"Retry-After": wait} if wait else {}
    page.route("**/songs?*", lambda route: route.fulfill(status=status, headers=headers, json={"detail": "why"}))
    send(page, title="Refused")
    alert = page.locator("#upload").get_by_role("alert")
    expect(alert).to_contain_text(words)
    expect(alert).to_contain_text("Why.")
    page.unroute("**/songs?*")
    if status not in (413, 422):
        alert.get_by_role("button", name="Try again").click()
        expect(page.locator("#song-h")).to_have_text("Refused")


def test_a_song_that_is_not_there(visit: Callable[..., Any]) -> None:
    page = visit("no such song", refused="404")
    expect(page.locator("#empty").get_by_role("alert")).to_contain_text("No song")
    expect(page.locator("#about")).to_be_hidden()


def test_the_token_is_asked_for_and_kept(visit: Callable[..., Any], live: Any) -> None:
    page = visit(refused="401", token="")
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("asks for an access token")
    dialog.get_by_label("Token").fill("wrong")
    dialog.get_by_role("button", name="Use it").click()
    expect(dialog).to_contain_text("does not accept this token")
    page.keyboard.press("Escape")
    expect(page.locator("#down").get_by_role("alert")).to_contain_text("asks for an access token")
    page.locator("#down").get_by_role("button", name="Try again").click()
    dialog.get_by_label("Token").fill(live.headers["authorization"].removeprefix("Bearer "))
    page.keyboard.press("Enter")
    expect(page.locator("#known li").first).to_be_visible()
    page.locator("#known li button").first.click()
    settled(page)
    page.reload()
    settled(page)
    expect(dialog).to_be_hidden()


# -------------------------------------------------------------------------------------------- looks, keys, and manners


@pytest.mark.parametrize("size", SIZES, ids=lambda size: str(size[0]))
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_overflows_and_all_can_be_read(
    visit: Callable[..., Any], known: dict[str, Any], size: tuple[int, int], scheme: str
) -> None:
    page = visit(size=size, color_scheme=scheme, reduced_motion="reduce")
    expect(page.locator("#known li").first).to_be_visible()
    assert overflow(page) == []
    send(page, wave(), title="Unbroken" * 30, genres="x" * 80, artist_id="y" * 150)
    settled(page)
    page.select_option("#audience [name=mode]", "rank")
    expect(page.locator("#audience .why", has_text="named by").first).to_be_visible()
    page.locator("#audience tbody button").first.click()
    expect(page.locator("#recommended h3")).to_be_visible()
    assert overflow(page) == []
    assert page.evaluate(PALE) == []
    bright = page.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)")
    assert (sum(bright) / 3 > 200) == (scheme == "light")
    assert page.evaluate("getComputedStyle(document.querySelector('.bar > span')).transitionDuration") == "0s"


def test_figures_below_zero_have_one_sign(visit: Callable[..., Any]) -> None:
    figures = "import('/console/dom.js').then(({score, signed}) => [score(-2.5), signed(-2.5), score(2.5)])"
    assert visit().evaluate(figures) == ["\u22122.500", "\u22122.500", "2.500"]


def test_the_room_is_used(visit: Callable[..., Any], known: dict[str, Any]) -> None:
    wide = visit(known["song_id"])
    settled(wide)
    left, right = ("document.querySelector('#similar .box')", "document.querySelector('#audience')")
    foot = f"{right}.getBoundingClientRect().bottom - {left}.getBoundingClientRect().bottom"
    assert 0 < wide.evaluate(foot) < 30  # the list of similar songs goes down to the foot of its panel
    narrow = visit(size=(768, 900))
    expect(narrow.locator("#known li").first).to_be_visible()
    top = "one => document.querySelector(one).getBoundingClientRect().top"
    tops = narrow.evaluate(f"['header h1', '#token'].map({top})")
    assert abs(tops[0] - tops[1]) < 30  # one row


def overflow(page: Any) -> list[str]:
    """What makes the page scroll sideways, or sticks out of it."""
    return page.evaluate("""() => {
        const root = document.documentElement;
        const wide = root.scrollWidth > root.clientWidth ? [`page ${root.scrollWidth} > ${root.clientWidth}`] : [];
        const out = [...document.querySelectorAll("main *, header *")].filter(node => {
            const box = node.getBoundingClientRect();
            return box.width > 1 && (box.right > root.clientWidth + 1 || box.left < -1)});
        return [...wide, ...out.map(node => node.outerHTML.slice(0, 100))] }""")


PALE = """() => {
    const numbers = text => text.match(/[\\d.]+/g).map(Number);
    const linear = v => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4;
    const light = rgb => rgb.slice(0, 3).reduce((sum, v, n) => sum + linear(v / 255) * [.2126, .7152, .0722][n], 0);
    const ground = node => {
        const rgb = numbers(getComputedStyle(node).backgroundColor);
        return rgb.length < 4 || rgb[3] > 0 ? rgb : node.parentElement ? ground(node.parentElement) : [255, 255, 255]};
    const unseen = ".unseen, option, noscript, noscript *, :disabled";
    const written = node => [...node.childNodes].some(child => child.nodeType === 3 && child.data.trim());
    const ratio = node => {
        const style = getComputedStyle(node);
        const [a, b] = [light(numbers(node instanceof SVGElement ? style.fill : style.color)), light(ground(node))];
        return (Math.max(a, b) + .05) / (Math.min(a, b) + .05)};
    return [...document.querySelectorAll("body *")]
        .filter(node => written(node) && node.checkVisibility() && !node.matches(unseen) && ratio(node) < 4.5)
        .map(node => `${ratio(node)} ${node.outerHTML.slice(0, 80)}`) }"""  # text below WCAG's AA on its ground


def test_all_of_it_by_keyboard(visit: Callable[..., Any], known: dict[str, Any]) -> None:
    page = visit()
    expect(page.locator("#known li").first).to_be_visible()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    tab_to(page, "#upload [name=audio]")
    tab_to(page, "#upload [name=title]")
    page.keyboard.type("By keys")
    page.keyboard.press("Enter")
    expect(page.locator("#song-h")).to_have_text("By keys")
    settled(page)
    expect(page.locator("#song-h")).to_be_focused()  # led to the result
    expect(page.locator("#song")).to_contain_text("No recording")
    tab_to(page, "#audience [name=mode]")
    page.keyboard.press("ArrowDown")
    settled(page)
    tab_to(page, ".map .point")
    first = page.evaluate("document.activeElement.ariaLabel")
    expect(page.locator("#clusters .caption")).to_have_text(first)
    page.keyboard.press("ArrowRight")
    second = page.evaluate("document.activeElement.ariaLabel")
    assert second != first
    expect(page.locator("#clusters .caption")).to_have_text(second)
    tab_to(page, ".legend button")
    page.keyboard.press("Space")
    assert page.locator(".map .dim").count() > 0
    page.keyboard.press("Space")
    tab_to(page, "#boundary [type=range]")
    page.keyboard.press("ArrowRight")
    expect(page.locator("#boundary output")).to_have_text(re.compile(r"^\+0\.0*[1-9]"))
    tab_to(page, "#who input")
    tab_to(page, "#who li button")
    page.keyboard.press("Enter")
    expect(page.locator("#recommended h3")).to_be_visible()
    page.locator(".skip").focus()
    page.keyboard.press("Enter")
    expect(page.locator("#result")).to_be_focused()
    tab_to(page, "#similar .rows")
    expect(page.locator("#song-h")).to_have_text("By keys")


FOCUSED = """selector => {
    const node = document.activeElement;
    const outlined = getComputedStyle(node.closest(".zone") ?? node).outlineStyle !== "none";
    return [outlined || node.matches(".point"), node.matches(selector)] }"""  # a point is drawn larger instead


def tab_to(page: Any, selector: str) -> None:
    """Press Tab until the element has the focus, which must be seen at every stop."""
    for _ in range(150):
        page.keyboard.press("Tab")
        seen, there = page.evaluate(FOCUSED, selector)
        assert seen, f"on the way to {selector}: " + page.evaluate("document.activeElement.outerHTML.slice(0, 200)")
        if there:
            return
    raise AssertionError(f"{selector} cannot be reached by Tab")


def test_play_buttons_keep_their_sign_in_forced_colours(visit: Callable[..., Any], known: dict[str, Any]) -> None:
    page = visit(known["song_id"], forced_colors="active")
    settled(page)
    colours = "button => ['::before', null].map(part => getComputedStyle(button, part).backgroundColor)"
    sign, ground = page.locator("#similar button.play").first.evaluate(colours)
    assert sign != ground


def test_a_title_is_text_whatever_it_holds(visit: Callable[..., Any]) -> None:
    page = visit()
    send(page, title=HOSTILE, artist_id=HOSTILE, genres=HOSTILE, lyrics=HOSTILE, language="<b>")
    expect(page.locator("#song-h")).to_have_text(HOSTILE)
    settled(page)
    expect(page.locator("#known li").first).to_contain_text(HOSTILE)
    expect(page.locator("#song .chip").first).to_have_text(HOSTILE)
    assert page.locator("img").count() == 0 and page.evaluate("window.hit") is None


def test_every_control_has_a_name(visit: Callable[..., Any], known: dict[str, Any]) -> None:
    page = visit(known["song_id"])
    settled(page)
    nameless = """() => [...document.querySelectorAll("button, input, select, textarea, audio, canvas, svg[role]")]
        .filter(node => !(node.matches("button") && node.textContent.trim()))
        .filter(node => !node.labels?.length && !node.ariaLabel).map(node => node.outerHTML.slice(0, 100))"""
    assert page.evaluate(nameless) == []


def test_the_sources_hold_no_way_round() -> None:
    for path in FOLDER.iterdir():
        text = path.read_text("utf-8")
        assert not re.search(
            r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|\bstyle=|\bon\w+=\"", text
        ), path
        hosts = set(re.findall(r"https?://[^\s\"')/]+", text))
        assert hosts <= {"http://www.w3.org"}, path  # the name of SVG, nothing is fetched there
        assert len(text.splitlines()) <= 300, path


def test_a_service_that_has_stopped(visit: Callable[..., Any], live: Any) -> None:
    """The last of the file: nothing serves after it."""
    page = visit(refused="ERR_|Failed to load")
    page.locator("#known li button").first.click()
    settled(page)
    live.process.terminate()
    live.process.wait(60)
    send(page, title="Too late")
    expect(page.locator("#upload").get_by_role("alert")).to_contain_text("cannot be reached")
    page.fill("#audience [name=budget]", "3")
    expect(page.locator("#audience").get_by_role("alert")).to_contain_text("cannot be reached")
    page.locator("#known li button").nth(1).click()
    expect(page.locator("#empty").get_by_role("alert")).to_contain_text("cannot be reached")
    expect(page.locator("#about")).to_be_hidden()
