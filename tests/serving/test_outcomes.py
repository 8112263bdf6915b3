"""What those who played a song did with it: against a count over all plays in Python and SciPy's Beta."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from scipy import stats

from configs.waves import OUTCOMES, WavePolicyConfig
from data.arrays import FloatArray
from data.catalogue import Catalogue
from inference.waves import catalogue_rates
from retrieval.waves import HOLD, STOP, WIDEN, Exposures, Policy, judge
from serving.model import Model
from serving.outcomes import Advice, advice, of_users, outcomes, rate
from serving.state import State, marks, told
from serving.store import Play, StoredSong

MARKS = (None, False, True)


@pytest.fixture(scope="module")
def model(service_folder: Path) -> Model:
    return Model(service_folder)


def counted(plays: list[tuple[str, dict[str, bool | None]]]) -> dict[str, tuple[int, int]]:
    """Users of whom each outcome is known, and who did so, by looking at one play after another."""
    users = {user for user, _ in plays}
    did = {name: {user: [one[name] for of, one in plays if of == user] for user in users} for name in OUTCOMES}
    known = {name: [marks for marks in did[name].values() if set(marks) != {None}] for name in OUTCOMES}
    return {name: (len(known[name]), sum(any(marks) for marks in known[name])) for name in OUTCOMES}


def same(found: Any, users: int, wanted: dict[str, tuple[int, int]], rates: dict[str, Any]) -> None:
    """The answer is that of these counts."""
    strength = WavePolicyConfig().strength
    assert found.played == users
    for name, (known, did) in wanted.items():
        one, c = getattr(found, name), rates[name]
        assert (one.known, one.did, one.catalogue) == (known, did, c), name
        beta = stats.beta(strength * c + did, strength * (1 - c) + known - did)
        np.testing.assert_allclose((one.rate, one.low, one.high), (beta.mean(), *beta.interval(0.9)))


def test_a_catalogues_rates_are_those_of_waves(trained: Path, model: Model) -> None:
    assert model.rates == pytest.approx(catalogue_rates(Catalogue.read(trained / "catalogue"), list(OUTCOMES)))


def test_new_songs_of_the_catalogue_and_accepted_ones(model: Model) -> None:
    state, rng = State(model), np.random.default_rng(0)
    features: dict[str, FloatArray] = {name: np.zeros(width) for name, width in model.encoder.widths.items()}
    song = StoredSong("in", {}, None, "2026-11-30", features, "")
    state.add_songs([song], model.index.vectors[:1], model.item_SD[:1])
    songs = [str(model.song_ids[int(model.new[0])]), "in"]
    users = [*(str(model.user_ids[user]) for user in range(25)), "who comes"]
    plays = [
        Play(str(rng.choice(users)), str(rng.choice(songs)), completed=MARKS[done], favourited=MARKS[liked])
        for done, liked in rng.integers(0, 3, (120, 2))
    ]
    skipped = Play(users[0], "in", completed=True, skipped=True)
    for part in (plays[:50], plays[50:], [skipped]):
        state.add_plays(part)
    state.set_opt_outs([(users[1], True)])  # counts on, without a name
    for song_id in songs:
        of = [(play.user_id, {"completed": play.completed, "favourited": play.favourited}) for play in plays
              if play.song_id == song_id]  # fmt: skip
        of += [(users[0], {"completed": False, "favourited": None})] if song_id == "in" else []
        number = state.number(song_id)
        assert number is not None
        wanted = counted(of)
        assert all(0 < did < known < 26 for known, did in wanted.values()), "some do not tell"
        same(outcomes(state, number), len({user for user, _ in of}), wanted, model.rates)


def test_of_a_known_song_plays_of_the_training_count_with_later_ones(trained: Path, model: Model) -> None:
    catalogue, state = Catalogue.read(trained / "catalogue"), State(model)
    number = int(catalogue.plays.group_by("song").len().sort("len", "song")["song"][-1])
    rows = catalogue.plays.filter(pl.col("song") == number)
    of: list[tuple[str, dict[str, bool | None]]] = [
        (str(model.user_ids[row["user"]]), {name: row[name] for name in OUTCOMES}) for row in rows.to_dicts()
    ]
    same(outcomes(state, number), len({user for user, _ in of}), counted(of), model.rates)
    fan, stranger = of[0][0], next(user for user in model.user_ids if user not in {user for user, _ in of})
    song_id = str(model.song_ids[number])
    state.add_plays([Play(fan, song_id, completed=True), Play(str(stranger), song_id, favourited=True)])
    of += [(fan, {"completed": True, "favourited": None}), (str(stranger), {"completed": None, "favourited": True})]
    same(outcomes(state, number), len({user for user, _ in of}), counted(of), model.rates)


def test_without_a_play_the_catalogue_speaks(model: Model) -> None:
    found = outcomes(State(model), int(model.new[0]))
    same(found, 0, dict.fromkeys(OUTCOMES, (0, 0)), model.rates)
    assert of_users(State(model), int(model.new[0])).shape == (0, 2)


def test_a_catalogue_that_does_not_tell_makes_no_rate() -> None:
    did: FloatArray = np.array([1.0, 0.0, np.nan, 1.0])
    found = rate(did, None)
    assert (found.known, found.did) == (3, 2) and {found.rate, found.low, found.high, found.catalogue} == {None}


def test_marks_of_plays_are_joined() -> None:
    one, other = Play("u", "s", completed=False, favourited=True), Play("u", "s", completed=True)
    found = told(np.array([0, marks(other), marks(one), marks(one) | marks(other)]))
    np.testing.assert_array_equal(found, [[np.nan, np.nan], [np.nan, 1], [1, 0], [1, 1]])


@pytest.mark.parametrize(("favourited", "completed"), [(9, 30), (2, 22), (3, 8), (0, 0), (4, 20)])
def test_advice_is_what_waves_would_say(favourited: int, completed: int) -> None:
    """Of 40 users who were shown a song, the first ones favourited, and completed, it; the catalogue's rates are .1 and
    .5. Without the fall with the rank, of which a single song tells nothing, waves judge by the same rates."""
    of = np.arange(40)
    rates = {
        name: rate(np.where(of < did, 1.0, 0.0), c)
        for name, did, c in zip(OUTCOMES, (favourited, completed), (0.1, 0.5), strict=True)
    }
    policy = WavePolicyConfig()
    rate_O = np.array([0.1, 0.5])
    waves = Policy(np.ones(2), rate_O, policy.strength, policy.widen, policy.stop, policy.first, policy.size, False, 0)
    outcome_OP = np.stack([np.arange(41) < favourited, np.arange(41) < completed])
    shown_P = np.arange(41) < 40
    pairs = Exposures(np.zeros(41, dtype=int), np.arange(41), np.arange(41) + 1, shown_P, outcome_OP, 1)
    wanted = judge(pairs, np.tile(rate_O[:, None], 41), waves)
    found = advice(rates, 40, 40)
    assert found.state == {WIDEN: "widen", HOLD: "hold", STOP: "stop"}[int(wanted.state_C[0])]
    np.testing.assert_allclose((found.favourited, found.completed), wanted.chance_OC[:, 0])


def test_who_was_shown_a_song_and_did_not_play_it_speaks_against_it() -> None:
    rates = {name: rate(np.repeat([1.0, 0.0], [6, 4]), c) for name, c in (("completed", 0.5), ("favourited", 0.1))}
    assert [advice(rates, 10, shown).state for shown in (10, 100, 9)] == ["hold", "stop", "hold"], "few decide nothing"
    better = advice(rates, 10, 10)
    assert better.favourited is not None and better.favourited > 0.99
    assert better.completed == pytest.approx(stats.beta(5 + 6, 5 + 4).sf(0.5))


def test_advice_hangs_on_what_is_known() -> None:
    silent, told = rate(np.full(12, np.nan), 0.1), rate(np.repeat([1.0, 0.0, np.nan], [9, 1, 2]), 0.5)
    found = advice({"completed": told, "favourited": silent}, 12, 20)
    assert found.favourited is None and found.completed == pytest.approx(stats.beta(5 + 9, 5 + 9).sf(0.5))
    nothing = {name: rate(np.ones(12), None) for name in OUTCOMES}
    assert advice(nothing, 12, 12) == Advice(shown=12, state=None, completed=None, favourited=None)
    unplayed = advice({"completed": rate(np.zeros(0), 0.5), "favourited": rate(np.zeros(0), 0.1)}, 0, 50)
    assert unplayed.state == "stop" and unplayed.favourited == pytest.approx(stats.beta(1, 9 + 50).sf(0.1))


def test_all_who_played_a_song_were_shown_it(model: Model) -> None:
    state, number = State(model), int(model.new[0])
    state.add_plays([Play(str(model.user_ids[user]), str(model.song_ids[number]), completed=True) for user in range(3)])
    assert outcomes(state, number).advice is None
    shown = [found.shown for asked in (0, 3, 7) if (found := outcomes(state, number, asked).advice)]
    assert shown == [3, 3, 7]


def test_over_http(live: Any) -> None:
    with live.client() as client:
        song = client.get("/songs").json()["songs"][0]["song_id"]
        told = [{"user_id": f"u0000{n}", "song_id": song, "completed": n > 2, "favourited": n > 4} for n in range(6)]
        assert client.post("/plays", json={"plays": told}).json()["accepted"] == 6
        found = client.get(f"/songs/{song}/outcomes").raise_for_status().json()
        assert client.get("/songs/no such song/outcomes").status_code == 404
        advised = client.get(f"/songs/{song}/outcomes?shown=8").raise_for_status().json()
        assert client.get(f"/songs/{song}/outcomes?shown=-1").status_code == 422
    assert (found["song_id"], found["played"]) == (song, 6)
    assert [(found[name]["known"], found[name]["did"]) for name in OUTCOMES] == [(6, 1), (6, 3)]
    assert found["advice"] is None and advised["advice"]["shown"] == 8 and advised["advice"]["state"] == "hold"
    assert all(found[name]["low"] < found[name]["rate"] < found[name]["high"] for name in OUTCOMES)
