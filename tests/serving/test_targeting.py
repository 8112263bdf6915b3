"""The service and a batch find the same audiences, for the same reasons, whatever has come in since the training."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from inference.targeting import targeting_of
from inference.vectors import Boundary
from retrieval import products
from retrieval.audience import Excluded
from retrieval.listening import Listening
from retrieval.songs import Songs
from retrieval.targeting import Mode, Targeting
from serving import answers
from serving.model import LARGE, Model
from serving.state import State
from serving.store import Play, StoredSong

MODES: tuple[Mode, ...] = ("i2i2u", "taste", "cat", "union", "boundary")
MARKS: list[dict[str, bool]] = [
    {}, {"completed": True}, {"favourited": True}, {"skipped": True}, {"disliked": True},
    {"skipped": True, "completed": True}, {"skipped": True, "favourited": True},
]  # fmt: skip


def random_state(folder: Path, rng: np.random.Generator, plays: int) -> tuple[State, Targeting]:
    """A service whose users have played known and new songs; and a batch to which that is listening like any other."""
    model, run = Model(folder), None
    model.options = replace(
        model.options,
        neighbours=int(rng.choice([2, 10, 100])),
        activity_power=float(rng.choice([0.0, 0.5])),
        popularity_power=float(rng.choice([0.0, 0.5, 1.0])),
        seed_users=int(rng.choice([20, 300])),
        clusters=int(rng.integers(0, 6)),
        seed=int(rng.integers(9)),
        memory_mb=float(rng.choice([0.001, 64])),
    )
    parts: Any = run, model.item_SD, model.user_UD, model.boundary_U
    model.targeting = targeting_of(model.index, Listening(model.listening_US), model.options, Boundary(*parts))
    state, listening = State(model), model.listening_US.toarray()
    like = int(model.new[0])
    about = {name: np.array(dense[like]) for name, dense in model.dense.items()}
    came = StoredSong("came", model.about(like), None, "2026-11-26T00:00:00+00:00", about, "")
    between = [0.7 * of[like] + 0.3 * of[int(model.new[1])] for of in (model.index.vectors, model.item_SD)]
    state.add_songs([came], between[0][None], between[1][None])
    scales = model.targeting.activity_U, model.targeting.popularity_S
    songs = [model.n_songs, *rng.choice(model.new, 4, replace=False), *rng.choice(model.catalogue.rows("warm"), 20)]
    users = rng.choice(model.n_users, 15, replace=False)
    for _ in range(plays):
        song, user, marks = int(rng.choice(songs)), int(rng.choice(users)), MARKS[int(rng.integers(len(MARKS)))]
        play = Play(model.user_ids[user], state.song_id(song), **marks)
        state.add_plays([play])
        if song not in state.pool.row_of and (play.favourited or not play.skipped) and not play.disliked:
            strength = 3 if play.favourited else 2 if play.completed else 1
            listening[user, song] = max(listening[user, song], strength)
    heard = Listening(type(model.listening_US)(listening))
    batch = targeting_of(model.index, heard, model.options, Boundary(*parts))
    batch.activity_U, batch.popularity_S = scales  # a service goes by the plays of its training until the next
    return state, batch


def as_batch(state: State, batch: Targeting, numbers: list[int]) -> Songs:
    """Songs of the pool with the vectors that they have now, whoever has met them left out."""
    vectors, items = zip(*(state.vectors(number) for number in numbers), strict=True)
    met = [(place, user) for place, number in enumerate(numbers) for user in sorted(state.met.get(number, ()))]
    song, user = np.array(met, dtype=np.int64).reshape(-1, 2).T
    return batch.songs(np.stack(vectors), np.array(numbers), np.stack(items), Excluded(song=song, user=user))


def test_codes_of_tastes_change_no_list_and_plays_no_file(
    service_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(products, "MORE", 0)
    files = [service_folder / f"{name}.npy" for name in ("tastes", "cat_tastes", "users", "boundaries")]
    before, found = [file.read_bytes() for file in files], []
    for large in (LARGE, 0):
        monkeypatch.setattr("serving.model.LARGE", large)
        model = Model(service_folder)
        assert (model.targeting.taste.code_UD is None) == (large > 0)
        state, users = State(model), range(0, model.n_users, 2)
        songs = [str(model.song_ids[int(one)]) for one in (*model.catalogue.rows("warm")[:9], *model.new[:2])]
        state.add_plays([Play(model.user_ids[user], songs[user % len(songs)], favourited=True) for user in users])
        asked = [(int(song), mode) for song in model.new[:8] for mode in ("taste", "cat", "union")]
        found.append([answers.audience(state, song, mode, 9, False, 0.0) for song, mode in asked])  # type: ignore[arg-type]
    for one, other in zip(*found, strict=True):
        np.testing.assert_array_equal(one.users_B, other.users_B)
        np.testing.assert_allclose(one.scores_B, other.scores_B, rtol=1e-5)
        np.testing.assert_array_equal(one.because_BT, other.because_BT)
    assert [file.read_bytes() for file in files] == before


@pytest.mark.parametrize("seed", range(8))
def test_the_service_says_what_a_batch_says(service_folder: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    state, batch = random_state(service_folder, rng, plays=20 * seed)
    numbers = [state.model.n_songs, *state.model.new[:6].tolist()]
    excluded, reached = sum(len(state.met.get(number, ())) for number in numbers), 0
    assert excluded > 0 or seed < 2
    for mode in MODES:
        for gate in (False, True):
            budget, margin = int(rng.integers(1, state.model.n_users + 9)), float(rng.normal(0, 0.1))
            asked = as_batch(state, batch, numbers)
            found = batch.audience(asked, mode, budget, gate, margin)
            because = batch.reasons(found.users_CB, asked)
            for place, number in enumerate(numbers):
                ours = answers.audience(state, number, mode, budget, gate, margin)
                n = int((found.users_CB[place] >= 0).sum())
                theirs_B, scores_B = found.users_CB[place, :n], found.scores_CB[place, :n]
                near = 5e-4 if mode == "union" else 1e-5  # there a rank more or less in one of two lists
                np.testing.assert_allclose(ours.scores_B, scores_B, rtol=1e-4, atol=near)
                same_B = ours.users_B == theirs_B
                # equal but for the rounding of one song's product and of several songs': either goes first
                of_theirs = dict(zip(theirs_B.tolist(), scores_B.tolist(), strict=True))
                swapped = [of_theirs.get(user, scores_B[-1]) for user in ours.users_B[~same_B].tolist()]
                np.testing.assert_allclose(swapped, scores_B[~same_B], atol=near, err_msg=f"{mode} {gate} {number}")
                assert same_B.mean() > 0.9 or mode in ("cat", "union")
                np.testing.assert_array_equal(ours.because_BT[same_B], because[place, :n][same_B])
                assert not set(ours.users_B.tolist()) & state.met.get(number, {}).keys()
                if gate or mode == "boundary":
                    assert (ours.margins_B > margin).all()
                reached += n
    assert reached > 500
