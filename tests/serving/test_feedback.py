"""The songs and plays that the service received come back as tables, and the next training takes them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from configs.load import command
from configs.serving import FeedbackConfig
from inference.filters import read_exclusions
from serving import feedback_tables as feedback
from serving.database import place_of
from serving.feedback import main
from serving.feedback_tables import audio_name
from serving.store import Play, Store, StoredSong
from tests.serving.test_decoding import encoded, noise

ROOT = Path(__file__).parents[2]
NOON = datetime(2026, 11, 26, 12)
HOSTILE = ["../../outside", "/etc/passwd", "a\0b", "con.flac", ".", "..", "x" * 300, "歌/🎵", "A", "a"]


def song(song_id: str, at: datetime = NOON, **about: Any) -> StoredSong:
    return StoredSong(song_id, about, None, f"{at.isoformat()}+00:00", {}, "encoder")


def export(store: str | Path, out: Path) -> dict[str, pl.DataFrame]:
    main(FeedbackConfig(store=str(store), out=str(out)))
    return {name: pl.read_parquet(out / f"{name}.parquet") for name in ("plays", "i2i_feedback", "songs")}


def test_who_has_opted_out_is_left_out_by_the_next_audiences(place: str, tmp_path: Path) -> None:
    with closing(Store(place)) as store:
        export(place, tmp_path / "none")
        store.set_opt_outs(["u2", "u4", "gone", "u5"], True)
        store.set_opt_outs(["u4"], False)
    export(place, tmp_path / "some")
    for name, users in (("none", []), ("some", [2, 5])):
        path = tmp_path / name / "opted_out.parquet"
        catalogue: Any = SimpleNamespace(
            songs=pl.DataFrame({"song_id": ["s0"]}),
            n_users=6,
            users=pl.DataFrame({"user_id": [f"u{i}" for i in range(6)]}),
        )
        found = read_exclusions(str(path), catalogue, np.array([0]))
        assert sorted(found.users.tolist()) == users and found.unknown["user_id"] == ["gone"][: len(users)]


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


# -------------------------------------------------------------------------------------------------- the tables


def test_tables_are_what_the_store_holds(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Against a count in Python, over several pages of rows."""
    monkeypatch.setattr(feedback, "ROWS", 70)
    monkeypatch.setattr(feedback, "SONGS", 2)
    rng = np.random.default_rng(0)
    given = [
        Play(
            f"u{rng.integers(9)}",
            f"s{rng.integers(5)}",
            NOON + timedelta(milliseconds=int(rng.integers(10**9))),
            *(bool(flag) for flag in rng.random(4) < 0.4),
            source_song_id=f"s{rng.integers(5)}" if rng.random() < 0.7 else None,
        )
        for _ in range(500)
    ]
    told = {"title": "One", "genres": ["folk"], "tags": [], "language": "en", "artist_id": "a7", "lyrics": "la"}
    with closing(Store(place)) as store:
        store.add_plays(given)
        store.add_songs(
            [
                (song("full", **told, released_at="2026-11-20"), b"FLAC of it"),
                (song("bare"), None),
                (song("gone"), b"x"),
            ]
        )
        store.add_songs([(song(f"more {number}", NOON + timedelta(hours=number)), None) for number in range(4)])
        store.delete_song("gone")
    tables = export(place, tmp_path / "out")

    names = ["user_id", "song_id", "played_at", "completed", "favourited", "disliked", "skipped"]
    both = sum(bool(play.skipped and play.completed) for play in given)
    given = [replace(play, completed=False) if play.skipped else play for play in given]
    wanted = pl.DataFrame([[getattr(play, name) for name in names] for play in given], schema=names, orient="row")
    assert_frame_equal(tables["plays"], wanted.cast({"played_at": pl.Datetime("ms")}))

    pairs = [(play.source_song_id, play.song_id, play) for play in given if play.source_song_id]
    plays = Counter(pair[:2] for pair in pairs)
    completes = Counter(pair[:2] for pair in pairs if pair[2].completed)
    favourites = Counter(pair[:2] for pair in pairs if pair[2].favourited)
    rows = [(*pair, plays[pair], completes[pair], favourites[pair]) for pair in sorted(plays)]
    assert tables["i2i_feedback"].rows() == rows and len(rows) == 25
    assert tables["i2i_feedback"].columns[2:] == ["plays", "completes", "favourites"]

    empty = dict.fromkeys(told)
    wanted_songs = [
        {"song_id": "full", **told, "released_at": datetime(2026, 11, 20), "audio_path": audio_name("full")}
    ]
    wanted_songs += [{"song_id": "bare", **empty, "released_at": NOON, "audio_path": None}]
    later = [(f"more {n}", NOON + timedelta(hours=n)) for n in range(4)]
    wanted_songs += [{"song_id": name, **empty, "released_at": at, "audio_path": None} for name, at in later]
    assert tables["songs"].to_dicts() == wanted_songs
    assert (tmp_path / "out" / audio_name("full")).read_bytes() == b"FLAC of it"
    assert files(tmp_path / "out") == {
        "manifest.json", "plays.parquet", "i2i_feedback.parquet", "songs.parquet", "opted_out.parquet",
        audio_name("full"),
    }  # fmt: skip
    assert both and f"note: {both} plays were told as skipped and completed" in capsys.readouterr().out
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest == {"kind": "feedback", "store": place_of(place), "plays": 500, "i2i_feedback": 25,
                        "plays_skipped_and_completed": both,
                        "songs": 6, "songs_with_audio": 1, "opted_out": 0}  # fmt: skip


def test_what_is_not_known_of_a_play_stays_unknown(place: str, tmp_path: Path) -> None:
    """It is no outcome of a recommendation either; but who skipped a song did not complete it."""
    given: list[dict[str, bool]] = [
        {}, {}, {"completed": True}, {"completed": False}, {"favourited": True}, {"skipped": True}, {"disliked": False}
    ]  # fmt: skip
    with closing(Store(place)) as store:
        store.add_plays([Play("u", "s", NOON + timedelta(minutes=n), source_song_id="t", **marks)
                         for n, marks in enumerate(given)])  # fmt: skip
        store.add_plays([Play("u", "s", source_song_id="untold")])
    tables = export(place, tmp_path / "out")
    plays = tables["plays"].head(len(given))
    assert plays["completed"].to_list() == [None, None, True, False, None, False, None]
    for name in ("favourited", "disliked", "skipped"):
        assert plays[name].to_list() == [marks.get(name) for marks in given]
    assert tables["i2i_feedback"].rows() == [("t", "s", 4, 1, 1)], "three of its seven plays, and all of `untold`"


def test_no_song_is_released_after_its_first_play(place: str, tmp_path: Path) -> None:
    """Neither one without a date, which came after it, nor one whose given day is later; others keep theirs."""
    songs = [song("late"), song("given", released_at="2026-11-25"), song("told", released_at="2026-11-20"), song("new")]
    played = {"late": NOON - timedelta(days=2), "given": NOON - timedelta(days=2), "told": NOON, "other": NOON}
    with closing(Store(place)) as store:
        store.add_songs([(one, None) for one in songs])
        for song_id, first in played.items():
            store.add_plays([Play("u", song_id, first + timedelta(hours=3)), Play("v", song_id, first)])
    released = export(place, tmp_path / "out")["songs"].select("song_id", "released_at")
    first = NOON - timedelta(days=2)
    assert dict(released.rows()) == {"late": first, "given": first, "told": datetime(2026, 11, 20), "new": NOON}


def test_an_empty_store_gives_empty_tables_of_the_same_types(place: str, tmp_path: Path) -> None:
    Store(place).close()
    empty = export(place, tmp_path / "out")
    with closing(Store(place)) as store:
        store.add_plays([Play("u", "s", completed=False, source_song_id="t")])
        store.add_songs([(song("a"), None)])
    full = export(place, tmp_path / "out")
    assert [table.height for table in empty.values()] == [0, 0, 0]
    assert [table.height for table in full.values()] == [1, 1, 1], "an earlier export is replaced"
    assert all(empty[name].schema == full[name].schema for name in full)


def test_hostile_ids_name_no_file(tmp_path: Path) -> None:
    with closing(Store(tmp_path / "deep" / "store")) as store:
        store.add_songs([(song(name), name.encode()) for name in HOSTILE])
    out = tmp_path / "deep" / "out"
    songs = export(tmp_path / "deep" / "store", out)["songs"]
    assert songs["song_id"].to_list() == HOSTILE
    for name, path in songs.select("song_id", "audio_path").iter_rows():
        assert (out / path).read_bytes() == name.encode()
        assert path.isascii() and path.removeprefix("audio/").removesuffix(".flac").isalnum()
    assert len({path.lower() for path in songs["audio_path"]}) == len(HOSTILE), "also where case is not told apart"
    assert {path.name for path in tmp_path.rglob("*")} == {
        "deep", "store", "songs.sqlite", "out", "manifest.json", "audio",
        *(f"{name}.parquet" for name in ("plays", "songs", "i2i_feedback", "opted_out")),
        *(Path(path).name for path in songs["audio_path"]),
    } | {path.name for path in (tmp_path / "deep" / "store").iterdir()}  # fmt: skip


def test_the_service_goes_on_meanwhile(place: str, tmp_path: Path) -> None:
    """What was acknowledged before is in the tables; what comes meanwhile does not tear them."""
    stop = threading.Event()
    with closing(Store(place)) as store:
        store.add_plays([Play("first", "s", None, True, source_song_id="t")] * 1000)

        def write() -> None:
            number = 0
            while not stop.is_set():
                store.add_songs([(song(f"s{number}"), b"flac")])
                store.add_plays([Play("later", "s", None, True, source_song_id="t")])
                number += 1

        writer = threading.Thread(target=write)
        writer.start()
        try:
            while store.counts()["plays"] < 1010:
                pass
            environment = {**os.environ, "PYTHONPATH": str(ROOT)}
            out = tmp_path / "out"
            line = [sys.executable, "-m", "serving.feedback", f"store={place}", f"out={out}"]
            before = store.counts()
            done = subprocess.run(line, cwd=ROOT, env=environment, capture_output=True, text=True)
            after = store.counts()
        finally:
            stop.set()
            writer.join()
    assert done.returncode == 0, done.stderr
    plays, pairs, songs = (pl.read_parquet(out / f"{name}.parquet") for name in ("plays", "i2i_feedback", "songs"))
    assert before["plays"] <= plays.height <= after["plays"] and after["plays"] > before["plays"], "it went on"
    assert before["songs"] <= songs.height <= after["songs"] and songs["audio_path"].null_count() == 0
    assert pairs["plays"].to_list() == [plays.height], "both are of one moment"
    assert done.stdout.startswith(f"{out}: {plays.height:,} plays, 1 pairs") and done.stdout.count("\n") == 1
    told = done.stdout + done.stderr + (out / "manifest.json").read_text()
    assert not any(word in told for word in ("ss:word", "%40")), "the password"


@pytest.mark.parametrize(
    ("given", "word"),
    [
        (["store=absent", "out=o"], "folder not found: absent (expected a store folder"),
        (["store=store", "out=store"], "not an earlier feedback folder"),
        (["store=store", "out=o", "form=csv"], "form"),
        (["store=store"], "out"),
    ],
)
def test_wrong_options_are_one_line(
    tmp_path: Path, given: list[str], word: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Store(tmp_path / "store").close()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as caught:
        command(main, FeedbackConfig, "", given)
    error = capsys.readouterr().err.splitlines()
    assert caught.value.code == 2 and error[-1].startswith("error: ") and word in error[-1]
    assert os.listdir(tmp_path) == ["store"]


def test_a_full_disk_is_not_told_as_the_stores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    with closing(Store(tmp_path / "store")) as store:
        store.add_songs([(song("a"), b"flac")])
    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space left") as caught:
        export(tmp_path / "store", tmp_path / "out")
    assert type(caught.value) is OSError and os.listdir(tmp_path) == ["store"], "nothing half-written"


def test_memory_does_not_grow_with_the_plays(tmp_path: Path) -> None:
    """300,000 plays take no more than 50,000 do."""
    most = []
    for rows in (50_000, 300_000):
        with closing(Store(tmp_path / str(rows))) as store:
            plays = [Play(f"user {n % 5000}", f"song {n % 900}", NOON, True, source_song_id="t") for n in range(10_000)]
            for _ in range(0, rows, 10_000):
                store.add_plays(plays)
        line = [sys.executable, "-m", "serving.feedback", f"store={tmp_path / str(rows)}", f"out={tmp_path / 'out'}"]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "POLARS_MAX_THREADS": "1"}
        process = subprocess.Popen(line, cwd=ROOT, env=environment, stderr=subprocess.DEVNULL)
        _, status, used = os.wait4(process.pid, 0)
        assert status == 0
        most.append(used.ru_maxrss / 1024)
        assert pl.scan_parquet(tmp_path / "out" / "plays.parquet").select(pl.len()).collect().item() == rows
    assert most[1] - most[0] < 30, f"MB: {most}"


# ------------------------------------------------------------------------------------------ the next training's input


def test_the_next_training_takes_them(
    tmp_path: Path,
    write_dataset: Callable[..., Path],
    prepare: Callable[..., Path],
    catalogue_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As docs/data.md joins them: songs and plays are there, and what users made of a recommendation decides a pair."""
    ids = pl.read_parquet(catalogue_folder / "songs.parquet")["song_id"]
    mined = pl.read_parquet(catalogue_folder / "pairs.parquet").select("source", "target")
    liked, refused = ([ids[song] for song in pair] for pair in mined.head(2).iter_rows())
    with closing(Store(tmp_path / "store")) as store:
        new = [
            (song(f"new {n}", title=f"New {n}", genres=["genre0"]), encoded(noise(2, seed=n), "flac") if n else None)
            for n in range(4)
        ]
        store.add_songs(new)
        for pair, good in ((liked, True), (refused, False)):
            plays = [Play(f"u{n:02d}", pair[1], None, good, good, False, not good, pair[0]) for n in range(40)]
            store.add_plays(plays)
        store.add_plays([Play("u01", "new 1"), Play("u02", "new 1", favourited=True), Play("stranger", "new 1")])
    write_dataset(tmp_path / "my_music")
    export(tmp_path / "store", tmp_path / "feedback")
    page = (ROOT / "docs" / "data.md").read_text("utf-8").split("## Exporting the service's songs and plays")[1]
    monkeypatch.chdir(tmp_path)
    exec(page.split("```python\n")[1].split("```")[0], {})
    made = prepare(tmp_path / "my_music_2", tmp_path / "catalogue", "split.cutoff=2026-02-18")

    manifest = json.loads((made / "manifest.json").read_text())
    counts, pairs = manifest["counts"], manifest["pairs"]
    assert counts["songs"] == 64 and counts["songs_with_audio"] == 3
    assert pairs["posterior"] == "feedback_and_later_plays" and pairs["observed"] > 2 and pairs["dropped"] >= 1
    songs = pl.read_parquet(made / "songs.parquet")
    kept = pl.read_parquet(made / "pairs.parquet").select("source", "target").rows()
    of = {name: row for row, name in enumerate(songs["song_id"])}
    assert (of[liked[0]], of[liked[1]]) in kept and (of[refused[0]], of[refused[1]]) not in kept
    arrived = songs.filter(pl.col("song_id").str.starts_with("new"))
    assert arrived["split"].to_list() and not (arrived["split"] == "warm").any(), "new songs are cold"
    cold = pl.read_parquet(made / "cold_plays.parquet").filter(pl.col("song") == of["new 1"])
    assert cold.height == 2 and cold["favourited"].sum() == 1 and cold["completed"].null_count() == 2
    assert set(manifest["rejected"]) <= {"plays_of_unknown_users", "plays_before_release"}
    assert manifest["rejected"]["plays_of_unknown_users"]["examples"] == ["stranger"]
