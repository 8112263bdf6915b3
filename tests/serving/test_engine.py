"""A new model beside the old one: nothing that was accepted is lost, and what cannot be used is not taken."""

from __future__ import annotations

import dataclasses
import io
import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from benchmarks.speed.serve_process import ROOT
from configs.errors import UserError
from configs.serving import ServiceConfig
from configs.targeting import IndexConfig
from configs.training import I2IConfig
from data.catalogue import Catalogue
from pipeline import index, service
from serving import answers
from serving import store as stores
from serving.decoding import Decoders, from_flac
from serving.encoder import Content
from serving.engine import Engine
from serving.incoming import Incoming
from serving.model import open_model
from serving.refusals import Refused
from serving.schemas import NewSong
from serving.state import State
from serving.store import Play, Store, StoredSong
from tests.serving.conftest import SMALL, run
from tests.serving.test_decoding import encoded, noise


@pytest.fixture
def folder(service_folder: Path, tmp_path: Path) -> Path:
    """A service folder that may be replaced."""
    shutil.copytree(service_folder, tmp_path / "service")
    return tmp_path / "service"


@pytest.fixture
def engine(folder: Path, tmp_path: Path) -> Iterator[Engine]:
    opened = Engine(folder, tmp_path / "store", 4)
    yield opened
    opened.close()


@pytest.fixture
def engine_of_each(folder: Path, place: str) -> Iterator[Engine]:
    """With a store in each of the databases."""
    opened = Engine(folder, place, 4)
    yield opened
    opened.close()


def test_labels_are_without_the_white_space_around_them() -> None:
    """As in the tables, so that an artist who is sent is the catalogue's."""
    about = NewSong(artist_id=" a 1 ", language="en ", genres=[" folk"], tags=["calm "], song_id=" s ")
    assert (about.artist_id, about.language, about.genres, about.tags) == ("a 1", "en", ["folk"], ["calm"])
    assert about.song_id == " s ", "which is part of a name"


def trained_again(trained: Path, at: Path, *options: str) -> Path:
    """A service folder of the same catalogue, of an i2i model with other options, without a boundary."""
    from training import tasks as train

    data = [f"data={trained}/catalogue", f"out={at}/i2i", "bcl_batch_size=64"]
    run(train.train_i2i, I2IConfig, *data, *options, *SMALL)
    run(index.main, IndexConfig, f"run={at}/i2i", f"out={at}/index")
    run(service.main, ServiceConfig, f"index={at}/index", f"out={at}/service")
    return at / "service"


@pytest.fixture(scope="module")
def other(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Trained from another seed."""
    return trained_again(trained, tmp_path_factory.mktemp("other"), f"features={trained}/features", "seed=5")


@pytest.fixture(scope="module")
def tags_alone(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that knows songs by their tags: no sound, no words, no vectors."""
    return trained_again(trained, tmp_path_factory.mktemp("tags_alone"), "fields.use=[genres,tags,artist_id]")


def accept(engine: Engine, song_id: str, title: str, **about: Any) -> None:
    encoded = engine.encoding.submit(Content({"title": title, **about})).result(30)
    song = StoredSong(song_id, {"title": title, **about}, None, "2026-11-26T00:00:00+00:00", {}, "")
    engine.accept([(song, None, encoded)], None, "")


def there(state: State) -> list[str]:
    """Ids of the accepted songs."""
    return [song.song_id for song in state.accepted.values()]


def named(state: State, song: int) -> set[int]:
    """Who is named for a song by any mode, in the picture of its clusters, or for a new song of their own."""
    model, found = state.model, set[int]()
    for mode in model.modes:
        for gate in (False, True):
            found |= set(answers.audience(state, song, mode, model.n_users, gate, -99.0).users_B.tolist())
    found |= {model.user_of[point["user_id"]] for point in answers.cluster_picture(state, song)["points"]}
    return found | {user for user in range(model.n_users) if len(answers.recommendations(state, user, 5, -99.0)[0])}


def test_who_has_opted_out_is_not_named_by_the_next_answer(folder: Path, place: str) -> None:
    """Nor after a restart, nor by another model; until they opt in again."""
    with closing(Engine(folder, place, 4)) as engine:
        state, song = engine.state, int(engine.state.model.new[0])
        model, everybody = state.model, named(state, song)
        out = sorted(everybody)[::2]
        ids = [model.user_ids[user] for user in out]
        before = answers.margin_curve(state, song)["users"]
        assert engine.opt_out([*ids, "a stranger"], True) == len(out) + 1 and engine.opt_out(ids, True) == 0
        assert named(state, song) == everybody - set(out)
        assert answers.margin_curve(state, song)["users"] == before - len(out)
        some = answers.audience(
            state, song, "taste", 1000, False, 0.0, answers.song_of(state, song, "member_days > 99")
        )
        assert not set(out) & set(some.users_B.tolist()) and 0 < some.users < model.n_users - len(out)
        accept(engine, "x", "Rain on the roof")
        engine.accept_plays([Play(ids[0], "x", favourited=True)], None, "")
        assert engine.delete("x") and named(state, song) == everybody - set(out), "plays and deletions change nothing"
        assert engine.opt_out(ids[:2], False) == 2
        assert engine.reload() and engine.state is not state
        assert named(engine.state, song) == everybody - set(out[2:])
    with closing(Engine(folder, place, 4)) as engine:
        assert engine.state.opted_out.tolist() == out[2:] and named(engine.state, song) == everybody - set(out[2:])
        assert engine.opt_out(list(engine.state.model.user_ids), True) == model.n_users - len(out[2:])
        assert named(engine.state, song) == set() and answers.margin_curve(engine.state, song)["users"] == 0


def rewrite(folder: Path, **changes: Any) -> None:
    """Change a manifest."""
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(manifest | changes))


def replace(folder: Path, by: Path) -> None:
    """As `artifacts.folders.writing` does it."""
    shutil.copytree(by, folder.with_name(".service.part"))
    folder.rename(folder.with_name(".service.old"))
    folder.with_name(".service.part").rename(folder)
    shutil.rmtree(folder.with_name(".service.old"))


def test_a_new_model_takes_over_with_all_that_was_accepted(engine: Engine, folder: Path, other: Path) -> None:
    accept(engine, "a", "Rain on the roof")
    accept(engine, "b", "Rain on the roof")
    user = engine.state.model.user_ids[3]
    engine.accept_plays([Play(user, "a", completed=True)], None, "")
    assert engine.delete("b") and not engine.changed()
    before = engine.state
    replace(folder, other)
    assert engine.changed() and engine.reload() and not engine.changed()
    after = engine.state
    assert after is not before and after.model.manifest["encoder"] != before.model.manifest["encoder"]
    assert not after.model.has_boundary and there(after) == ["a"]
    number = after.number("a")
    assert number is not None and after.first_plays(number) == 1
    ((_, stored),) = engine.store.songs()
    expected = Content({"title": "Rain on the roof", "released_at": stored.added_at[:10]})
    vector, _ = after.model.encoder.vectors(after.model.encoder.features([expected]), [expected.about])
    np.testing.assert_allclose(after.content[number][0], vector[0], atol=1e-5)
    accept(engine, "c", "Sun")
    assert engine.state.number("c") is not None
    assert 3 not in answers.audience(after, number, "taste", 1000, False, 0.0).users_B


@pytest.mark.parametrize("when", ["after it was read", "before it is read", "while it is read"])
def test_what_comes_and_goes_while_the_new_model_is_loaded(
    engine_of_each: Engine, folder: Path, other: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    """A song is deleted, another deleted and sent again, a third new: so the new state has them, each once."""
    engine = engine_of_each
    for song_id in ("x", "y", "gone"):
        accept(engine, song_id, f"First {song_id}")
    user = engine.state.model.user_ids[1]
    engine.accept_plays([Play(user, "x", favourited=True)], None, "")
    built, read = engine._built, engine.store.changes

    def exchange() -> None:
        engine.delete("x")
        engine.delete("gone")
        accept(engine, "x", "Second x")
        accept(engine, "new", "Just in time")
        engine.accept_plays([Play(user, "y", favourited=True)], None, "")

    def meanwhile() -> Any:
        if when == "before it is read":
            exchange()
        found = built()
        if when == "after it was read":
            exchange()
        return found

    def reading(made_by: str = "", after: int = 0) -> Iterator[tuple[int, list[str], list[StoredSong]]]:
        for found in read(made_by, after):
            yield found
            if found[2] and found[2][0].about["title"] == "First x" and when == "while it is read":
                exchange()
                yield from read(made_by, found[0])
                return

    monkeypatch.setattr(engine, "_built", meanwhile)
    monkeypatch.setattr(engine.store, "changes", reading)
    monkeypatch.setattr(stores, "SONGS", 1)
    replace(folder, other)
    assert engine.reload()
    state = engine.state
    assert sorted(there(state)) == ["new", "x", "y"] and engine.store.counts() == {"songs": 3, "plays": 2}
    assert state.pool.size == state.new_index.ntotal == len(state.model.new) + 3
    assert state.title(state.number_of["x"]) == "Second x"
    assert [state.first_plays(state.number_of[song_id]) for song_id in ("x", "y", "new")] == [1, 1, 0]


def test_what_the_new_model_cannot_take_is_to_be_sent_again(
    engine: Engine, folder: Path, tags_alone: Path, service_folder: Path
) -> None:
    """A vector that was looked at by the old model and is encoded, or stored, by the new one."""
    width = engine.state.model.encoder.widths["clip_audio"]
    content = Content({"genres": ["folk"]}, given={"clip_audio": np.ones(width, dtype=np.float32)})
    encoded = engine.encoding.submit(content).result(30)
    replace(folder, tags_alone)
    assert engine.reload() and not engine.state.model.encoder.widths
    song = StoredSong("late", content.about, None, "2026-11-26T00:00:00+00:00", {}, "")
    for attempt in (
        lambda: engine.accept([(song, None, encoded)], None, ""),
        lambda: engine.encoding.submit(content).result(30),
    ):
        with pytest.raises(Refused) as refused:
            attempt()
        assert refused.value.status == 503 and "clip_audio" in refused.value.detail
    assert engine.store.counts()["songs"] == 0
    accept(engine, "another", "Words", genres=["folk"])  # it goes on
    replace(folder, service_folder)
    assert engine.reload() and there(engine.state) == ["another"]


def test_a_recording_is_heard_at_the_new_models_rate(engine: Engine, folder: Path, service_folder: Path) -> None:
    """Decoders go on at the rate of the model at the start."""
    slow = folder.parent / "slow"
    shutil.copytree(service_folder, slow)
    rewrite(slow, audio=json.loads((slow / "manifest.json").read_text())["audio"] | {"sample_rate": 8000})
    decoders = Decoders(1)
    try:
        incoming = Incoming(engine, decoders, 30.0)
        replace(folder, slow)
        assert engine.reload()
        incoming.song(NewSong(song_id="sound"), encoded(noise(2), "flac"), None)
    finally:
        decoders.close()
    state, flac = engine.state, engine.store.audio("sound")
    stored = state.stored(state.number_of["sound"])
    assert flac is not None and stored is not None and stored.seconds == 2.0
    assert soundfile.info(io.BytesIO(flac)).duration == 2.0
    again = state.model.encoder.features([Content({}, from_flac(flac, 8000))])  # as the next start would
    np.testing.assert_allclose(stored.features["clip_audio"], again["clip_audio"][0], atol=1e-3)


def test_a_damaged_recording_keeps_no_model_from_the_others(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """SQLite keeps no checksums: the byte is seen when another encoder hears the recording."""
    about = {"title": "Rain on the roof"}
    song = StoredSong("dented", about, 2.0, "2026-11-26T00:00:00+00:00", {}, "another encoder")
    with closing(Store(tmp_path / "store")) as store:
        store.add_songs([(song, b"fLaC, once"), (dataclasses.replace(song, song_id="whole"), None)])
    opened = Engine(folder, tmp_path / "store", 4)
    vectors = [opened.state.vectors(opened.state.number_of[one])[0] for one in ("dented", "whole")]
    opened.close()
    np.testing.assert_array_equal(*vectors)
    assert "'dented'" in caplog.text and "whole" not in caplog.text


def test_a_folder_that_is_replaced_while_it_is_read_is_read_again(
    folder: Path, other: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Index and encoder were read of the old version when the tables of the new one come."""
    read, replaced = Catalogue.read, []

    def meanwhile(of: Path) -> Catalogue:
        if not replaced:
            replaced.append(replace(folder, other))
        return read(of)

    monkeypatch.setattr(Catalogue, "read", meanwhile)
    model = open_model(folder)
    assert model.manifest == json.loads((other / "manifest.json").read_text()) and not model.has_boundary
    assert model.index.manifest["encoder"] == model.manifest["encoder"]


@pytest.mark.parametrize("fault", ["another encoder", "no weights", "no manifest", "half an index", "no text model"])
def test_what_cannot_be_used_is_not_taken(
    engine: Engine, folder: Path, service_folder: Path, tmp_path: Path, fault: str
) -> None:
    bad = tmp_path / "bad"
    shutil.copytree(service_folder, bad)
    if fault == "another encoder":
        rewrite(bad / "index", encoder="0123")
    elif fault == "no text model":
        rewrite(bad, text=json.loads((bad / "manifest.json").read_text())["text"] | {"model": str(tmp_path)})
    elif fault == "half an index":
        whole = (bad / "index" / "index.faiss").read_bytes()
        (bad / "index" / "index.faiss").write_bytes(whole[: len(whole) // 2])
    else:
        (bad / {"no weights": "i2i/model.safetensors", "no manifest": "manifest.json"}[fault]).unlink()
    before = engine.state
    replace(folder, bad)
    assert not engine.reload() and engine.state is before and engine.reload_error
    assert "another encoder" in engine.reload_error or fault != "another encoder"
    accept(engine, "still", "Still here")
    with pytest.raises(UserError):
        Engine(folder, tmp_path / "second", 4)
    Store(tmp_path / "second").close()  # it was let go of
    replace(folder, service_folder)
    assert engine.reload() and engine.reload_error is None and engine.state.number("still") is not None


def test_no_request_fails_while_models_are_exchanged(
    folder: Path, other: Path, service_folder: Path, tmp_path: Path, serve: Any
) -> None:
    with serve(folder, tmp_path / "store", "watch_seconds=0.2") as running, running.client() as client:
        failed, ended, encoders, made = [], threading.Event(), set(), []

        def ask(name: str) -> None:
            at = 0
            with running.client() as own:
                while not ended.is_set():
                    at += 1
                    answers = [
                        own.get("/songs/s00001/audience"),
                        own.post(
                            "/songs", data={"title": f"{name} {at}", "song_id": f"{name}-{at}"}, params={"budget": 3}
                        ),
                        own.post("/plays", json={"plays": [{"user_id": "u00001", "song_id": "s00001"}]}),
                    ]
                    failed.extend(answer.text for answer in answers if answer.status_code not in (200, 201))
                    made.append(f"{name}-{at}")

        threads = [threading.Thread(target=ask, args=(name,)) for name in ("one", "two")]
        for thread in threads:
            thread.start()
        for by in (other, service_folder):
            replace(folder, by)
            wanted = json.loads((by / "manifest.json").read_text())["encoder"]
            for _ in range(600):
                encoders.add(client.get("/model").json()["encoder"])
                if client.get("/model").json()["encoder"] == wanted:
                    break
                ended.wait(0.05)
            else:
                raise AssertionError(client.get("/model").text)
        ended.set()
        for thread in threads:
            thread.join(60)
        assert not failed and len(encoders) == 2 and len(made) >= 2
        listed = {one["song_id"] for one in client.get("/songs", params={"limit": 1000}).json()["songs"]}
        assert set(made) <= listed and client.get("/model").json()["accepted_songs"] == len(made)
        assert client.get("/model").json()["plays_received"] == len(made)


def test_it_starts_without_what_training_needs() -> None:
    """And texts are read by what is imported when the service listens already."""
    code = "import sys, serving.server; assert not {'lightning', 'transformers'} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
