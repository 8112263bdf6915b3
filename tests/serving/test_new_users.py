"""Users whom the training has not seen: by their plays they are as if it had, but for the profile."""

from __future__ import annotations

import shutil
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from configs.errors import UserError
from configs.serving import ServiceConfig
from data.catalogue import Catalogue
from data.item_pairs.verification import listening_matrix
from data.play_tables import strength
from inference.ranking import ranker_in, read_ranker, song_facts
from inference.targeting import options_of, targeting_of
from inference.vectors import boundary_vectors
from retrieval.listening import Listening
from retrieval.targeting import Targeting
from serving import answers
from serving.engine import Engine
from serving.model import Model
from serving.state import State
from serving.store import Play

NOW = datetime(2026, 11, 30, tzinfo=UTC)
MARKS: list[dict[str, Any]] = [{}, {"completed": True}, {"favourited": True}, {"disliked": True}]
NAMES = [f"newcomer {n}" for n in range(6)]


@pytest.fixture
def model(service_folder: Path) -> Model:
    return Model(service_folder)


def played(model: Model, rng: np.random.Generator) -> list[Play]:
    """What newcomers have played of known songs, one after another."""
    warm = model.catalogue.rows("warm")
    return [
        Play(name, model.song_ids[int(rng.choice(warm))], NOW + timedelta(minutes=minute), **MARKS[rng.integers(4)])
        for minute, name in enumerate(rng.choice(NAMES, 60).tolist() + NAMES)
    ]


def with_newcomers(trained: Path, state: State, plays: list[Play], to: Path) -> Catalogue:
    """The catalogue, as if the newcomers had been in it."""
    shutil.copytree(trained / "catalogue", to, symlinks=True)
    known = Catalogue.read(to)
    users = pl.concat([known.users, pl.DataFrame({"user_id": state.joined})], how="diagonal")
    more = pl.DataFrame(
        [
            {
                "user": state.user(play.user_id), "song": state.model.song_of[play.song_id],
                "strength": strength(play), "played_at": play.played_at,
                **{name: getattr(play, name) for name in ("completed", "favourited", "disliked")},
            }
            for play in sorted(plays, key=lambda play: state.joined.index(play.user_id))
        ]
    )  # fmt: skip
    columns = [pl.col(name).cast(known.plays.schema[name]) for name in more.columns if name in known.plays.columns]
    pl.concat([known.plays, more.select(columns)], how="diagonal").write_parquet(to / "plays.parquet")
    users.write_parquet(to / "users.parquet")
    return Catalogue.read(to)


def as_trained(trained: Path, model: Model, catalogue: Catalogue) -> Targeting:
    """Targeting on a catalogue with the vectors that the trained models make of it."""
    songs = np.arange(catalogue.n_songs)
    boundary = boundary_vectors(trained / "boundary", songs, str(catalogue.folder), str(trained / "features"))
    listening = Listening(listening_matrix(catalogue.plays, catalogue.n_users, catalogue.n_songs))
    ranker = ranker_in(trained / "rank", read_ranker(trained / "rank"), catalogue, 64.0)
    batch = targeting_of(model.index, listening, model.options, boundary, ranker)
    batch.popularity_S = model.targeting.popularity_S  # a service goes by that of its training until the next
    return batch


def test_they_are_as_if_the_training_had_seen_them(trained: Path, model: Model, tmp_path: Path) -> None:
    """Their vectors and boundaries, and where they come in the list of every mode."""
    model.options = replace(model.options, activity_power=0.5)
    model.targeting.options = options_of(model.options)
    del model.targeting.activity_U  # which was made without it
    plays, state = played(model, np.random.default_rng(0)), State(model)
    state.add_plays(plays)
    new = np.arange(model.n_users, state.n_users)
    assert state.joined == list(dict.fromkeys(play.user_id for play in plays)) and len(new) == len(NAMES)
    batch = as_trained(trained, model, with_newcomers(trained, state, plays, tmp_path / "catalogue"))
    assert batch.user_UD is not None and batch.boundary_U is not None
    np.testing.assert_allclose(model.user_UD[new], batch.user_UD[new], atol=1e-5)
    np.testing.assert_allclose(model.boundary_U[new], batch.boundary_U[new], atol=1e-5)
    np.testing.assert_allclose(model.targeting.taste.user_UD[new], batch.taste.user_UD[new], atol=1e-5)
    np.testing.assert_allclose(model.targeting.activity_U[new], batch.activity_U[new])
    places = dict[str, int]()
    for song in model.new[:5].tolist():
        vector, item = state.vectors(song)
        assert item is not None and batch.ranker is not None
        facts = song_facts(batch.ranker.source, model.catalogue, np.array([song]))
        asked = batch.songs(vector[None], np.array([song]), item[None], facts=facts)
        for mode in model.modes:
            ours = answers.audience(state, song, mode, 1000, False, -0.02)
            theirs = batch.audience(asked, mode, 1000, False, -0.02)
            n = int((theirs.users_CB >= 0).sum())
            near = 5e-4 if mode == "union" else 1e-5
            np.testing.assert_allclose(ours.scores_B, theirs.scores_CB[0, :n], rtol=1e-4, atol=near, err_msg=mode)
            same_B = ours.users_B == theirs.users_CB[0, :n]
            assert same_B.mean() > 0.9 or mode in ("cat", "union")
            assert set(ours.users_B.tolist()) == set(theirs.users_CB[0, :n].tolist()), mode
            assert ours.users == model.n_users + len(NAMES)
            places[mode] = places.get(mode, 0) + len(np.intersect1d(ours.users_B, new))
    assert places.keys() == set(model.modes) and all(places.values()), "they are named in every mode"


def test_recommendations_and_a_condition(model: Model) -> None:
    """Of an unknown profile, they are who has no country; what they have met does not come again."""
    state = State(model)
    state.add_plays(played(model, np.random.default_rng(1)))
    song, user = int(model.new[0]), state.user(NAMES[0])
    assert user is not None and state.user_id(user) == NAMES[0]
    margin_N = model.item_SD[model.new] @ model.user_UD[user] - model.boundary_U[user]
    numbers, margins, because, _ = answers.recommendations(state, user, 9, -99.0)
    assert (
        numbers.tolist() == model.new[np.argsort(-margin_N, kind="stable")[:9]].tolist() and (because[:, 0] >= 0).all()
    )
    np.testing.assert_allclose(margins, np.sort(margin_N)[::-1][:9], atol=1e-5)
    for where, are_in in (("member_days is null", True), ("member_days >= 0", False)):
        of = answers.song_of(state, song, where)
        found = answers.audience(state, song, "taste", 1000, False, 0.0, of)
        assert (user in found.users_B) == are_in
    state.add_plays([Play(NAMES[0], model.song_ids[song], favourited=True)])
    assert user not in answers.audience(state, song, "taste", 1000, False, 0.0).users_B and user in state.met[song]
    assert song not in answers.recommendations(state, user, 9, -99.0)[0]


def same(one: State, other: State) -> None:
    """Two states have the same newcomers in the same rows."""
    assert one.joined == other.joined and one.opted_out.tolist() == other.opted_out.tolist()
    for name in ("user_UD", "boundary_U"):
        np.testing.assert_allclose(getattr(one.model, name), getattr(other.model, name), atol=1e-5)
    np.testing.assert_allclose(one.model.targeting.taste.user_UD, other.model.targeting.taste.user_UD, atol=1e-5)


def test_they_survive_a_restart_and_others_follow_them(service_folder: Path, place: str) -> None:
    """With their opt-outs, told before they come or after."""
    with closing(Engine(service_folder, place, 4)) as engine:
        state = engine.state
        model, song = state.model, int(state.model.new[0])
        assert engine.opt_out([NAMES[0], NAMES[1]], True) == 2 and engine.opt_out([NAMES[1]], False) == 1
        engine.accept_plays(played(model, np.random.default_rng(2)), None, "")
        assert engine.opt_out([NAMES[2]], True) == 1
        out = {state.user(NAMES[0]), state.user(NAMES[2])}
        assert set(state.opted_out.tolist()) == out
        for mode in model.modes:
            named = set(answers.audience(state, song, mode, 1000, False, -99.0).users_B.tolist())
            assert not out & named and (named & set(range(model.n_users, state.n_users)) or mode in ("i2i2u", "rank"))
        assert answers.margin_curve(state, song)["users"] == model.n_users + len(NAMES) - 2
        if engine.store.shared:
            with closing(Engine(service_folder, place, 4)) as other:
                same(state, other.state)
                other.accept_plays([Play("one more", model.song_ids[song])], None, "")
                engine.follow()
                same(state, other.state)
                assert state.joined[-1] == "one more"
        assert engine.reload() and engine.state is not state
        same(state, engine.state)
    with closing(Engine(service_folder, place, 4)) as engine:
        same(state, engine.state)


def test_once_no_row_is_free_plays_wait_for_the_next_training(service_folder: Path, tmp_path: Path) -> None:
    with closing(Engine(service_folder, tmp_path / "store", 4)) as engine:
        state, song = engine.state, engine.state.model.song_ids[0]
        room = state.model.n_rows - state.model.n_users
        plays = [Play(f"n{n}", song) for n in range(room + 5)]
        engine.accept_plays(plays, None, "")
        assert state.joined == [play.user_id for play in plays[:room]] and state.user(f"n{room}") is None
        assert engine.store.counts()["plays"] == room + 5
        assert len(state.met[0]) == room
        engine.accept_plays([Play("n0", engine.state.model.song_ids[1])], None, "")
        assert len(state.played[state.model.n_users]) == 2, "who is in goes on"


def test_a_service_folder_without_room(trained: Path, tmp_path: Path) -> None:
    from pipeline import service
    from tests.serving.conftest import run

    options: list[Any] = [f"index={trained}/index", f"out={tmp_path}/service", "new_users=0"]
    run(service.main, ServiceConfig, *options)
    state = State(Model(tmp_path / "service"))
    state.add_plays([Play("nobody", state.model.song_ids[0])])
    assert state.joined == [] and state.n_users == state.model.n_rows == state.model.n_users
    with pytest.raises(UserError, match="new_users=-1"):
        run(service.main, ServiceConfig, *options[:2], "new_users=-1")
