"""docs/tutorial.md works as it stands: every block is run, in an empty folder, and does what the page says."""

from __future__ import annotations

import json
import os
import re
import runpy
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "tutorial.md"
pytestmark = pytest.mark.filterwarnings("ignore:.*found in sys.modules")
COMMAND = re.compile(r"python -m [^&|<>;$]*")


def blocks(page: str) -> list[tuple[str, str]]:
    """(language, text) of each fenced block."""
    return re.findall(r"^```(\w+)\n(.*?)^```$", page, re.M | re.S)


def run_shell(text: str) -> None:
    """A block of commands. Ours run in this process, as `python -m` would run them, but for the seconds in which torch
    is imported each time; what needs a shell is given to one."""
    lines = text.replace("\\\n", " ").splitlines()
    while lines and COMMAND.fullmatch(lines[0]):
        module, *options = shlex.split(lines.pop(0))[2:]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", [module, *options])
            try:
                runpy.run_module(module, run_name="__main__", alter_sys=True)
            except SystemExit as ended:
                raise AssertionError(f"{module} ended with {ended.code}") from None
    if lines:
        subprocess.run(["bash", "-euc", "\n".join(lines)], check=True, timeout=200)


def end(process: int, seconds: float = 30) -> None:
    """Kill a process that does not end by itself."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        try:
            os.kill(process, 0)
        except ProcessLookupError:
            return
        time.sleep(0.1)
    os.kill(process, signal.SIGKILL)
    raise AssertionError("the service did not end")


@pytest.fixture(scope="module")
def walked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, dict[str, Any]]]:
    """The folder in which all was run, and what the blocks in Python have left in their session."""
    at, session = tmp_path_factory.mktemp("tutorial"), {"__name__": "__main__"}
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(at)
        patch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
        patch.setenv("PYTHONPATH", str(ROOT))
        patch.delenv("FIRSTPLAY_TOKEN", raising=False)
        try:
            for language, text in blocks(PAGE.read_text("utf-8").replace("8000", str(port))):
                if language == "python":
                    exec(compile(text, str(PAGE), "exec"), session)
                else:
                    run_shell(text)
            yield at, session
        finally:
            if (at / "serving.pid").exists():
                end(int((at / "serving.pid").read_text()))


def shown_counts(name: str) -> dict[str, int]:
    """The counts that the page shows of what `prepare` says of a folder."""
    shown = PAGE.read_text("utf-8").split(f"    {name}: split by time\n")[1].split("    pairs:")[0]
    return {line.strip(): int(n.replace(",", "")) for line, n in re.findall(r"^ {6}(\S.*?) {2,}([\d,]+)$", shown, re.M)}


def shown_pairs(name: str) -> dict[str, str]:
    """What the page shows of the folder's song pairs."""
    line = PAGE.read_text("utf-8").split(f"    {name}: split by time\n")[1].split("    pairs:")[1].split("…")[0]
    return dict(part.split() for part in line.strip(" ,").split(", "))


def counts(folder: Path) -> dict[str, int]:
    found = json.loads((folder / "manifest.json").read_text())
    return {name.replace("_", " "): n for name, n in found["counts"].items()}


def test_the_raw_files_become_a_catalogue(walked: tuple[Path, dict[str, Any]]) -> None:
    at, _ = walked
    assert pl.read_csv(at / "files" / "songs.csv").height == len(list((at / "files" / "audio").iterdir())) == 160
    assert pl.read_parquet(at / "my_music" / "songs.parquet").height == 160
    assert pl.read_parquet(at / "my_music" / "plays.parquet")["completed"].mean() == pytest.approx(0.5, abs=0.05)
    shown = shown_counts("runs/catalogue")
    assert len(shown) == 8 and shown.items() <= counts(at / "runs" / "catalogue").items()
    manifest = json.loads((at / "runs" / "catalogue" / "manifest.json").read_text())
    shown = shown_pairs("runs/catalogue")
    assert len(shown) == 5 and shown == {name: str(manifest["pairs"][name]) for name in shown}
    assert not manifest["rejected"]


def test_what_is_trained_finds_listeners(walked: tuple[Path, dict[str, Any]]) -> None:
    at, _ = walked
    assert pl.read_parquet(at / "runs" / "audience" / "audience.parquet").height == 16 * 10
    assert "<html" in (at / "runs" / "evaluation" / "report.html").read_text("utf-8")
    rows = json.loads((at / "runs" / "evaluation" / "metrics.json").read_text())["audience"]
    found = {row["method"]: row["target_users_found@10"] for row in rows}
    shown = set(re.findall(r"^    (\S.*?) {2,}\d+ {2,}", PAGE.read_text("utf-8").split("## 5.")[1], re.M))
    assert {"content kNN", "FirstPlay CAT"} < shown <= set(found), "methods of the page are methods of the command"
    assert found["FirstPlay I2I2U"] > 2 * max(found["random"], found["most active users"])


def test_a_song_finds_its_fans_by_its_sound(walked: tuple[Path, dict[str, Any]]) -> None:
    _, session = walked
    song = session["song"]
    assert song["guessed"][0]["label"] == "techno" and song["seconds"] == 3
    users = [int(one["user_id"].split()[1]) for one in song["audience"]["users"]]
    assert len(users) == 10 and sum(user % 4 == 1 for user in users) >= 7, "chance: 2.5"
    assert all(one["because"] for one in song["audience"]["users"])


def test_songs_are_searched_by_words_and_by_others(walked: tuple[Path, dict[str, Any]]) -> None:
    at, session = walked
    by_words, by_songs = session["answers"]
    assert (by_words["by"], by_songs["by"]) == ("text", "songs") and len(by_songs["songs"]) == 3
    for found in (by_words, by_songs):
        techno = [one["genres"] == ["techno"] or one["song_id"] == "last train" for one in found["songs"]]
        assert sum(techno) >= 2, "by chance less than one"
    table = pl.read_parquet(at / "runs" / "search" / "results.parquet")
    assert table["query"].unique(maintain_order=True).to_list() == [1, 2] and table.height == 40


def test_what_listeners_did_is_the_next_input(walked: tuple[Path, dict[str, Any]]) -> None:
    at, session = walked
    assert session["taken"] == {"accepted": 19, "new_users": 0, "unknown_users": 0, "rejected": []}
    assert 1 <= len(session["mine"]["songs"]) <= 3 and session["mine"]["considered"] == 32
    assert pl.read_parquet(at / "feedback" / "plays.parquet").height == 19
    pairs = pl.read_parquet(at / "feedback" / "i2i_feedback.parquet")
    assert pairs["source_song_id"].unique().to_list() == ["1"] and pairs["plays"].to_list() == [3, 3, 3]

    catalogue = at / "runs" / "catalogue_2"
    shown = shown_counts("runs/catalogue_2")
    assert len(shown) == 4 and shown.items() <= counts(catalogue).items()
    pairs, shown = json.loads((catalogue / "manifest.json").read_text())["pairs"], shown_pairs("runs/catalogue_2")
    assert pairs["posterior"] == shown["posterior"] == "feedback_and_later_plays"
    assert pairs["mined"] == int(shown["mined"]) and pairs["kept"] == int(shown["kept"])
    songs = pl.read_parquet(catalogue / "songs.parquet").with_row_index("song")
    new = songs.filter(pl.col("song_id") == "last train")
    assert new["audio_length"][0] > 0 and new["split"][0].startswith("cold")
    assert pl.read_parquet(catalogue / "cold_plays.parquet").filter(pl.col("song") == new["song"][0]).height == 10


def test_pages_that_the_documents_name_are_there() -> None:
    """Every relative link of README.md, CONTRIBUTING.md and docs/ leads to a file, and to a heading in it."""
    broken, seen = [], 0
    for page in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")):
        for target in re.findall(r"(?:\]\(|src=\")([^)\"\s]+)", page.read_text("utf-8")):
            if "://" in target:
                continue
            seen += 1
            name, _, anchor = target.partition("#")
            file = page.parent / name if name else page
            if not file.is_file() or (anchor and anchor not in anchors(file.read_text("utf-8"))):
                broken.append(f"{page.name}: {target}")
    assert broken == [] and seen > 25


def anchors(page: str) -> set[str]:
    """Headings as a link has them: small letters and hyphens."""
    titles = re.findall(r"^#+ (.*)$", page, re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}
