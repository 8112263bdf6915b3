"""Song by song, the service says what the pipeline's commands say of all songs together."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from scipy import sparse

from configs.load import load
from configs.targeting import AudienceConfig
from data.arrays import FloatArray
from data.catalogue import Catalogue
from data.contract.columns import ABOUT
from pipeline import audience
from retrieval.clusters import user_vectors
from retrieval.warm_up import warm_vectors
from serving import answers, shown
from serving.encoder import Content
from serving.histories import category_codes, tower_vectors
from serving.model import Model
from serving.refusals import Refused
from serving.state import State
from serving.store import Play, StoredSong

BUDGET = 12


@pytest.fixture(scope="module")
def model(service_folder: Path) -> Model:
    return Model(service_folder)


@pytest.fixture
def state(service_folder: Path) -> Iterator[State]:
    """A state that a test may change."""
    yield State(Model(service_folder))


def test_who_has_no_taste_is_kept_beside_the_tastes(state: State) -> None:
    model, user = state.model, 7
    for tastes in (model.targeting.taste, model.targeting.cat_taste):  # as if they were new
        tastes.user_UD[user], tastes.empty_U[user] = 0, True
    asked = (state, int(model.new[0]), "taste", model.n_users, False, 0.0)
    assert user not in answers.audience(*asked).users_B
    known = next(song for song in range(model.n_songs) if song not in set(model.new.tolist()))
    state.add_plays([Play(model.user_ids[user], state.song_id(known), favourited=True)])
    assert user in answers.audience(*asked).users_B
    for tastes in (model.targeting.taste, model.targeting.cat_taste):
        np.testing.assert_array_equal(tastes.empty_U, ~tastes.user_UD.any(axis=1))


def test_words_of_new_songs_are_searched(state: State) -> None:
    model, number = state.model, state.model.n_songs
    about = {"title": "An AUTUMN tune", "genres": ["jazz", "Folk"]}
    state.add_songs([StoredSong("mine", about, None, "", {}, "")], model.index.vectors[:1], model.item_SD[:1])
    for query in ("autumn", "FOLK", "mine", "s001", "a0000", "z", "no such words", "jazz", ""):
        found = []
        for song in [number, *model.new[::-1].tolist()]:
            words = {**state.about(song), "song_id": state.song_id(song)}
            texts = [words["song_id"], words.get("title"), words.get("artist_id"), *(words.get("genres") or [])]
            if any(query.lower() in text.lower() for text in texts if text):
                found.append(song)
        assert shown.matching(state, query) == found, query
        assert found or query == "no such words", "else this test says little"


def test_words_alone_and_sound_alone(model: Model) -> None:
    wave = np.random.default_rng(0).normal(0, 0.1, 32_000).astype(np.float32)
    sound, words = Content({}, wave), Content(model.about(int(model.new[0])))
    nothing = Content({"title": "  ", "genres": ["unheard of"]})
    features = model.encoder.features([sound, words, nothing])
    assert np.isfinite(features["clip_audio"]).all(axis=1).tolist() == [True, False, False]
    assert np.isfinite(features["clip_text"]).all(axis=1).tolist() == [False, True, False]
    assert [model.encoder.says_nothing(one) for one in (sound, words)] == [False, False]
    assert model.encoder.says_nothing(Content(dict.fromkeys(ABOUT)))
    assert model.encoder.says_nothing(Content({"released_at": "2026-06-01"})), "a year alone is too little"
    guesses = model.encoder.guess({name: values[0] for name, values in features.items()})
    scores = model.encoder.labels_LD @ features["clip_audio"][0]
    assert [one["label"] for one in guesses] == [model.manifest["labels"][at] for at in np.argsort(-scores)[:5]]
    assert model.encoder.guess({name: values[2] for name, values in features.items()}) == []


@pytest.mark.parametrize("mode", ["i2i2u", "taste", "cat", "union", "boundary"])
@pytest.mark.parametrize("gate", [False, True])
def test_an_audience_is_that_of_the_command(model: Model, trained: Path, tmp_path: Path, mode: str, gate: bool) -> None:
    options = [f"mode={mode}", f"gate={str(gate).lower()}", f"index={trained}/index", f"boundary={trained}/boundary"]
    options += ["split=cold", "targeting.margin=0.05", f"targeting.budget={BUDGET}", f"out={tmp_path}/audience"]
    audience.main(load(AudienceConfig, options))
    expected = pl.read_parquet(tmp_path / "audience" / "audience.parquet")
    similar = pl.read_parquet(tmp_path / "audience" / "similar.parquet")
    state = State(model)
    for song in model.new.tolist()[: 1 if mode in ("cat", "union") else 8]:  # k-means draws by a song's place
        rows = expected.filter(pl.col("song_id") == model.songs["song_id"][song])
        found = answers.audience(state, song, mode, BUDGET, gate, 0.05)
        assert [model.user_ids[int(user)] for user in found.users_B] == rows["user_id"].to_list()
        np.testing.assert_allclose(found.scores_B, rows["score"], rtol=1e-4)
        np.testing.assert_allclose(found.margins_B, rows["margin"], rtol=1e-3, atol=1e-4)
        because = [[model.songs["song_id"][int(one)] for one in row if one >= 0] for row in found.because_BT]
        assert because == rows["because"].to_list()
        near = similar.filter(pl.col("song_id") == model.songs["song_id"][song])["similar_song_id"].to_list()
        assert [state.song_id(int(one)) for one in answers.similar_songs(state, song, len(near))[0]] == near
        of, most = answers.song_of(state, song), model.options.neighbours
        for k in (1, 5, most, most + 10):  # the last is more than the song's neighbours
            searched, known = (answers.similar_songs(state, song, k, of=one) for one in (None, of))
            np.testing.assert_array_equal(np.stack(searched), np.stack(known))


def test_similar_songs_of_a_condition_are_brute_force(model: Model) -> None:
    """Of new songs and of known ones, which are not among their own."""
    state, songs = State(model), model.songs.with_row_index()
    language = songs["language"].drop_nulls().mode().sort()[0]
    genre = songs["genres"].explode().drop_nulls().mode().sort()[0]
    of_genre = pl.col("genres").list.contains(genre)
    conditions = {
        f'language == "{language}"': pl.col("language") == language,
        f'not ("{genre}" in genres) and language is not null': ~of_genre & pl.col("language").is_not_null(),
        f'"{genre}" in genres and released_at < "2026-01-01"': of_genre & (pl.col("released_at").dt.year() < 2026),
        f'song_id == "{songs["song_id"][3]}"': pl.col("song_id") == songs["song_id"][3],
        "language == 'no such'": pl.lit(False),
    }
    for where, rows in conditions.items():
        allowed = songs.filter(rows, split="warm")["index"].to_numpy()
        for number in (*model.new[:4].tolist(), *allowed[:2].tolist()):
            others = np.setdiff1d(allowed, [number])
            score = model.index.vectors[others] @ model.index.vectors[number]
            order = np.argsort(-score, kind="stable")[:15]
            found, scores = answers.similar_songs(state, number, 15, where=where)
            np.testing.assert_array_equal(found, others[order])
            np.testing.assert_allclose(scores, score[order], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("mode", ["i2i2u", "taste", "cat", "union", "boundary", "rank"])
@pytest.mark.parametrize("gate", [False, True])
def test_an_audience_of_some_users_is_that_of_the_command(
    model: Model, trained: Path, tmp_path: Path, mode: Any, gate: bool
) -> None:
    where = 'country != "US" and (member_days < 300 or gender is null)'
    options = [f"mode={mode}", f"gate={str(gate).lower()}", f"index={trained}/index", f"boundary={trained}/boundary"]
    options += ["split=cold", "targeting.margin=-0.05", f"targeting.budget={BUDGET}", f"users_where={where}"]
    audience.main(load(AudienceConfig, [*options, f"rank={trained}/rank", f"out={tmp_path}/audience"]))
    expected = pl.read_parquet(tmp_path / "audience" / "audience.parquet")
    fits = (pl.col("country") != "US") & ((pl.col("member_days") < 300) | pl.col("gender").is_null())
    fitting = model.catalogue.users.filter(fits)["user_id"].to_list()
    assert 0 < len(fitting) < model.n_users and set(expected["user_id"]) <= set(fitting)
    state = State(model)
    for song in model.new.tolist()[: 1 if mode in ("cat", "union", "rank") else 8]:
        of = answers.song_of(state, song, where)
        found = answers.audience(state, song, mode, BUDGET, gate, -0.05, of)
        rows = expected.filter(pl.col("song_id") == model.songs["song_id"][song])
        assert [model.user_ids[int(user)] for user in found.users_B] == rows["user_id"].to_list()
        everybody = answers.audience(state, song, "boundary", model.n_users, True, -0.05).users_B
        above = {model.user_ids[int(user)] for user in everybody} & set(fitting)
        assert (found.users, found.above) == (len(fitting), len(above))
        if mode == "taste":
            assert len(found.users_B) == min(BUDGET, len(above) if gate else len(fitting)), "before, not after"


def test_a_condition_of_nobody_and_one_that_is_none(state: State) -> None:
    for mode in state.model.modes:
        found = shown.audience(state, int(state.model.new[0]), mode, BUDGET, False, 0.0, "member_days < 0")
        assert (found.users, found.users_total, found.above_boundary) == ([], 0, 0)
    for where, wrong in (("age > 3", "age is not a column"), ("country > 3", "holds text, not 3"), ("=", "not a cond")):
        with pytest.raises(Refused, match=wrong) as caught:
            answers.song_of(state, 0, where)
        assert caught.value.status == 422 and "columns: user_id (text), age_group (text)" in str(caught.value)


@pytest.mark.parametrize("mode", ["i2i2u", "taste", "cat", "union", "boundary"])
def test_who_has_met_a_song_in_the_training_is_not_named_for_it_again(model: Model, mode: str) -> None:
    """So it is with a song that came in and that the next model was trained on."""
    state, plays = State(model), Catalogue.read(model.catalogue.manifest["of"]).plays
    for song in model.catalogue.rows("warm")[:6].tolist():
        met = set(plays.filter(pl.col("song") == song)["user"].to_list())
        found = answers.audience(state, song, mode, model.n_users, False, -10.0).users_B.tolist()
        assert len(met) > 0 < len(found) and not met & set(found)


def test_recommendations_are_brute_force(state: State) -> None:
    """Users play known and new songs before, which changes vectors, and who has met what."""
    model, rng = state.model, np.random.default_rng(0)
    songs = [model.song_ids[int(song)] for song in [*model.new[:6], *range(20)]]
    state.add_plays([Play(model.user_ids[int(user)], str(rng.choice(songs)), None, True) for user in range(0, 60, 3)])
    for user in range(0, model.n_users, 7):
        margin = state.pool.item @ model.user_UD[user] - model.boundary_U[user]
        least = float(np.median(margin))
        met = {song for song, _ in state.played.get(user, ())}
        best = [at for at in np.argsort(-margin, kind="stable") if margin[at] > least and model.new[at] not in met][:5]
        numbers, margins, because, considered = answers.recommendations(state, user, 5, least)
        assert numbers.tolist() == model.new[best].tolist() and considered == len(model.new)
        np.testing.assert_allclose(margins, margin[best], rtol=1e-5, atol=1e-6)
        heard = model.targeting.listening.known_SU[:, [user]].nonzero()[0]
        for at, why in zip(best, because, strict=True):
            nearest = heard[np.argsort(-(model.index.vectors[heard] @ state.pool.vector[at]), kind="stable")[:3]]
            assert why[why >= 0].tolist() == nearest.tolist()


def test_margins_and_clusters(model: Model) -> None:
    state, song = State(model), int(model.new[2])
    margin = (model.user_UD @ model.item_SD[song] - model.boundary_U)[: model.n_users]
    curve = answers.margin_curve(state, song)
    assert curve["above"] == (margin > 0).sum() and sum(curve["counts"]) == curve["users"] == model.n_users
    for point in curve["curve"]:
        assert point["reached"] == pytest.approx((margin > point["margin"]).mean(), abs=1.5 / model.n_users)
        assert point["liked"] is None or 0 <= point["liked"] <= 1
        if curve["calibration"]:
            slope, intercept = curve["calibration"]
            assert point["liked"] == pytest.approx(1 / (1 + np.exp(-slope * point["margin"] - intercept)), rel=1e-5)
    picture = answers.cluster_picture(state, song)
    sizes = np.bincount([point["cluster"] for point in picture["points"]], minlength=len(picture["centroids"]))
    assert [one["size"] for one in picture["centroids"]] == sizes.tolist() and len(picture["points"]) > 20
    assert all(0 < genre["share"] <= 1 for one in picture["centroids"] for genre in one["genres"])


def stored(model: Model, song_id: str, like: int) -> tuple[StoredSong, Any, Any]:
    """A song that has the content of one of the catalogue."""
    features = {name: np.array(dense[like]) for name, dense in model.dense.items()}
    song = StoredSong(song_id, model.about(like), None, "2026-11-26T00:00:00+00:00", features, "")
    return song, model.index.vectors[like][None], model.item_SD[like][None]


def test_accepted_songs_come_and_go(state: State) -> None:
    model, like = state.model, int(state.model.new[3])
    for name in ("a", "b", "c"):
        song, vector, item = stored(model, name, like)
        state.add_songs([song], vector, item)
    before = answers.audience(state, like, "i2i2u", 10, False, 0.0).users_B
    for name in ("a", "b", "c"):
        number = state.number(name)
        assert number is not None and state.about(number) == model.about(like) and state.song_id(number) == name
        np.testing.assert_array_equal(answers.audience(state, number, "i2i2u", 10, False, 0.0).users_B, before)
    state.remove_song("a")
    assert state.number("a") is None and state.pool.size == state.new_index.ntotal == len(model.new) + 2
    songs, scores = answers.similar_songs(state, like, 3, "new")
    others = np.array([*np.delete(state.model.new, 3), *state.accepted])
    vectors = np.stack([state.vectors(int(one))[0] for one in others])
    assert set(songs[:2].tolist()) == set(state.accepted), "the same content is the most similar"
    np.testing.assert_allclose(scores, np.sort(vectors @ state.vectors(like)[0])[::-1][:3], rtol=1e-5)
    for name in ("b", "c"):  # whatever moved in the arrays
        number = state.number(name)
        assert number is not None
        np.testing.assert_array_equal(state.vectors(number)[0], model.index.vectors[like])
    song, vector, item = stored(model, "a", like)
    state.add_songs([song], vector, item)
    assert state.number("a") != state.number("b") and state.pool.size == len(model.new) + 3


def of_users(model: Model) -> dict[str, FloatArray]:
    """Arrays of users that follow from what they played."""
    tastes = {"taste": model.targeting.taste.user_UD, "CAT": model.targeting.cat_taste.user_UD}
    return {**tastes, "tower": model.user_UD, "boundary": model.boundary_U}


def test_plays_change_whom_they_concern_and_nobody_else(state: State, service_folder: Path) -> None:
    fresh, model, new = Model(service_folder), state.model, int(state.model.new[0])
    known = int(model.catalogue.rows("warm")[0])
    listeners = model.targeting.listening.known_SU[known].indices
    users = np.setdiff1d(np.arange(model.n_users), listeners)[:3].tolist()
    of_song = model.songs["song_id"]
    plays = [Play(model.user_ids[user], of_song[known], favourited=True) for user in users]
    plays += [Play(model.user_ids[user], of_song[new], completed=True) for user in users[:2]]
    plays += [Play(model.user_ids[users[2]], of_song[new], skipped=True)]
    state.add_plays(plays)
    others = np.setdiff1d(np.arange(model.n_users), users)
    for name, now in of_users(model).items():
        np.testing.assert_array_equal(now[others], of_users(fresh)[name][others], err_msg=name)
        assert not np.allclose(now[users], of_users(fresh)[name][users]), name
    listening = fresh.listening_US.tolil()
    listening[users, known] = 3.0
    expected = user_vectors(listening.tocsr(), fresh.index.vectors, np.ones(fresh.n_songs))
    np.testing.assert_allclose(model.targeting.taste.user_UD, expected, atol=1e-5)
    first = np.zeros((1, model.n_rows), dtype=np.float32)
    first[0, users[:2]] = 2.0  # who skipped it did not like it
    liked = sparse.csr_matrix(first)
    moved = warm_vectors(
        fresh.index.vectors[new][None], liked, model.targeting.taste.user_UD, 5.0, fresh.taste_moment_DD
    )[0]
    np.testing.assert_allclose(state.vectors(new)[0], moved, atol=1e-5)
    scores, numbers = state.similar_new(moved, model.n_songs)
    assert scores[numbers.tolist().index(new)] == pytest.approx(float(moved @ moved), rel=1e-4), "its index entry too"
    reached = answers.audience(state, new, "taste", model.n_users, False, 0.0).users_B
    assert not set(users) & set(reached.tolist()) and len(reached) > 0, "who has met a song does not get it again"
    assert all(new not in answers.recommendations(state, user, 50, -1e6)[0] for user in users)


def same(one: State, other: State) -> None:
    """Both states answer alike: users' vectors, new songs' vectors, and who has met what."""
    for name, vectors in of_users(one.model).items():
        np.testing.assert_allclose(vectors, of_users(other.model)[name], atol=1e-5, err_msg=name)
    names = {song.song_id for song in one.accepted.values()}
    assert names == {song.song_id for song in other.accepted.values()}
    for song_id in [*names, *(one.model.song_ids[int(song)] for song in one.model.new)]:
        numbers = one.number(song_id), other.number(song_id)
        assert numbers[0] is not None and numbers[1] is not None
        for ours, theirs in zip(one.vectors(numbers[0]), other.vectors(numbers[1]), strict=True):
            np.testing.assert_allclose(ours, theirs, atol=1e-5, err_msg=song_id)
        assert one.met[numbers[0]] == other.met[numbers[1]], song_id


@pytest.mark.parametrize("again", [False, True])
def test_a_deleted_song_is_what_a_restart_makes_of_it(service_folder: Path, again: bool) -> None:
    """Its listeners lose it from their histories at once; under the same id it finds them, as the store has them.

    A restart replays at once what came one by one.
    """
    live, replayed, rng = State(Model(service_folder)), State(Model(service_folder)), np.random.default_rng(1)
    model = live.model
    songs = {name: stored(model, name, int(model.new[at])) for at, name in enumerate("abc")}
    known = [model.song_ids[int(song)] for song in [*model.catalogue.rows("warm")[:4], *model.new[3:6]]]
    marks = [{}, {"completed": True}, {"favourited": True}, {"skipped": True}, {"disliked": True}]
    plays = [
        Play(model.user_ids[int(user)], str(rng.choice(["a", "b", *known])), **marks[int(rng.integers(0, 5))])
        for user in rng.integers(0, 9, 100)
    ]
    for name in "ab":
        live.add_songs([songs[name][0]], *songs[name][1:])
    with_a = model.user_UD.copy()
    for play in plays[:60]:
        live.add_plays([play])
    live.remove_song("a")
    live.add_songs([songs["c"][0]], *songs["c"][1:])
    live.add_plays(plays[60:])
    if again:
        live.add_songs([songs["a"][0]], *songs["a"][1:])
    for name in ["b", "c", *(["a"] if again else [])]:
        replayed.add_songs([songs[name][0]], *songs[name][1:])
    replayed.add_plays(plays)
    same(live, replayed)
    assert not np.allclose(with_a, model.user_UD)
    if again:
        number = live.number("a")
        assert number is not None
        met = {model.user_of[play.user_id] for play in plays if play.song_id == "a"}
        assert live.first_plays(number) == len(met) > 3
        assert not met & set(answers.audience(live, number, "taste", model.n_users, False, 0.0).users_B.tolist())


def test_codes_of_songs_are_those_of_what_songs_say(state: State) -> None:
    """Also in a service folder of before, which has none."""
    model, songs = state.model, np.arange(state.model.n_songs)[::-1].copy()
    stored, model.codes = category_codes(model, {}, songs), {}
    computed = category_codes(model, {}, songs)
    assert stored.keys() == computed.keys() and len(stored) >= 4
    for name, code in stored.items():
        assert len(code.unique()) > 1, name
        assert torch.equal(code, computed[name]), name


def test_a_users_history_is_that_of_the_tower(state: State) -> None:
    """Plays that are part of the model already, sent again, would be the latest: the towers see just that order."""
    from artifacts.runs import open_run
    from datamodules.boundary import BoundaryDataModule
    from datamodules.catalogue import CatalogueDataModule
    from inference.vectors import data_options

    model, user = state.model, 5
    songs, strengths, count = model.latest(np.array([user]), model.encoder.history)
    vector, boundary = tower_vectors(model, {}, np.array([user]), [[]])
    np.testing.assert_allclose(vector[0], model.user_UD[user], atol=2e-5)
    np.testing.assert_allclose(boundary[0], model.boundary_U[user], atol=2e-5)
    run = open_run(Path(model.folder).parent / "boundary", "boundary")
    data = BoundaryDataModule(CatalogueDataModule(**data_options(run, None, None)), history=model.encoder.history)
    history = data.histories.latest(np.array([user]))
    assert history["songs"][history["history"][0].numpy()].tolist() == songs[0].tolist() and count[0] == songs.shape[1]
    np.testing.assert_array_equal(history["strength"][0].numpy(), strengths[0])
