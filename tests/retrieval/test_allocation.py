"""Allocation against a linear programme, and exploration against its own propensities."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import sparse
from scipy.optimize import Bounds, LinearConstraint, milp

from retrieval.allocation import Allocation, Exploration, ValuedPairs, allocate, explore, falling, rank_values, uniform
from retrieval.audience import Audience

EXACT = 1e-9
SIZES = [(1, 1), (1, 9), (6, 1), (4, 5), (7, 12), (12, 30)]  # songs, users


def drawn(seed: int, n_songs: int, n_users: int, kind: str = "real", density: float = 0.7) -> ValuedPairs:
    """Some pairs, of values that are real, small whole numbers (ties), or negative for half of them."""
    rng = np.random.default_rng(seed)
    song, user = np.nonzero(rng.random((n_songs, n_users)) < density)
    value = {
        "real": rng.random(len(song)),
        "ties": rng.integers(1, 4, len(song)) / 2,
        "signed": rng.normal(size=len(song)),
    }
    return ValuedPairs(song, user, value[kind], n_songs)


def limits(seed: int, n_songs: int, n_users: int, least: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.integers(least, 6, n_songs), rng.integers(least, 4, n_users)


def best_value(candidates: ValuedPairs, budget_C: np.ndarray, cap_U: np.ndarray) -> float:
    """Of an integer programme over all pairs."""
    n, song, user = len(candidates.song_P), candidates.song_P, candidates.user_P
    if not n:
        return 0.0
    upper = np.ones(n) if candidates.allowed_P is None else candidates.allowed_P.astype(float)
    of_song, of_user = (
        sparse.csr_matrix((np.ones(n), (row, np.arange(n))), shape=(size, n))
        for row, size in ((song, len(budget_C)), (user, len(cap_U)))
    )
    rows = [LinearConstraint(of_song, ub=budget_C), LinearConstraint(of_user, ub=cap_U)]
    return -float(milp(-candidates.value_P, integrality=np.ones(n), bounds=Bounds(0, upper), constraints=rows).fun)


def check(found: Allocation, candidates: ValuedPairs, budget_C: np.ndarray, cap_U: np.ndarray) -> None:
    """Budgets, caps, gate and signs hold; value and bound are what they say."""
    chosen = found.chosen_P
    assert (np.bincount(candidates.song_P[chosen], minlength=len(budget_C)) <= budget_C).all()
    assert (np.bincount(candidates.user_P[chosen], minlength=len(cap_U)) <= cap_U).all()
    assert (candidates.value_P[chosen] > 0).all()
    if candidates.allowed_P is not None:
        assert candidates.allowed_P[chosen].all()
    assert found.value == pytest.approx(candidates.value_P[chosen & ~found.explored_P].sum())
    assert found.value <= found.bound * (1 + 1e-12)


@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize("kind", ["real", "ties", "signed"])
@pytest.mark.parametrize("size", SIZES)
def test_no_choice_is_worth_more(size: tuple[int, int], kind: str, gated: bool) -> None:
    """Budgets and caps of 0 and budgets above what there is are among them."""
    for seed in range(8):
        candidates, (budget_C, cap_U) = drawn(seed, *size, kind), limits(seed, *size)
        if gated:
            gate = np.random.default_rng(seed).random(len(candidates.song_P)) < 0.6
            candidates = replace(candidates, allowed_P=gate)
        found = allocate(candidates, budget_C, cap_U, tolerance=EXACT)
        check(found, candidates, budget_C, cap_U)
        assert found.value == pytest.approx(best_value(candidates, budget_C, cap_U), abs=1e-7)
        assert found.gap <= 2 * EXACT


@pytest.mark.parametrize("kind", ["real", "ties"])
@pytest.mark.parametrize("tolerance", [0.3, 0.1, 1e-2, 1e-4])
def test_what_is_missing_is_within_the_tolerance(tolerance: float, kind: str) -> None:
    for seed in range(5):
        candidates, (budget_C, cap_U) = drawn(seed, 20, 50, kind), limits(seed, 20, 50, 1)
        found, best = (
            allocate(candidates, budget_C, cap_U, tolerance=tolerance),
            best_value(candidates, budget_C, cap_U),
        )
        check(found, candidates, budget_C, cap_U)
        assert (1 - tolerance) * best - 1e-9 <= found.value <= best + 1e-9 <= found.bound + 2e-9
        assert found.bound - found.value <= tolerance * best + 1e-9


def test_one_number_is_the_same_for_all() -> None:
    candidates = drawn(0, 9, 20)
    one, each = allocate(candidates, 3, 2), allocate(candidates, np.full(9, 3), np.full(20, 2))
    np.testing.assert_array_equal(one.chosen_P, each.chosen_P)


@pytest.mark.parametrize("kind", ["real", "ties"])
def test_the_order_of_the_candidates_changes_nothing(kind: str) -> None:
    candidates = drawn(1, 15, 40, kind)
    how = Exploration(0.4, 3, np.arange(15))
    found = allocate(candidates, 6, 2, how)
    for seed in range(5):
        order = np.random.default_rng(seed).permutation(len(candidates.song_P))
        columns = (candidates.song_P[order], candidates.user_P[order], candidates.value_P[order])
        again = allocate(ValuedPairs(*columns, 15), 6, 2, how)
        np.testing.assert_array_equal(again.chosen_P, found.chosen_P[order])
        np.testing.assert_array_equal(again.propensity_P, found.propensity_P[order])


def test_ties_of_a_song_go_to_the_lower_user() -> None:
    candidates = ValuedPairs(np.zeros(9, int), np.arange(9)[::-1], np.ones(9), 1)
    assert set(candidates.user_P[allocate(candidates, 4, 1).chosen_P].tolist()) == {0, 1, 2, 3}


def test_no_equally_good_user_with_room_is_passed_over() -> None:
    """Asked of the last song: what it gives back may come too late for those before it."""
    for seed in range(20):
        candidates = drawn(seed, 6, 20, "ties")
        chosen_P = allocate(candidates, 4, 2).chosen_P
        room_U = 2 - np.bincount(candidates.user_P[chosen_P], minlength=20)
        for value in (0.5, 1.0, 1.5):
            same = (candidates.song_P == 5) & (candidates.value_P == value)
            last = candidates.user_P[same & chosen_P].max(initial=-1)
            assert (room_U[candidates.user_P[same & ~chosen_P & (candidates.user_P < last)]] == 0).all()


def test_songs_share_what_each_would_take() -> None:
    """Both want user 0 the most; the second loses less by going without. One after another would give 5 + 1."""
    candidates = ValuedPairs(np.array([0, 0, 1, 1]), np.array([0, 1, 0, 1]), np.array([5.0, 4.0, 4.5, 1.0]), 2)
    found = allocate(candidates, 1, 1, tolerance=EXACT)
    assert found.chosen_P.tolist() == [False, True, True, False] and found.value == pytest.approx(8.5)


def test_the_audience_is_ranked_by_score() -> None:
    candidates = drawn(2, 6, 30)
    found = allocate(candidates, 4, 1, Exploration(0.25, 0, np.arange(6)))
    audience = found.audience(candidates, -candidates.value_P, 4)
    assert isinstance(audience, Audience) and audience.propensity_CB is not None and audience.explored_CB is not None
    at = {pair: n for n, pair in enumerate(zip(candidates.song_P.tolist(), candidates.user_P.tolist(), strict=True))}
    assert (audience.users_CB >= 0).sum() == found.chosen_P.sum()
    for c, b in np.argwhere(audience.users_CB >= 0):
        n = at[int(c), int(audience.users_CB[c, b])]
        assert found.chosen_P[n] and audience.scores_CB[c, b] == -candidates.value_P[n]
        assert audience.explored_CB[c, b] == found.explored_P[n]
        assert audience.propensity_CB[c, b] == found.propensity_P[n] > 0
    assert all(np.all(np.diff(row[np.isfinite(row)]) <= 0) for row in audience.scores_CB)


def test_nobody_to_choose() -> None:
    none = np.zeros(0, int)
    for candidates in (ValuedPairs(none, none, np.zeros(0), 0), ValuedPairs(none, none, np.zeros(0), 3)):
        found = allocate(candidates, 2, 1, Exploration(0.5, 0, np.arange(candidates.n_songs)))
        assert found.value == found.bound == found.gap == 0 and not len(found.chosen_P)
        assert (found.audience(candidates, np.zeros(0), 2).users_CB == -1).all()


def test_ranks_are_worth_the_same_to_every_song() -> None:
    value = rank_values(Audience(np.zeros((2, 5), int), np.zeros((2, 5))))
    assert value.shape == (2, 5) and (value[0] == value[1]).all() and (np.diff(value[0]) < 0).all()
    assert value[0, 0] == pytest.approx(1 / 61)


@pytest.mark.parametrize(("tolerance", "phases"), [(1e-4, 4), (0.3, 1), (0.1, 1), (0.05, 2), (1e-9, 9)])
def test_each_phase_is_finer(tolerance: float, phases: int) -> None:
    epsilons = falling(tolerance)
    assert len(epsilons) == phases and epsilons[-1] == tolerance and (np.diff(epsilons) < 0).all()


# ------------------------------------------------------------------------------------------------------- exploration


@pytest.mark.parametrize("share", [0.0, 0.1, 0.25, 1.0])
def test_a_share_of_each_budget_is_drawn(share: float) -> None:
    candidates, budget_C = drawn(0, 8, 60), np.array([0, 1, 4, 5, 10, 10, 20, 60])
    found = allocate(candidates, budget_C, 99, Exploration(share, 0, np.arange(8)))
    check(found, candidates, budget_C, np.full(60, 99))
    places, size = np.floor(share * budget_C + 0.5), np.bincount(candidates.song_P)
    count = np.bincount(candidates.song_P[found.explored_P], minlength=8)
    np.testing.assert_array_equal(count, np.minimum(places, np.maximum(size - (budget_C - places), 0)))
    assert (found.propensity_P[found.chosen_P & ~found.explored_P] == 1).all()
    assert (found.propensity_P[~found.chosen_P] == 0).all()


def test_draws_do_not_hang_on_the_batch() -> None:
    """Without caps a song alone, elsewhere in the batch, gets the users that it gets among others."""
    candidates, name = drawn(4, 6, 50), np.array([31, 7, 8, 99, 5, 1 << 31])
    found = allocate(candidates, 10, 6, Exploration(0.3, 1, name))
    for c in range(6):
        own = candidates.song_P == c
        alone = ValuedPairs(np.zeros(own.sum(), int), candidates.user_P[own], candidates.value_P[own], 1)
        again = allocate(alone, 10, 6, Exploration(0.3, 1, name[[c]]))
        np.testing.assert_array_equal(again.explored_P, found.explored_P[own])
    other = allocate(candidates, 10, 6, Exploration(0.3, 2, name))
    assert (other.explored_P != found.explored_P).any(), "another seed draws others"


@pytest.mark.parametrize("cap", [1, 2, 9])
def test_propensities_are_how_often_users_are_drawn(cap: int) -> None:
    """1 / propensity weighs the drawn so that they speak for all whom caps leave room; nobody is above their cap."""
    candidates = drawn(5, 9, 25)
    first = allocate(candidates, 1, cap).chosen_P
    outcome_P = np.random.default_rng(0).random(len(first))
    room_U = cap - np.bincount(candidates.user_P[first], minlength=25)
    rest = ~first & (room_U[candidates.user_P] > 0)
    times, estimates, runs = np.zeros(len(first)), [], 3000
    for seed in range(runs):
        how = Exploration(1.0, seed, np.arange(9))
        drawn_P, chance_P = explore(candidates, first, np.full(9, 2), np.full(25, cap), how)
        assert (np.bincount(candidates.user_P[drawn_P], minlength=25) <= room_U).all()
        assert (chance_P[drawn_P] > 0).all() and not (drawn_P & ~rest).any()
        times += drawn_P / np.where(drawn_P, chance_P, 1)
        estimates.append((outcome_P[drawn_P] / chance_P[drawn_P]).sum())
    error = np.std(estimates) / runs**0.5
    assert abs(np.mean(estimates) - outcome_P[rest].sum()) < 4 * error
    np.testing.assert_allclose(times[rest] / runs, 1, atol=0.5)
    assert (times[~rest] == 0).all() and rest.any()


def test_hashed_numbers_are_uniform_and_unrelated() -> None:
    song, user = (one.ravel() for one in np.mgrid[:200, :200])
    first, second = uniform(0, song, user)
    for numbers in (first, second, uniform(1, song, user)[0]):
        assert numbers.min() >= 0 and numbers.max() < 1
        count = np.histogram(numbers, bins=20, range=(0, 1))[0]
        assert ((count - 2000) ** 2 / 2000).sum() < 45, "chi-square, 19 degrees of freedom"
    others = (second, uniform(1, song, user)[0], np.roll(first, 1), np.roll(first, 200))
    assert all(abs(np.corrcoef(first, other)[0, 1]) < 0.03 for other in others)
