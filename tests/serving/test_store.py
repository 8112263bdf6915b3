"""What the store has acknowledged is there: after kill -9, on a full disk, with many threads; and damage is refused."""

from __future__ import annotations

import os
import random
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
import tracemalloc
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from configs.errors import UserError
from serving import store as stores
from serving.database import StoreError, connect, reading
from serving.store import Exists, KeyReused, Play, Store, StoredSong

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{Path(__file__).parent}"}  # of other processes
ODD_IDS = ["../../etc/passwd", "a/b", "歌 🎵", "", " ", "nul\0byte", "'; DROP TABLE songs; --", "new\nline", "%_?#"]


def song(song_id: str, seed: int = 0, **changes: Any) -> StoredSong:
    about = {"title": f"Song {song_id}", "lyrics": "la\nla 歌", "genres": ["folk", "blues"], "language": None}
    rng = np.random.default_rng(seed)
    features = {"clip_audio": rng.standard_normal(8).astype(np.float32), "text": np.full(4, np.nan, np.float32)}
    return replace(StoredSong(song_id, about, 2.5, "2026-11-26T10:00:00+00:00", features, "encoder1"), **changes)


def same(one: StoredSong, other: StoredSong) -> bool:
    """Equal in everything, features bit by bit."""
    np.testing.assert_equal(one.features, other.features)
    assert all(vector.dtype == np.float32 for vector in one.features.values())
    return replace(one, features={}) == replace(other, features={})


def ids(store: Store) -> list[str]:
    return [one.song_id for _, one in store.songs()]


def whole(folder: Path) -> bool:
    with closing(sqlite3.connect(folder / "songs.sqlite")) as connection:
        return connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with closing(Store(tmp_path / "store")) as opened:
        yield opened


# ----------------------------------------------------------------------------------------- what goes in comes out


def test_songs_come_back_as_they_went_in(store: Store, tmp_path: Path) -> None:
    given = [song(name, seed) for seed, name in enumerate(["b", "a", *ODD_IDS])]
    given += [song("bare", about={}, seconds=None, features={}, made_by="")]
    store.add_songs([(one, f"flac of {number}".encode() if number % 2 else None) for number, one in enumerate(given)])
    for opened in (store, None):
        if opened is None:
            store.close()
            opened = Store(tmp_path / "store")
        found = [one for _, one in opened.songs()]
        assert len(found) == len(given) and all(map(same, found, given)), "in the order of arrival"
        assert [opened.audio(one.song_id) for one in given] == [
            f"flac of {number}".encode() if number % 2 else None for number in range(len(given))
        ]
        assert opened.audio("absent") is None
        assert opened.counts() == {"songs": len(given), "plays": 0}
    opened.close()


def test_a_vector_may_lie_in_memory_as_it_likes(store: Store) -> None:
    table = np.arange(12, dtype=np.float64).reshape(3, 4)
    store.add_songs([(song("a", features={"text": table[:, 1]}), None)])
    assert next(store.songs())[1].features["text"].tolist() == [1, 5, 9]


def test_deleted_songs_are_gone_and_their_plays_stay(store: Store) -> None:
    store.add_songs([(song(name), b"flac") for name in "abc"])
    store.add_plays([Play("u", "c")])
    assert store.delete_song("c") and not store.delete_song("c")
    assert ids(store) == ["a", "b"] and store.audio("c") is None
    assert store.counts() == {"songs": 2, "plays": 1}
    store.add_songs([(song("c"), None)])
    assert ids(store) == ["a", "b", "c"] and store.audio("c") is None, "not the recording of the old one"


def test_a_song_added_while_the_last_was_deleted_is_streamed(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stores, "SONGS", 1)
    store.add_songs([(song("a"), None), (song("b"), None)])
    stream = store.songs()
    assert [next(stream)[1].song_id, next(stream)[1].song_id] == ["a", "b"]
    store.delete_song("b")
    store.add_songs([(song("c"), None)])
    assert [one.song_id for _, one in stream] == ["c"]


def test_plays_come_back_as_they_went_in(store: Store) -> None:
    noon = datetime(2026, 11, 26, 12, 0, 0, 123456, tzinfo=UTC)
    given = [
        Play("u", "s", noon, completed=True, source_song_id="t"),
        Play("v", "s", noon.replace(tzinfo=None), favourited=True),
        Play("v", "s", noon.astimezone(timezone(timedelta(hours=-9))), disliked=True),
        Play("w", "s", datetime(1969, 1, 1, tzinfo=UTC), skipped=True),
    ]
    store.add_plays(given)
    before = datetime.now(UTC)
    store.add_plays([Play("x", "s")])
    found = list(store.plays())
    assert [number for number, _ in found] == [1, 2, 3, 4, 5]
    assert [play for _, play in found[:4]] == [replace(play, played_at=noon) for play in given[:3]] + given[3:]
    arrived = found[4][1].played_at
    assert arrived is not None and before <= arrived <= datetime.now(UTC) and arrived.tzinfo is UTC
    assert [number for number, _ in store.plays(after=3)] == [4, 5]
    assert store.counts()["plays"] == 5


def test_features_of_another_encoder(store: Store) -> None:
    store.add_songs([(song(name, 1), None) for name in "abc"])
    new = {name: {"text": np.full(3, float(number), np.float32)} for number, name in enumerate("ab")}
    store.put_features("encoder2", new | {"unknown": {}})
    assert [one.made_by for _, one in store.songs()] == ["encoder2", "encoder2", "encoder1"], "the last that were made"
    assert same(list(store.songs("encoder1"))[1][1], song("b", 1)), "the old ones are there as long as they are needed"
    store.put_features("encoder1", {"a": {"text": np.ones(2, np.float32)}})
    assert [one.made_by for _, one in store.songs()] == ["encoder1", "encoder2", "encoder1"]
    assert [one.made_by for _, one in store.songs("encoder2")] == ["encoder2", "encoder2", "encoder1"]
    assert next(store.songs())[1].features["text"].tolist() == [1, 1]


# ---------------------------------------------------------------------------------------------- all or nothing, keys


def test_songs_are_added_all_or_none(store: Store) -> None:
    store.add_songs([(song("a"), b"first")])
    with pytest.raises(Exists) as caught:
        store.add_songs([(song("new"), b"x"), (song("a"), b"other"), (song("newer"), None)], "key", "digest")
    assert caught.value.song_ids == ["a"]
    with pytest.raises(Exists) as caught:
        store.add_songs([(song("twin"), None), (song("twin"), None)])
    assert caught.value.song_ids == ["twin"]
    assert ids(store) == ["a"] and store.audio("a") == b"first"
    assert store.answered("key", "digest") is None, "a request that failed may be sent again"


def test_text_that_no_table_could_hold_is_refused_at_once(store: Store) -> None:
    for bad in (song("\ud800"), song("a", about={"title": "\ud800"})):
        with pytest.raises(UnicodeEncodeError):
            store.add_songs([(song("before"), None), (bad, None)])
    with pytest.raises(UnicodeEncodeError):
        store.add_plays([Play("u", "s"), Play("\ud800", "s")])
    assert store.counts() == {"songs": 0, "plays": 0}


def test_a_key_is_answered_once(store: Store) -> None:
    assert store.answered("k", "d") is None
    store.add_songs([(song("a"), None), (song("b"), None)], "k", "d")
    store.add_plays([Play("u", "a")], "p", "d")
    assert store.answered("k", "d") == ["a", "b"] and store.answered("p", "d") == []
    for key in "kp":
        with pytest.raises(KeyReused):
            store.answered(key, "other")
        with pytest.raises(KeyReused):
            store.add_songs([(song("c"), None)], key, "d")
        with pytest.raises(KeyReused):
            store.add_plays([Play("u", "c")], key, "d")
    assert ids(store) == ["a", "b"] and store.counts()["plays"] == 1


def test_a_key_comes_back_after_the_end(store: Store, tmp_path: Path) -> None:
    store.add_songs([(song("a"), None)], "k", "d")
    store.close()
    with closing(Store(tmp_path / "store")) as again:
        assert again.answered("k", "d") == ["a"]


def test_old_keys_are_forgotten(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.add_plays([], "old", "d")
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 23 * 3600)
    store.add_plays([], "young", "d")
    assert store.answered("old", "d") == []
    monkeypatch.setattr(time, "time", lambda: now + 25 * 3600)
    store.add_plays([], "new", "d")
    assert [store.answered(key, "d") for key in ("old", "young", "new")] == [None, [], []]


# --------------------------------------------------------------------------------------------- what was acknowledged

WRITER = """
import sys
from test_store import song
from serving.store import Play, Store
store, run = Store(sys.argv[1]), sys.argv[2]
for number in range(100_000):
    name = f"{run}-{number}"
    store.add_songs([(song(f"{name}-{part}"), bytes(30_000)) for part in range(3)], name, "digest")
    print("song", name, flush=True)
    store.add_plays([Play(name, "s"), Play(name, "t")])
    print("play", name, flush=True)
"""


def test_kill_9_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    """Ten times on one store, each at another moment; whoever is not acknowledged may be there, but whole."""
    rng = random.Random(0)
    told: dict[str, list[str]] = {"song": [], "play": []}
    for run in range(10):
        command = [sys.executable, "-c", WRITER, str(tmp_path / "store"), str(run)]
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, env=ENVIRONMENT)
        assert process.stdout is not None
        first = process.stdout.readline()
        time.sleep(rng.uniform(0, 0.15))
        process.kill()
        for line in [first, *process.stdout]:
            if line.endswith("\n"):  # else it was killed while it told
                kind, name = line.split()
                told[kind].append(name)
        assert process.wait() == -9
    with closing(Store(tmp_path / "store")) as store:
        found = ids(store)
        assert len(found) == len(set(found)) and len(found) % 3 == 0
        assert {f"{name}-{part}" for name in told["song"] for part in range(3)} <= set(found)
        assert 0 <= len(found) // 3 - len(told["song"]) <= 10, "at most the one that each run was just writing"
        assert all(store.audio(name) == bytes(30_000) for name in found)
        assert all(store.answered(name, "digest") == [f"{name}-{part}" for part in range(3)] for name in told["song"])
        plays = [(play.user_id, play.song_id) for _, play in store.plays()]
        assert len(plays) == len(set(plays)) == store.counts()["plays"] and len(plays) % 2 == 0
        assert {(name, other) for name in told["play"] for other in "st"} <= set(plays)
        assert len(plays) // 2 - len(told["play"]) <= 10
    assert len(told["song"]) > 20, "it was killed at work, not at its start"
    assert whole(tmp_path / "store")


def test_the_log_is_bounded_and_gone_at_the_end(store: Store, tmp_path: Path) -> None:
    for number in range(60):
        store.add_songs([(song(str(number)), bytes(300_000))])
        list(store.songs())
    stream = store.songs()
    next(stream)  # a slow reader, who keeps no version of the file alive
    for number in range(60, 120):
        store.add_songs([(song(str(number)), bytes(300_000))])
    log = tmp_path / "store" / "songs.sqlite-wal"
    assert 0 < log.stat().st_size < 10e6, "36 MB were written"
    store.close()
    assert os.listdir(tmp_path / "store") == ["songs.sqlite"]
    store.close()
    for call in (store.counts, lambda: list(stream), lambda: store.add_plays([]), lambda: store.audio("1")):
        with pytest.raises(StoreError, match="closed"):
            call()


def test_at_the_end_the_file_holds_all_though_somebody_reads(store: Store, tmp_path: Path) -> None:
    store.add_plays([Play("u", "s")] * 1000)
    with reading(tmp_path / "store") as connection:
        assert connection.execute("SELECT count(*) FROM plays").fetchone() == (1000,)
        store.close()
        shutil.copy(tmp_path / "store" / "songs.sqlite", tmp_path / "songs.sqlite")  # a copy without the log
    with closing(Store(tmp_path)) as copy:
        assert copy.counts()["plays"] == 1000


# ------------------------------------------------------------------------------------------------------ no room


def fill(store: Store, prefix: str) -> int:
    """Add songs until there is no room; how many there was room for."""
    for number in range(1000):
        try:
            store.add_songs([(song(f"{prefix}{number}"), os.urandom(50_000)), (song(f"{prefix}{number}'"), None)])
        except StoreError as error:
            assert "\n" not in str(error)
            return number
    raise AssertionError("it never filled up")


def check_goes_on(store: Store, room: int) -> None:
    """What was added before is there, nothing of what failed; and the store is in order."""
    assert ids(store) == [f"a{number}{mark}" for number in range(room) for mark in ("", "'")]
    assert all(len(store.audio(f"a{number}") or b"") == 50_000 for number in range(room))


def test_a_full_database(store: Store, tmp_path: Path) -> None:
    """SQLITE_FULL, as from a full disk, then room again."""
    most = store.database.writer.execute("PRAGMA max_page_count").fetchone()[0]
    store.database.writer.execute("PRAGMA max_page_count = 300")
    room = fill(store, "a")
    assert room > 5
    with pytest.raises(StoreError, match="make room on the disk"):
        store.add_plays([Play("u" * 100, "s")] * 5000, "key", "d")
    check_goes_on(store, room)
    assert store.answered("key", "d") is None and store.counts()["plays"] == 0
    store.database.writer.execute(f"PRAGMA max_page_count = {most}")
    store.add_plays([Play("u", "s")], "key", "d")
    store.add_songs([(song("last"), None)])
    assert ids(store)[-1] == "last"
    store.close()
    assert whole(tmp_path / "store")


def limited(script: str, folder: Path) -> None:
    """Run Python lines in a process of its own."""
    lines = ["import os, resource, sys", "from test_store import *", "folder = Path(sys.argv[1])"]
    command = [sys.executable, "-c", "\n".join([*lines, script]), str(folder)]
    done = subprocess.run(command, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_file_that_may_not_grow(tmp_path: Path) -> None:
    """An I/O error in the middle of a write (RLIMIT_FSIZE), then none."""
    limited(
        """
store = Store(folder)
resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, resource.RLIM_INFINITY))
room = fill(store, "a")
assert room > 5
check_goes_on(store, room)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
store.add_songs([(song("last"), bytes(3_000_000))])
assert ids(store)[-1] == "last"
store.close()
""",
        tmp_path,
    )
    assert whole(tmp_path)
    with closing(Store(tmp_path)) as store:
        assert len(store.audio("last") or b"") == 3_000_000


def test_a_full_disk(tmp_path: Path) -> None:
    """A real one of three megabytes."""
    if os.geteuid() or shutil.which("mount") is None:
        pytest.skip("only root may mount a small disk")
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", tmp_path], capture_output=True).returncode:
        pytest.skip("no disk may be mounted here")
    try:
        with closing(Store(tmp_path)) as store:
            ballast = tmp_path / "ballast"
            ballast.write_bytes(bytes(1_000_000))
            room = fill(store, "a")
            assert room > 5
            check_goes_on(store, room)
            with pytest.raises(StoreError, match=r"make room|check the disk"):
                store.add_plays([Play("u" * 100, "s")] * 5000)
            ballast.unlink()
            store.add_songs([(song("last"), None)])
            assert ids(store)[-1] == "last" and store.counts()["plays"] == 0
        assert whole(tmp_path)
    finally:
        subprocess.run(["umount", tmp_path], check=True)


def test_a_folder_that_may_not_be_written() -> None:
    folder = Path(tempfile.mkdtemp())  # not under tmp_path, which other users cannot enter
    try:
        Store(folder).close()
        (folder / "songs.sqlite").chmod(0o444)
        folder.chmod(0o555)
        limited(
            """
import serving.database
if os.geteuid() == 0:
    os.setuid(65534)
for where in (folder, folder / "deeper"):
    try:
        Store(where)
    except StoreError as error:
        assert "\\n" not in str(error) and str(folder) in str(error), error
    else:
        raise AssertionError("made")
""",
            folder,
        )
        folder.chmod(0o755)
        assert os.listdir(folder) == ["songs.sqlite"] and whole(folder)
    finally:
        shutil.rmtree(folder)


# ------------------------------------------------------------------------------------------------------- damage


def filled(folder: Path) -> Path:
    """A store of some hundred pages."""
    with closing(Store(folder)) as store:
        for number in range(100):
            store.add_songs([(song(str(number)), np.random.default_rng(number).bytes(3000) if number % 2 else None)])
            store.add_plays([Play(f"user {number}", f"song {other}") for other in range(50)])
    return folder / "songs.sqlite"


@pytest.mark.parametrize("where", ["head", "second", "quarter", "middle", "last", "cut", "other"])
def test_a_damaged_file_is_refused_and_left_alone(tmp_path: Path, where: str) -> None:
    file = filled(tmp_path)
    data = bytearray(file.read_bytes())
    page = {"head": 0, "second": 1, "quarter": len(data) // 4096 // 4, "middle": len(data) // 4096 // 2,
            "last": len(data) // 4096 - 1}.get(where)  # fmt: skip
    if page is not None:
        data[page * 4096 : (page + 1) * 4096] = np.random.default_rng(0).bytes(4096)
    elif where == "cut":
        data = data[: len(data) // 2]
    else:
        data = bytearray(b"not a database" * 1000)
    file.write_bytes(data)
    for opened in (lambda: Store(tmp_path), lambda: reading(tmp_path).__enter__()):
        with pytest.raises(UserError, match="is damaged") as caught:
            opened()
        assert "\n" not in str(caught.value) and str(file) in str(caught.value)
        assert file.read_bytes() == data


def test_every_page_is_looked_at(tmp_path: Path) -> None:
    """Zeros in place of any one page of rows are found (every tenth is tried)."""
    file = filled(tmp_path)
    whole_file = file.read_bytes()
    for page in range(0, len(whole_file) // 4096, 10):
        data = bytearray(whole_file)
        data[page * 4096 : (page + 1) * 4096] = bytes(4096)
        file.write_bytes(data)
        with pytest.raises(UserError, match="is damaged"):
            Store(tmp_path)
    file.write_bytes(whole_file)
    Store(tmp_path).close()


def test_a_song_with_damaged_features_is_named(store: Store) -> None:
    store.add_songs([(song("good"), None), (song("bad one"), None)])
    with store.database.writing() as connection:
        connection.execute("UPDATE features SET vectors = x'00ff' WHERE song = 2")
    stream = store.songs()
    assert next(stream)[1].song_id == "good"
    with pytest.raises(StoreError, match="bad one"):
        next(stream)
    assert store.delete_song("bad one") and ids(store) == ["good"]


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ("PRAGMA user_version = 2", "later FirstPlay"),
        ("PRAGMA application_id = 7", "another program's"),
    ],
)
def test_other_databases_are_left_alone(tmp_path: Path, change: str, word: str) -> None:
    file = filled(tmp_path)
    with closing(sqlite3.connect(file)) as connection:
        connection.execute(change)
    before = file.read_bytes()
    with pytest.raises(UserError, match=word):
        Store(tmp_path)
    assert file.read_bytes() == before


def test_a_start_that_was_killed_is_made_good(tmp_path: Path) -> None:
    """Killed after the file was made and before its tables were: the next start makes them."""
    connect(tmp_path / "songs.sqlite", write=True).close()
    with pytest.raises(UserError, match="is empty"), reading(tmp_path):
        pass
    with closing(Store(tmp_path)) as store:
        store.add_plays([Play("u", "s")])


def test_a_start_that_failed_keeps_nobody_out(tmp_path: Path) -> None:
    (tmp_path / "songs.sqlite").write_bytes(b"not a database" * 1000)
    with pytest.raises(UserError, match="is damaged"):
        Store(tmp_path)
    (tmp_path / "songs.sqlite").unlink()
    Store(tmp_path).close()


# ------------------------------------------------------------------------------------------------- many at once


def test_two_services_on_one_store_are_refused(store: Store, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="another service uses the store"):
        Store(tmp_path / "store")
    limited(
        """
try:
    Store(folder)
except UserError as error:
    assert "another service uses the store" in str(error)
else:
    raise AssertionError("two at once")
""",
        tmp_path / "store",
    )
    store.add_plays([Play("u", "s")])
    with reading(tmp_path / "store") as connection:
        assert connection.execute("SELECT count(*) FROM plays").fetchone() == (1,)
    store.close()
    Store(tmp_path / "store").close()


def test_a_reader_waits_for_no_writer(store: Store) -> None:
    store.add_songs([(song("a"), b"flac")])
    with store.database.writing() as connection:  # a commit that never ends
        connection.execute("DELETE FROM songs")
        found: list[Any] = []
        reader = threading.Thread(target=lambda: found.extend([ids(store), store.audio("a"), store.counts()["songs"]]))
        reader.start()
        reader.join(5)
        assert found == [["a"], b"flac", 1]
    assert ids(store) == []


def test_threads_that_write_and_read(store: Store, tmp_path: Path) -> None:
    """Four write, four read; a reader sees whole requests only, and none that was acknowledged is missing."""
    kept, wrong, stop = set[str](), list[Any](), threading.Event()

    def write(thread: int) -> None:
        for number in range(25):
            name, short = f"{thread}-{number}", number % 5 == 4  # these are deleted again
            parts = [f"{name}{'!' * short}-{part}" for part in range(3)]
            store.add_songs([(song(part, number), part.encode()) for part in parts], name, "d")
            store.add_plays([Play(name, "s")] * 2)
            if short:
                assert all([store.delete_song(part) for part in parts])
            else:
                kept.add(name)

    def read() -> None:
        while not stop.is_set():
            before = set(kept)
            found = [name for name in ids(store) if "!" not in name]
            there = {name.rpartition("-")[0] for name in found}
            if not before <= there or len(set(found)) != 3 * len(there) or len(found) != 3 * len(there):
                wrong.append((before - there, found))
            if store.counts()["plays"] % 2 or (found and store.audio(found[-1]) != found[-1].encode()):
                wrong.append((store.counts(), found[-1:]))

    readers = [threading.Thread(target=read) for _ in range(4)]
    writers = [threading.Thread(target=write, args=(thread,)) for thread in range(4)]
    for thread in [*readers, *writers]:
        thread.start()
    for thread in writers:
        thread.join()
    stop.set()
    for thread in readers:
        thread.join()
    assert wrong == [] and len(kept) == 80
    assert sorted(ids(store)) == sorted(f"{name}-{part}" for name in kept for part in range(3))
    assert store.counts() == {"songs": 240, "plays": 200}
    store.close()
    assert whole(tmp_path / "store")


def test_one_of_two_with_the_same_key_wins(store: Store) -> None:
    barrier, refused = threading.Barrier(6), list[int]()

    def ask(number: int) -> None:
        barrier.wait()
        try:
            store.add_songs([(song(str(number)), None)], "key", "digest")
        except KeyReused:
            refused.append(number)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(refused) == 5 and store.answered("key", "digest") == ids(store) and len(ids(store)) == 1


def test_many_songs_and_plays_are_streamed(store: Store) -> None:
    """40 MB of songs and 60,000 plays go past in a few megabytes."""
    for at in range(0, 2000, 100):
        store.add_songs([(song(str(at + n), about={"lyrics": "word " * 4000}), None) for n in range(100)])
    for _ in range(6):
        store.add_plays([Play("u", "s")] * 10_000)
    tracemalloc.start()
    try:
        assert sum(1 for _ in store.songs()) == 2000 and sum(1 for _ in store.plays()) == 60_000
        assert tracemalloc.get_traced_memory()[1] < 10e6
    finally:
        tracemalloc.stop()
