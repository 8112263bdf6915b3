"""Waves: posteriors against numerical integration, decisions against their error rates, draws against Monte Carlo, and
the choice of pairs against a loop."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import beta, binom

from retrieval.waves import (
    HOLD,
    STOP,
    WIDEN,
    Beliefs,
    Exposures,
    Policy,
    draws,
    expected_rates,
    judge,
    next_wave,
    posterior,
)

POLICY = Policy(np.array([1.0]), np.array([0.1]), 10.0, 0.9, 0.1, first=0, size=5, thompson=True, seed=0)


def lists(n_songs: int, width: int, shown: int = 0, outcomes: int = 1) -> Exposures:
    """Lists of one length, of which the first users have been shown the song; nobody did anything."""
    song, rank = np.divmod(np.arange(n_songs * width), width)
    nothing = np.zeros((outcomes, len(song)), dtype=bool)
    return Exposures(song, rank + 7 * song, rank + 1, rank < shown, nothing, n_songs)


def with_rates(given: Exposures, rate_C: np.ndarray, seed: int = 0) -> Exposures:
    """Outcomes of what was shown, at a rate of each song."""
    happens = np.random.default_rng(seed).random(given.outcome_OP.shape) < rate_C[given.song_P]
    return replace(given, outcome_OP=happens & given.shown_P)


def flat(given: Exposures, rate: float) -> np.ndarray:
    return np.full(given.outcome_OP.shape, rate)


def test_the_posterior_is_prior_times_likelihood() -> None:
    for expected, shown, happened, strength in ((0.1, 10, 3, 20.0), (0.5, 40, 9, 5.0), (0.02, 3, 0, 100.0)):
        a, b = posterior(np.array([expected]), np.array([shown]), np.array([happened]), strength)
        prior = beta(strength * expected, strength * (1 - expected))
        assert prior.mean() == pytest.approx(expected)

        def density(rate: float, prior: Any = prior, shown: int = shown, happened: int = happened) -> float:
            return float(prior.pdf(rate) * binom.pmf(happened, shown, rate))

        whole, above = quad(density, 0, 1, limit=200)[0], quad(density, expected, 1, limit=200)[0]
        assert beta.sf(expected, a, b)[0] == pytest.approx(above / whole, abs=1e-5)


def test_beliefs_against_a_loop() -> None:
    rng = np.random.default_rng(1)
    given = lists(5, 12, outcomes=2)
    given = replace(given, shown_P=rng.random(60) < np.repeat([0, 0.3, 0.6, 1, 0.4], 12))
    given = with_rates(given, np.array([0.2, 0.5, 0.1, 0.3, 0.9]))
    expected_OP = rng.uniform(0.05, 0.6, (2, 60))
    policy = replace(POLICY, worth_O=np.ones(2), rate_O=np.array([0.2, 0.4]), size=3)
    found = judge(given, expected_OP, policy)
    for o in range(2):
        for c in range(5):
            of = [p for p in range(60) if given.song_P[p] == c]
            seen, later = ([p for p in of if given.shown_P[p] == shown] for shown in (True, False))
            coming = expected_OP[o, later[:3]].mean() if later else expected_OP[o, seen].mean()
            expected = expected_OP[o, seen].mean() if seen else coming
            a = 10 * expected + given.outcome_OP[o, seen].sum()
            b = 10 * (1 - expected) + (~given.outcome_OP[o, seen]).sum()
            assert found.a_OC[o, c] == pytest.approx(a) and found.b_OC[o, c] == pytest.approx(b)
            assert found.next_OC[o, c] == pytest.approx(coming)
            chance = beta.sf(policy.rate_O[o] * expected / coming, a, b)
            assert found.chance_OC[o, c] == pytest.approx(chance)
    least = found.chance_OC.min(axis=0)
    assert found.state_C.tolist() == [WIDEN if one >= 0.9 else STOP if one <= 0.1 else HOLD for one in least]
    low, high = found.interval(0.9)
    mass = beta.cdf(high, found.a_OC, found.b_OC) - beta.cdf(low, found.a_OC, found.b_OC)
    np.testing.assert_allclose(mass, 0.9)


def test_error_rates_of_one_look_are_those_of_the_binomial() -> None:
    """A song exactly at the catalogue's rate is widened or stopped as often as counts are large or small enough."""
    shown, songs, rate = 40, 20_000, 0.1
    found = judge(*decided(lists(songs, shown + 5, shown), np.full(songs, rate), rate))
    counts = np.arange(shown + 1)
    chance = beta.sf(rate, *posterior(np.array(rate), np.array(shown), counts, POLICY.strength))
    for state, extreme in ((WIDEN, chance >= 0.9), (STOP, chance <= 0.1)):
        theory = binom.pmf(counts[extreme], shown, rate).sum()
        assert 0.01 < theory < 0.15
        assert (found.state_C == state).mean() == pytest.approx(theory, abs=4 * np.sqrt(theory / songs))


def decided(
    given: Exposures, rate_C: np.ndarray, expected: float, seed: int = 0
) -> tuple[Exposures, np.ndarray, Policy]:
    return with_rates(given, rate_C, seed), flat(given, expected), POLICY


def test_power_grows_with_exposures() -> None:
    """A song at three times the rate is widened, and one at a third of it stopped: the more the more was shown."""
    songs = 4000
    for rate, state in ((0.3, WIDEN), (0.033, STOP)):
        right = []
        for shown in (10, 40, 160):
            found = judge(*decided(lists(songs, shown + 5, shown), np.full(songs, rate), 0.1))
            right.append((found.state_C == state).mean())
            counts = np.arange(shown + 1)
            chance = beta.sf(0.1, *posterior(np.array(0.1), np.array(shown), counts, POLICY.strength))
            agrees = chance >= 0.9 if state == WIDEN else chance <= 0.1
            assert right[-1] == pytest.approx(binom.pmf(counts[agrees], shown, rate).sum(), abs=0.04)
        assert right == sorted(right) and right[-1] > 0.9


def test_a_decision_is_right_as_often_as_it_says_however_often_one_looks() -> None:
    """Rates drawn from the prior, a look after each five exposures, and the first decision counts."""
    songs, rng = 20_000, np.random.default_rng(2)
    rate_C = rng.beta(POLICY.strength * 0.1, POLICY.strength * 0.9, songs)
    given = with_rates(replace(lists(songs, 60), shown_P=np.ones(60 * songs, bool)), rate_C)
    first_C = np.full(songs, HOLD)
    for shown in range(5, 60, 5):
        now = given.rank_P <= shown
        state_C = judge(
            replace(given, shown_P=now, outcome_OP=given.outcome_OP & now), flat(given, 0.1), POLICY
        ).state_C
        first_C = np.where(first_C == HOLD, state_C, first_C)
    for state, right_C in ((WIDEN, rate_C > 0.1), (STOP, rate_C < 0.1)):
        of = first_C == state
        assert of.mean() > 0.1
        assert 0.9 <= right_C[of].mean() < 0.99, "at least as often as it says, and not far more"


def test_thompson_draws_choose_a_song_as_often_as_it_is_the_best() -> None:
    a_OC, b_OC = np.array([[3.0, 6.0, 2.0, 12.0]]), np.array([[20.0, 38.0, 9.0, 100.0]])
    blank = np.ones((1, 4))
    beliefs = Beliefs(a_OC, b_OC, blank, blank, blank, np.zeros(4))
    waves = 20_000
    drawn = np.stack([draws(beliefs, 0, wave, np.arange(4))[0] for wave in range(waves)])
    theory = np.random.default_rng(0).beta(a_OC[0], b_OC[0], (200_000, 4))
    ours, exact = (np.bincount(one.argmax(axis=1), minlength=4) / len(one) for one in (drawn, theory))
    np.testing.assert_allclose(ours, exact, atol=0.015)
    np.testing.assert_allclose(drawn.mean(axis=0), a_OC[0] / (a_OC + b_OC)[0], atol=0.003)


def test_a_draw_does_not_change_with_the_other_songs() -> None:
    rng = np.random.default_rng(3)
    a_OC, b_OC, name_C = rng.uniform(1, 9, (2, 6)), rng.uniform(1, 9, (2, 6)), rng.integers(0, 2**32, 6)
    some = np.array([4, 1])
    blank = np.ones((2, 6))
    whole = draws(Beliefs(a_OC, b_OC, blank, blank, blank, blank), 5, 2, name_C)
    part = draws(Beliefs(a_OC[:, some], b_OC[:, some], blank, blank, blank, blank), 5, 2, name_C[some])
    np.testing.assert_array_equal(whole[:, some], part)
    for other in (draws(Beliefs(a_OC, b_OC, blank, blank, blank, blank), *of, name_C) for of in ((6, 2), (5, 3))):
        assert (other != whole).all()


@pytest.mark.parametrize("thompson", [False, True])
def test_the_choice_against_a_loop(thompson: bool) -> None:
    """Nobody twice, users in their order, first those who are due, and never more than a song may have."""
    for seed in range(6):
        rng = np.random.default_rng(seed)
        policy = replace(POLICY, first=4, size=3, thompson=thompson, seed=seed)
        given = replace(lists(9, 15), shown_P=rng.random(135) < np.repeat(rng.choice([0, 0.2, 0.7, 1], 9), 15))
        given = with_rates(given, rng.choice([0.0, 0.1, 0.6], 9), seed)
        expected_OP = expected_rates(given, policy)
        beliefs = judge(given, expected_OP, policy)
        total, names = int(rng.integers(5, 40)), rng.integers(0, 2**32, 9)
        found = next_wave(given, expected_OP, beliefs, policy, total, 3, names)
        rates = draws(beliefs, seed, 3, names) if thompson else beliefs.mean_OC
        wanted = []
        for c in range(9):
            left = [p for p in range(135) if given.song_P[p] == c and not given.shown_P[p]]
            n = 15 - len(left)
            size = {WIDEN: max(3, n), HOLD: 3, STOP: 0}[int(beliefs.state_C[c])]
            for place, p in enumerate(left[: max(size, 4 - n)]):
                value = rates[0, c] / beliefs.expected_OC[0, c] * expected_OP[0, p]
                wanted.append((place >= 4 - n, -value, c, place, p))
        assert sorted(np.flatnonzero(found)) == sorted(one[-1] for one in sorted(wanted)[:total])
        assert not (found & given.shown_P).any()


def test_a_cap_holds_and_songs_keep_their_numbers_where_users_allow_it() -> None:
    given = lists(4, 30)
    given = replace(given, user_P=given.rank_P)  # all songs want the same users
    policy = replace(POLICY, size=6)
    expected_OP = flat(given, 0.1) / given.rank_P
    beliefs = judge(given, expected_OP, policy)
    free, capped = (next_wave(given, expected_OP, beliefs, policy, 24, 1, np.arange(4), cap) for cap in (0, 1))
    assert given.count(free).tolist() == given.count(capped).tolist() == [6] * 4
    assert np.bincount(given.user_P[free]).max() == 4 and np.bincount(given.user_P[capped]).max() == 1


def test_the_fall_with_the_rank_is_found_though_better_songs_go_deeper() -> None:
    rng = np.random.default_rng(4)
    songs, width = 400, 200
    given = lists(songs, width)
    lift_C = rng.gamma(4, 1 / 4, songs)
    true_P = np.minimum(0.3 * given.rank_P**-0.35 * lift_C[given.song_P], 0.95)
    shown_P = given.rank_P <= np.where(lift_C > 1.2, 120, 15)[given.song_P]
    given = replace(given, shown_P=shown_P, outcome_OP=((rng.random(len(true_P)) < true_P) & shown_P)[None])
    found = expected_rates(given, replace(POLICY, rate_O=np.array([0.1])))[0, :width]
    slope = np.polyfit(np.log(given.rank_P[:width]), np.log(found), 1)[0]
    assert slope == pytest.approx(-0.35, abs=0.08)
    raw = [given.outcome_OP[0, shown_P & (given.rank_P == rank)].mean() for rank in range(1, 121)]
    naive = np.polyfit(np.log(np.arange(1, 121)), np.log(np.maximum(raw, 1e-3)), 1)[0]
    assert abs(naive + 0.35) > 2 * abs(slope + 0.35), "rates by rank alone do not show it"


def test_nothing_shown_and_nothing_happened_are_no_trouble() -> None:
    for shown in (0, 1, 30):
        given = lists(3, 30, shown)
        expected_OP = expected_rates(given, POLICY)
        assert np.isfinite(expected_OP).all() and (expected_OP > 0).all() and (expected_OP <= 0.1 + 1e-9).all()
        beliefs = judge(given, expected_OP, POLICY)
        assert np.isfinite(beliefs.chance_OC).all()
        assert next_wave(given, expected_OP, beliefs, POLICY, 9, 1, np.arange(3)).sum() <= 9
    gaps = Exposures(np.array([1, 1]), np.array([0, 1]), np.array([1, 2]), np.zeros(2, bool), np.zeros((1, 2), bool), 4)
    assert gaps.turn().tolist() == [0, 1], "songs without a pair, the last one too"
