"""What the store has acknowledged is there: when it is full, with many threads; and damage is refused."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
import tracemalloc
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from configs.errors import UserError
from serving import store as stores
from serving.database import is_url, reading
from serving.sqlite import connect
from serving.store import Exists, KeyReused, Play, Store, StoredSong
from serving.store_errors import StoreError

ROOT = Path(__file__).parents[2]
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
def store(place: str) -> Iterator[Store]:
    """A new one in each of the databases."""
    with closing(Store(place)) as opened:
        yield opened


@pytest.fixture
def in_file(tmp_path: Path) -> Iterator[Store]:
    """A new one in an SQLite file."""
    with closing(Store(tmp_path / "store")) as opened:
        yield opened


def test_a_folder_needs_no_package_of_postgresql(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("psycopg", "psycopg_pool", "alembic", "sqlalchemy"):
        monkeypatch.setitem(sys.modules, name, None)  # as if it was not installed
    monkeypatch.delitem(sys.modules, "serving.postgres", raising=False)
    with closing(Store(tmp_path / "store")) as store:
        store.add_songs([(song("a"), b"flac")])
    with pytest.raises(UserError, match="postgres"):
        Store("postgresql://user@127.0.0.1/store")


# ----------------------------------------------------------------------------------------- what goes in comes out


def test_songs_come_back_as_they_went_in(store: Store, place: str) -> None:
    odd = [name for name in ODD_IDS if "\0" not in name or not store.shared]  # PostgreSQL has no text with it
    given = [song(name, seed) for seed, name in enumerate(["b", "a", *odd])]
    given += [song("bare", about={}, seconds=None, features={}, made_by="")]
    store.add_songs([(one, f"flac of {number}".encode() if number % 2 else None) for number, one in enumerate(given)])
    for opened in (store, None):
        if opened is None:
            store.close()
            opened = Store(place)
        found = [one for _, one in opened.songs()]
        assert len(found) == len(given) and all(map(same, found, given)), "in the order of arrival"
        assert [opened.audio(one.song_id) for one in given] == [
            f"flac of {number}".encode() if number % 2 else None for number in range(len(given))
        ]
        assert opened.audio("absent") is None
        assert opened.counts() == {"songs": len(given), "plays": 0}
    opened.close()


def test_a_song_came_out_on_the_day_on_which_it_came_unless_told() -> None:
    assert song("a").described == {**song("a").about, "released_at": "2026-11-26"}
    assert song("a", about={"released_at": "1975-03-01"}).described == {"released_at": "1975-03-01"}


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


def test_a_store_of_version_1_goes_on(tmp_path: Path) -> None:
    """Its plays had no unknown marks; new ones may have."""
    filled(tmp_path)
    with closing(sqlite3.connect(tmp_path / "songs.sqlite")) as connection:
        marks = ", ".join(f"{name} INTEGER NOT NULL" for name in ("completed", "favourited", "disliked", "skipped"))
        columns = "number INTEGER PRIMARY KEY, user_id TEXT NOT NULL, song_id TEXT NOT NULL, played_at INTEGER NOT NULL"
        connection.executescript(
            "DROP TABLE opt_outs; DROP TABLE deletions; DROP TABLE plays;"
            f"CREATE TABLE plays ({columns}, {marks}, source_song_id TEXT);"
            "INSERT INTO plays VALUES (1, 'u', 's', 7000000, 1, 0, 0, 0, 't'); PRAGMA user_version = 1"
        )
    with pytest.raises(UserError, match="of an earlier FirstPlay: start its service once"), reading(tmp_path):
        pass
    with closing(Store(tmp_path)) as store:
        songs = ids(store)
        assert store.set_opt_outs(["u"], True) == 1
        store.add_plays([Play("v", "s", favourited=True)])
        old, new = (play for _, play in store.plays())
        assert old == Play("u", "s", datetime(1970, 1, 1, 0, 0, 7, tzinfo=UTC), True, False, False, False, "t")
        assert (new.completed, new.favourited, new.disliked, new.skipped) == (None, True, None, None)
        assert [number for number, _ in store.plays()] == [1, 2]
    with closing(Store(tmp_path)) as store:
        assert ids(store) == songs and store.counts()["plays"] == 2
        assert store.delete_song(songs[0]) == len(songs) + 1 == store.last()[0]


def test_the_last_opt_out_of_a_user_holds(place: str) -> None:
    """Against a dictionary; what changes nothing is not written, and numbers have no gaps."""
    rng, standing, changes = np.random.default_rng(0), dict[str, bool](), 0
    for _ in range(5):
        with closing(Store(place)) as store:
            for _ in range(8):
                users, opted_out = [ODD_IDS[at] for at in rng.integers(0, len(ODD_IDS), 6)], bool(rng.integers(2))
                users = [user for user in users if "\0" not in user]  # which no request has
                new = {user for user in users if standing.get(user, False) != opted_out}
                assert store.set_opt_outs(users, opted_out) == len(new)
                standing |= dict.fromkeys(users, opted_out)
                changes += len(new)
            kept = list(store.opt_outs())
            assert [number for number, _, _ in kept] == list(range(1, changes + 1)) and store.last() == (0, 0, changes)
            last = {user: opted_out for _, user, opted_out in kept}
            assert {user for user in standing if standing[user]} == {user for user in last if last[user]}
            assert [number for number, _, _ in store.opt_outs(after=changes - 2)] == [changes - 1, changes]
            with pytest.raises(UnicodeEncodeError):
                store.set_opt_outs(["u", "\ud800"], True)
            assert store.last() == (0, 0, changes), "all or none"


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


def test_the_log_of_songs_is_followed(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """From any place in it, in pages of any size: what is taken page after page is what is there."""
    store.add_songs([(song(name), None) for name in "abc"])
    assert (store.delete_song("b"), store.delete_song("b")) == (4, None)
    assert store.add_songs([(song("b", about={"title": "again"}), None), (song("d"), None)]) == 5
    assert (store.delete_song("d"), store.delete_song("a")) == (7, 8)
    with pytest.raises(Exists):
        store.add_songs([(song("e"), None), (song("c"), None)])
    assert store.add_songs([(song("a", about={"title": "again"}), None)]) == 9, "what failed took no number"
    assert store.add_plays([Play("u", "a")] * 3) == 1 and store.add_plays([Play("u", "a")]) == 4
    assert store.last() == (9, 4, 0)
    for size in (1, 2, 3, 100):
        monkeypatch.setattr(stores, "SONGS", size)
        for after, before in [(0, set()), (3, set("abc")), (4, set("ac")), (6, set("abcd")), (9, set("abc"))]:
            there: set[str] = set(before)
            for last, deleted, added in store.changes(after=after):
                assert last > after
                there = (there - set(deleted)) | {one.song_id for one in added}
            assert there == set("abc"), (size, after)


def test_a_deletion_while_the_log_is_followed(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A song that was read and then exchanged comes out as the new one."""
    monkeypatch.setattr(stores, "SONGS", 2)
    store.add_songs([(song(name), None) for name in "abcd"])
    stream = store.changes()
    there = {one.song_id: one for one in next(stream)[2]}
    assert store.delete_song("a") and store.delete_song("d")
    store.add_songs([(song("a", about={"title": "again"}), None)])
    for _, deleted, added in stream:
        there = {name: one for name, one in there.items() if name not in deleted} | {one.song_id: one for one in added}
    assert sorted(there) == ["a", "b", "c"] and there["a"].about == {"title": "again"}


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


def test_the_log_is_bounded_and_gone_at_the_end(in_file: Store, tmp_path: Path) -> None:
    store = in_file
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


def test_at_the_end_the_file_holds_all_though_somebody_reads(in_file: Store, tmp_path: Path) -> None:
    store = in_file
    store.add_plays([Play("u", "s")] * 1000)
    with reading(tmp_path / "store") as connection:
        assert connection.execute("SELECT count(*) FROM plays").fetchone() == (1000,)
        store.close()
        shutil.copy(tmp_path / "store" / "songs.sqlite", tmp_path / "songs.sqlite")  # a copy without the log
    with closing(Store(tmp_path)) as copy:
        assert copy.counts()["plays"] == 1000


# ------------------------------------------------------------------------------------------------------ no room


def test_a_full_database(in_file: Store, tmp_path: Path) -> None:
    """SQLITE_FULL, as from a full disk, then room again."""
    store = in_file
    most = store.database.writer.execute("PRAGMA max_page_count").fetchone()[0]
    store.database.writer.execute("PRAGMA max_page_count = 300")
    added: list[str] = []
    with pytest.raises(StoreError, match="make room on the disk") as caught:
        while True:
            name = f"a{len(added)}"
            store.add_songs([(song(name), os.urandom(50_000)), (song(f"{name}'"), None)])
            added += [name, f"{name}'"]
    assert len(added) > 10 and "\n" not in str(caught.value)
    with pytest.raises(StoreError, match="make room on the disk"):
        store.add_plays([Play("u" * 100, "s")] * 5000, "key", "d")
    assert ids(store) == added and all(len(store.audio(name) or b"") == 50_000 for name in added[::2])
    assert store.answered("key", "d") is None and store.counts()["plays"] == 0
    store.database.writer.execute(f"PRAGMA max_page_count = {most}")
    store.add_plays([Play("u", "s")], "key", "d")
    store.add_songs([(song("last"), None)])
    assert ids(store)[-1] == "last"
    store.close()
    assert whole(tmp_path / "store")


UNWRITABLE = """
import os, sys
from pathlib import Path
from serving.store_errors import StoreError
from serving.store import Store
if os.geteuid() == 0:
    os.setuid(65534)
for folder in (Path(sys.argv[1]), Path(sys.argv[1]) / "deeper"):
    try:
        Store(folder)
    except StoreError as error:
        assert "\\n" not in str(error) and sys.argv[1] in str(error), error
    else:
        raise AssertionError("made")
"""


def test_a_folder_that_may_not_be_written() -> None:
    folder = Path(tempfile.mkdtemp())  # not under tmp_path, which other users cannot enter
    try:
        Store(folder).close()
        (folder / "songs.sqlite").chmod(0o444)
        folder.chmod(0o555)
        subprocess.run([sys.executable, "-c", UNWRITABLE, folder], cwd=ROOT, check=True)
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
    pages = len(data) // 4096
    if where == "cut":
        data = data[: len(data) // 2]
    elif where == "other":
        data = bytearray(b"not a database" * 1000)
    else:
        page = {"head": 0, "second": 1, "quarter": pages // 4, "middle": pages // 2, "last": pages - 1}[where]
        data[page * 4096 : (page + 1) * 4096] = np.random.default_rng(0).bytes(4096)
    left_alone(tmp_path, data, "is damaged")
    file.unlink()
    Store(tmp_path).close()  # a start that failed keeps nobody out


@pytest.mark.parametrize(
    ("change", "word"), [("user_version = 5", "later FirstPlay"), ("application_id = 7", "another program's")]
)
def test_other_databases_are_left_alone(tmp_path: Path, change: str, word: str) -> None:
    file = filled(tmp_path)
    with closing(sqlite3.connect(file)) as connection:
        connection.execute(f"PRAGMA {change}")
    left_alone(tmp_path, file.read_bytes(), word)


def left_alone(folder: Path, data: bytes, word: str) -> None:
    """A store's file of these bytes is refused in one line, by the service and by who reads, and stays as it is."""
    file = folder / "songs.sqlite"
    file.write_bytes(data)
    for opened in (lambda: Store(folder), lambda: reading(folder).__enter__()):
        with pytest.raises(UserError, match=word) as caught:
            opened()
        assert "\n" not in str(caught.value) and str(file) in str(caught.value)
        assert file.read_bytes() == data


def test_a_song_with_damaged_features_is_named(store: Store) -> None:
    store.add_songs([(song("good"), None), (song("bad one"), None)])
    with store.database.writing() as connection:
        connection.execute("UPDATE features SET vectors = ? WHERE song = 2", (b"\x00\xff",))
    stream = store.songs()
    assert next(stream)[1].song_id == "good"
    with pytest.raises(StoreError, match="bad one"):
        next(stream)
    assert store.delete_song("bad one") and ids(store) == ["good"]


def test_a_start_that_was_killed_is_made_good(tmp_path: Path) -> None:
    """Killed after the file was made and before its tables were: the next start makes them."""
    connect(tmp_path / "songs.sqlite", write=True).close()
    with pytest.raises(UserError, match="is empty"), reading(tmp_path):
        pass
    with closing(Store(tmp_path)) as store:
        store.add_plays([Play("u", "s")])


# ------------------------------------------------------------------------------------------------- many at once


def test_two_services_on_one_file_are_refused(in_file: Store, tmp_path: Path) -> None:
    store = in_file
    with pytest.raises(UserError, match="another service uses the store"):
        Store(tmp_path / "store")
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


def test_threads_that_write_and_read(store: Store, place: str) -> None:
    """Four write, four read; a reader sees whole requests only, and none that was acknowledged is missing."""
    kept, stop = set[str](), threading.Event()

    def write(thread: int) -> None:
        for number in range(25):
            name = f"{thread}-{number}"
            parts = [f"{name}-{part}" for part in range(3)]
            store.add_songs([(song(part, number), part.encode()) for part in parts], name, "d")
            store.add_plays([Play(name, "s")] * 2)
            kept.add(name)

    def read() -> None:
        while not stop.is_set():
            before = set(kept)
            found = ids(store)
            there = {name.rpartition("-")[0] for name in found}
            assert before <= there and len(set(found)) == len(found) == 3 * len(there)
            assert store.counts()["plays"] % 2 == 0 and (not found or store.audio(found[-1]) == found[-1].encode())

    with ThreadPoolExecutor(8) as threads:
        readers = [threads.submit(read) for _ in range(4)]
        list(threads.map(write, range(4)))
        stop.set()
        for reader in readers:
            reader.result()
    assert sorted(ids(store)) == sorted(f"{name}-{part}" for name in kept for part in range(3))
    assert store.counts() == {"songs": 300, "plays": 200}
    store.close()
    assert is_url(place) or whole(Path(place))


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
