"""Services that share a store in PostgreSQL: what one takes in counts in the others, once, whatever comes between."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest

from benchmarks.speed.serve_process import serving
from configs.errors import UserError
from serving import answers
from serving import postgres as database
from serving import store as stores
from serving.database import place_of, reading
from serving.decoding import Decoders
from serving.encoder import Content
from serving.engine import Engine
from serving.incoming import Incoming
from serving.postgres import LOCK, masked
from serving.refusals import Refused
from serving.schemas import NewPlay, NewSong
from serving.state import State
from serving.store import KeyReused, Play, Store
from serving.store_errors import StoreError, UnsureError
from tests.serving.postgres_server import PASSWORD, Server
from tests.serving.test_engine import there
from tests.serving.test_store import ids, song

SOON = 1.0  # second, within which what one service is told counts in the others


@pytest.fixture
def url(postgres: Server) -> str:
    return postgres.place()


@pytest.fixture
def pair(service_folder: Path, url: str) -> Iterator[tuple[Engine, Engine]]:
    """Two that do not look by themselves for what the other has written."""
    with ExitStack() as stack:
        yield tuple(stack.enter_context(closing(Engine(service_folder, url, 4, follow=1e5))) for _ in range(2))


def accept(engine: Engine, song_id: str, title: str) -> None:
    """As `Incoming` does it."""
    new = song(song_id, about={"title": title}, features={}, made_by="")
    engine.accept([(new, None, engine.encoding.submit(Content(new.described)).result(30))], None, "")


def within(seconds: float, true: Callable[[], bool]) -> bool:
    """Whether it comes true in time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if true():
            return True
        time.sleep(0.01)
    return False


def same(one: State, other: State) -> None:
    """Two states are of the same songs and plays, and answer alike; song numbers may differ."""
    assert sorted(there(one)) == sorted(there(other)) and (one.change, one.play) == (other.change, other.play)
    assert one.opt_out == other.opt_out and one.opted_out.tolist() == other.opted_out.tolist()
    assert {one.model.user_ids[user]: len(plays) for user, plays in one.played.items()} == {
        other.model.user_ids[user]: len(plays) for user, plays in other.played.items()
    }
    np.testing.assert_allclose(one.model.user_UD, other.model.user_UD, atol=1e-5)
    np.testing.assert_allclose(one.model.boundary_U, other.model.boundary_U, atol=1e-5)
    for song_id in there(one):
        numbers = [(state, state.number_of[song_id]) for state in (one, other)]
        np.testing.assert_allclose(*(state.vectors(number)[0] for state, number in numbers), atol=1e-5)
        assert len({state.first_plays(number) for state, number in numbers}) == 1
        lists = [answers.audience(state, number, "boundary", 20, False, 0.0).users_B for state, number in numbers]
        np.testing.assert_array_equal(*lists)


# ----------------------------------------------------------------------------------------------------- one follows all


def test_what_one_is_told_counts_in_the_other_within_a_second(service_folder: Path, url: str) -> None:
    with closing(Engine(service_folder, url, 4)) as one, closing(Engine(service_folder, url, 4)) as other:
        accept(one, "a", "Rain on the roof")
        assert within(SOON, lambda: other.state.number("a") is not None)
        user = other.state.model.user_ids[3]
        one.accept_plays([Play(user, "a", favourited=True)], None, "")
        assert within(SOON, lambda: other.state.play == 1)
        assert other.state.first_plays(other.state.number_of["a"]) == 1
        assert 3 not in answers.audience(other.state, other.state.number_of["a"], "taste", 1000, False, 0.0).users_B
        same(one.state, other.state)
        assert other.delete("a") and not one.delete("a")
        assert within(SOON, lambda: one.state.number("a") is None)
        assert within(SOON, lambda: one.behind() == other.behind() == (0, 0.0))


def test_all_come_to_the_same_state_and_nothing_counts_twice(pair: tuple[Engine, Engine], service_folder: Path) -> None:
    """Requests at either of two that follow one another only when they write; and a third that starts at the end."""
    rng = np.random.default_rng(0)
    users, kept = pair[0].state.model.user_ids, list[str]()
    for step in range(30):
        engine = pair[int(rng.integers(2))]
        if step % 6 == 5:
            assert engine.delete(kept.pop(int(rng.integers(len(kept)))))
        elif step % 6 in (0, 2, 3):
            accept(engine, f"s{step}", f"Title {step}")
            kept.append(f"s{step}")
        else:
            engine.accept_plays(
                [Play(users[int(rng.integers(50))], str(rng.choice([*kept, "s00001"])), completed=True) for _ in "ab"],
                None, "",
            )  # fmt: skip
    for engine in pair:
        engine.follow()
        engine.follow()
    with closing(Engine(service_folder, pair[0].store.database.url, 4)) as third:
        assert (
            sorted(there(third.state)) == sorted(kept)
            and len(kept) == 10
            and third.state.play == third.store.counts()["plays"] == 20
        )
        same(pair[0].state, third.state)
        same(pair[1].state, third.state)


def test_opt_outs_count_in_all_and_the_last_one_wherever_it_was_told(
    pair: tuple[Engine, Engine], service_folder: Path
) -> None:
    one, other = pair
    users, song = one.state.model.user_ids, int(one.state.model.new[0])
    assert one.opt_out([users[3], users[5], "nobody"], True) == 3 and other.behind()[0] == 3
    assert other.opt_out([users[3]], False) == 1, "though this one had not heard of it"
    assert other.state.opted_out.tolist() == [5] and one.opt_out([users[3]], True) == 1
    for engine in pair:
        engine.follow()
        assert engine.state.opted_out.tolist() == [3, 5] and engine.behind()[0] == 0
        named = answers.audience(engine.state, song, "taste", 1000, False, 0.0).users_B
        assert not {3, 5} & set(named.tolist())
    with closing(Engine(service_folder, one.store.database.url, 4)) as third:
        same(one.state, third.state)


def test_a_database_of_version_1_goes_on(url: str) -> None:
    Store(url).close()
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("DROP TABLE opt_outs")
        connection.execute("UPDATE firstplay_version SET version_num = '1'")
    with pytest.raises(UserError, match="of an earlier FirstPlay: start a service once"), reading(url):
        pass
    with closing(Store(url)) as store:
        assert store.set_opt_outs(["u", "v"], True) == 2 and store.last() == (0, 0, 2)


def test_how_far_behind(pair: tuple[Engine, Engine]) -> None:
    one, other = pair
    assert one.behind() == other.behind() == (0, 0.0)
    accept(one, "a", "Title")
    one.accept_plays([Play("u00001", "a")] * 3, None, "")
    one.delete("a")
    began = time.monotonic()
    assert one.behind() == (0, 0.0)
    time.sleep(0.2)
    rows, seconds = other.behind()
    assert rows == 5 and 0.2 <= seconds < time.monotonic() - began + 30
    other.follow()
    assert other.behind() == (0, 0.0) and other.state.play == 3


def test_own_songs_are_not_encoded_again(pair: tuple[Engine, Engine], monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor are those of others, whose features are in the store."""
    one, other = pair
    content = [engine.encoding.submit(Content({"title": "Title"})).result(30) for engine in pair]
    for engine in pair:
        monkeypatch.setattr(engine.state.model.encoder, "features", lambda *_: pytest.fail("encoded again"))
    for at, (engine, encoded) in enumerate(zip(pair, content, strict=True)):
        engine.accept([(song(f"s{at}", features={}), None, encoded)], None, "")
    one.follow()
    assert there(one.state) == there(other.state) == ["s0", "s1"]


def test_a_song_that_another_service_took_in_is_found_at_once(pair: tuple[Engine, Engine]) -> None:
    """Though it looks once in an hour: plays of the song are not refused, and its id is free again when it is gone."""
    decoders = Decoders(1)
    try:
        one, other = (Incoming(engine, decoders, 30.0) for engine in pair)
        one.song(NewSong(song_id="a", title="Rain"), None, None)
        assert other.plays([NewPlay(user_id="u00001", song_id="a")], None).accepted == 1
        assert pair[1].delete("a")
        one.song(NewSong(song_id="a", title="Rain again"), None, None)
        with pytest.raises(Refused, match="already"):
            other.song(NewSong(song_id="a", title="Rain"), None, None)
    finally:
        decoders.close()


# ------------------------------------------------------------------------------------------------ commits in any order


def test_what_began_earlier_and_is_committed_later_is_not_lost(url: str) -> None:
    """A transaction that is slow keeps the others from their numbers: a watermark never passes it."""
    with closing(Store(url)) as store, closing(Store(url)) as other:
        began, go, seen = threading.Event(), threading.Event(), list[int]()

        def slowly() -> None:
            with store.database.writing() as connection:
                rows = [(1, "slow", "s", 0, None, None, None, None, None)]
                connection.executemany(stores.ADD_PLAY, rows)
                began.set()
                go.wait(20)

        slow = threading.Thread(target=slowly)
        slow.start()
        assert began.wait(20)
        fast = threading.Thread(target=lambda: other.add_plays([Play("fast", "s")]))
        fast.start()
        time.sleep(0.3)
        last = 0
        for turn in range(2):
            for last, play in store.plays(last):  # noqa: B007, B020
                seen.append(play.user_id)
            if not turn:
                assert not seen and fast.is_alive(), "it has no number as long as an earlier one may come"
                go.set()
                slow.join(20)
                fast.join(20)
        assert seen == ["slow", "fast"] and last == 2


def test_followers_of_many_writers_miss_nothing(url: str) -> None:
    """Four services write, and some fail; two follow by what they have read last. Each row comes once, in order."""
    ended, followed = threading.Event(), list[list[int]]()

    def write(name: int) -> None:
        with closing(Store(url)) as store:
            for at in range(25):
                store.add_plays([Play(f"{name} {at}", "s")] * 3)
                with pytest.raises(UnicodeEncodeError):
                    store.add_plays([Play("x", "s"), Play("\ud800", "s")])

    def follow() -> None:
        found, last = list[int](), 0
        with closing(Store(url)) as store:
            while True:
                over = ended.is_set()
                found += [number for number, _ in store.plays(last)]
                last = found[-1] if found else 0
                if over:
                    break
        followed.append(found)

    Store(url).close()
    readers = [threading.Thread(target=follow) for _ in range(2)]
    writers = [threading.Thread(target=write, args=(name,)) for name in range(4)]
    for thread in readers + writers:
        thread.start()
    for thread in writers:
        thread.join(120)
    ended.set()
    for thread in readers:
        thread.join(60)
    assert followed == [list(range(1, 301))] * 2


# ---------------------------------------------------------------------------------------------------------------- keys


def test_a_key_that_two_services_are_sent_at_once(pair: tuple[Engine, Engine]) -> None:
    """One takes the request in, the other answers the same: of songs, batches and plays, thirty times."""
    decoders = Decoders(1)
    try:
        both = [Incoming(engine, decoders, 30.0) for engine in pair]
        for at in range(10):
            for ask in (
                lambda one, at=at: one.song(NewSong(title=f"Title {at}"), None, f"song {at}"),
                lambda one, at=at: one.songs([NewSong(title=f"One {at}"), NewSong(title="Two")], f"batch {at}"),
                lambda one, at=at: one.plays([NewPlay(user_id="u00001", song_id="s00001")], f"plays {at}"),
            ):
                told = at_once(lambda number, ask=ask: ask(both[number]))
                assert told[0] == told[1], told
        assert pair[0].store.counts() == {"songs": 30, "plays": 10}
        for engine in pair:
            engine.follow()
        same(pair[0].state, pair[1].state)
        with pytest.raises(KeyReused):
            both[1].song(NewSong(title="another"), None, "song 0")
    finally:
        decoders.close()


def at_once(call: Callable[[int], Any]) -> list[Any]:
    """What `call(0)` and `call(1)` answer, or raise, that run at the same time."""
    told: list[Any] = [None, None]
    barrier = threading.Barrier(2)

    def run(number: int) -> None:
        barrier.wait(20)
        try:
            told[number] = call(number)
        except Exception as error:
            told[number] = error

    threads = [threading.Thread(target=run, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return told


# ------------------------------------------------------------------------------------------------------ the first start


def test_two_that_start_at_once_make_the_tables_once(postgres: Server) -> None:
    for _ in range(5):
        place = postgres.place()
        stores_of = at_once(lambda _, place=place: Store(place))
        assert all(isinstance(store, Store) for store in stores_of), stores_of
        stores_of[0].add_plays([Play("u", "s")])
        assert stores_of[1].counts()["plays"] == 1
        for store in stores_of:
            store.close()


@pytest.mark.parametrize("fault", ["another program's", "later", "encoding", "no schema"])
def test_what_is_no_store_of_this_version_is_left_alone(postgres: Server, fault: str) -> None:
    latin = "ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0"
    place = postgres.database(latin) if fault == "encoding" else postgres.place()
    place = place.replace("search_path%3D", "search_path%3Dabsent_") if fault == "no schema" else place
    if fault == "later":
        Store(place).close()
    with psycopg.connect(place, autocommit=True) as connection:
        if fault == "later":
            connection.execute("UPDATE firstplay_version SET version_num = '99'")
        elif fault == "another program's":
            connection.execute("CREATE TABLE theirs (x INTEGER)")
        tables = "SELECT tablename FROM pg_tables WHERE schemaname = current_schema() ORDER BY 1"
        before = connection.execute(tables).fetchall()
        for opened in (lambda: Store(place), lambda: reading(place).__enter__()):
            with pytest.raises(UserError, match=fault) as caught:
                opened()
            assert "\n" not in str(caught.value) and place_of(place) in str(caught.value)
        assert connection.execute(tables).fetchall() == before


def test_both_databases_have_the_same_tables(url: str, tmp_path: Path) -> None:
    """So that statements are written once."""
    Store(url).close()
    Store(tmp_path / "store").close()
    with reading(url) as connection:
        found = connection.execute(
            "SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = current_schema() "
            "AND table_name <> 'firstplay_version' ORDER BY table_name, ordinal_position"
        ).fetchall()
    with reading(tmp_path / "store") as file:
        names = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite%' ORDER BY name"
        tables = [name for (name,) in file.execute(names)]
        assert found == [(name, column[1]) for name in tables for column in file.execute(f"PRAGMA table_info({name})")]


def test_who_reads_makes_no_tables(url: str) -> None:
    with pytest.raises(UserError, match="is empty"), reading(url):
        pass
    with psycopg.connect(url) as connection:
        found = connection.execute("SELECT count(*) FROM pg_tables WHERE schemaname = current_schema()").fetchone()
        assert found == (0,)


# ------------------------------------------------------------------------------------------------------------ passwords


def test_a_password_is_told_nobody(postgres: Server, capsys: pytest.CaptureFixture[str]) -> None:
    good = postgres.url("postgres")
    wrong = [
        good.replace(PASSWORD, "s3cret"),  # of somebody else
        good.replace(PASSWORD, "s3%zzcret"),  # which libpq repeats in its complaint
        good.replace(PASSWORD, "s3/cret"),  # so that libpq takes it for a port and a database
        f"{good}?s3cret=1",
        good.replace("/postgres", "/absent").replace(PASSWORD, PASSWORD + "&password=s3cret"),
    ]
    for place in wrong:
        with pytest.raises(UserError) as caught:
            Store(place)
        shown = f"{caught.value} {capsys.readouterr()}"
        assert "\n" not in str(caught.value)
        assert not any(word in shown for word in ("s3", "cret", "ss:word", PASSWORD)), shown
    assert masked(good) == f"postgresql://owner@127.0.0.1:{postgres.port}/postgres"


# -------------------------------------------------------------------------------------------------- a server that fails


def test_a_writer_that_hangs_is_not_waited_for_for_ever(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "'10s'" in database.SESSION
    monkeypatch.setattr(database, "SESSION", database.SESSION.replace("'10s'", "'1s'"))
    with closing(Store(url)) as store, psycopg.connect(url) as hanging:
        hanging.execute("SELECT pg_advisory_xact_lock(%s)", (LOCK,))
        began = time.monotonic()
        with pytest.raises(StoreError, match="writing for too long"):
            store.add_plays([Play("u", "s")])
        assert time.monotonic() - began < 5
        hanging.rollback()
        assert store.add_plays([Play("u", "s")]) == 1, "what was refused has left nothing"


def test_a_commit_that_is_lost_is_told_as_such(url: str, postgres: Server) -> None:
    with closing(Store(url)) as store:
        store.add_plays([Play("u", "s")], "first", "d")
        with pytest.raises(UnsureError), store.database.writing() as connection:
            (pid,) = connection.execute("SELECT pg_backend_pid()").fetchone()
            connection.execute("INSERT INTO deletions (number, song_id) VALUES (1, 'x')")
            with postgres.connect() as killer:
                killer.execute("SELECT pg_terminate_backend(%s)", (pid,))
                assert within(5, lambda: not killer.execute(
                    "SELECT 1 FROM pg_stat_activity WHERE pid = %s", (pid,)).fetchall())  # fmt: skip
        assert store.add_plays([Play("u", "s")], "second", "d") == 2 and store.last() == (0, 2, 0)


def test_a_commit_is_on_disk_whatever_the_server_says(url: str, postgres: Server) -> None:
    """Its `synchronous_commit` is off here."""
    with postgres.connect() as connection:
        assert connection.execute("SHOW synchronous_commit").fetchone() == ("off",)
    with closing(Store(url)) as store, store.database.writing() as connection:
        assert connection.execute("SHOW synchronous_commit").fetchone() == ("on",)


def test_tables_are_on_disk_when_a_store_is_open(url: str, postgres: Server) -> None:
    """Nothing but them has been written when the power goes."""
    Store(url).close()
    postgres.stop("immediate")
    postgres.start()
    with reading(url) as connection:
        assert connection.execute("SELECT count(*) FROM plays").fetchone() == (0,)


def test_nobody_queues_for_a_server_that_is_gone(service_folder: Path, url: str, postgres: Server) -> None:
    """Requests write one after another, and each would wait for the server."""
    with closing(Engine(service_folder, url, 4, follow=1e5)) as engine:
        postgres.stop("immediate")
        try:
            began, failed = time.monotonic(), list[str]()

            def write() -> None:
                with pytest.raises(StoreError) as caught:
                    engine.accept_plays([Play("u00001", "s00001")], None, "")
                failed.append(str(caught.value))

            threads = [threading.Thread(target=write) for _ in range(20)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(60)
            assert len(failed) == 20 and time.monotonic() - began < 15 and "is its server up" in failed[0]
        finally:
            postgres.start()
        time.sleep(1)
        engine.accept_plays([Play("u00001", "s00001")], None, "")
        assert engine.store.counts()["plays"] == engine.state.play == 1


def test_the_server_restarts(service_folder: Path, postgres: Server, url: str, tmp_path: Path) -> None:
    """Requests that need it are refused in a sentence, the others go on; when it is back all is, by itself."""
    with ExitStack() as stack:
        first = stack.enter_context(serving(service_folder, url, log=tmp_path / "first.log"))
        second = stack.enter_context(serving(service_folder, url, log=tmp_path / "second.log"))
        client, other = (stack.enter_context(running.client()) for running in (first, second))
        for key in "abc":  # sent to both at once
            sent = {"data": {"title": key}, "headers": {"idempotency-key": key}}
            told = at_once(lambda number, sent=sent: (client, other)[number].post("/songs", **sent))
            assert [answer.status_code for answer in told] == [201, 201], [answer.text for answer in told]
            assert len({answer.json()["song_id"] for answer in told}) == 1
        made = told[0].json()["song_id"]
        assert within(SOON + 1, lambda: other.get("/model").json()["behind"]["rows"] == 0)
        for how in ("fast", "immediate"):
            postgres.stop(how)
            try:
                for answer in (client.post("/songs", data={"title": how}), other.get("/readyz")):
                    assert answer.status_code == 503 and answer.headers["retry-after"]
                    assert "127.0.0.1" not in answer.text and "\n" not in answer.json()["detail"]
                assert client.get(f"/songs/{made}/audience").status_code == 200, "what is in memory is answered"
            finally:
                postgres.start()
            assert within(20, lambda: client.get("/readyz").status_code == other.get("/readyz").status_code == 200)
            after = client.post("/songs", data={"title": f"after {how}"})
            assert after.status_code == 201, after.text
            told = f"/songs/{after.json()['song_id']}"
            assert within(5, lambda: other.get(told).status_code == 200)  # noqa: B023
        assert "firstplay_rows_behind 0.0" in other.get("/metrics").text
    for log in (tmp_path / "first.log", tmp_path / "second.log"):
        text = log.read_text()
        assert "Traceback" not in text and "ss:word" not in text and "%40" not in text
        assert "cannot be followed" in text and "followed again" in text
    with closing(Store(url)) as store:
        assert len(ids(store)) == 5 and made in ids(store)
