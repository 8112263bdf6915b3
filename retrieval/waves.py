"""Waves: a day's exposures go to new songs by what listeners did with them so far, a few users of each at a time.

What happens after an exposure (favourited, completed) is a Bernoulli draw. The rate at which a song's users do it has a
Beta prior around the expected rate, and with what was seen a Beta posterior. Users are shown a song in the order of its
list, and later ones like it less: the expected rate falls with the rank. So a song's rate divided by its expected one,
its lift, says what its next users are worth.

A song's state: `WIDEN` where the chance that its next users' rates are above the catalogue's is high, `STOP` where it
is low, else `HOLD`. What is so stopped is right in a share of at least 1 − `stop` of cases under the prior, whenever
one looks (posterior probabilities stay calibrated under optional stopping; a test's error rates do not).

Thompson sampling (Thompson, Biometrika 1933; many arms a day as Komiyama et al., ICML 2015): each song draws a rate
from its posterior, and the day's exposures go to the pairs of the highest value under these draws.

Shapes: P pairs (a song's place, a user), each once; N pairs that were shown; C songs; O outcomes; R ranks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import betaincc, betaincinv  # scipy.stats, which has Beta, takes a second to import

from retrieval.allocation import ValuedPairs, allocate, uniform

Array = NDArray[Any]
WIDEN, HOLD, STOP = 1, 0, -1
RARE, SURE = 1e-4, 0.95  # limits of an expected rate
MASS = 0.9  # of a posterior, in an interval that is told
ROUNDS = 5  # of fitting the fall of rates with the rank, and the songs' lifts


@dataclass(frozen=True)
class Exposures:
    """Songs' lists, pairs in the order of songs and ranks (from 1), and what was shown of them.

    `outcome_OP` says what users did; False where nothing was shown.
    """

    song_P: Array
    user_P: Array
    rank_P: Array
    shown_P: Array
    outcome_OP: Array
    n_songs: int

    def by_song(self, value_P: Array, of_P: Array) -> Array:
        """Sums of values over the pairs of a mask, (C,)."""
        return np.bincount(self.song_P[of_P], value_P[of_P], minlength=self.n_songs)

    def count(self, of_P: Array) -> Array:
        """How many pairs of a mask each song has, (C,)."""
        return np.bincount(self.song_P[of_P], minlength=self.n_songs)

    def turn(self) -> Array:
        """Place among the song's users who have not been shown it, from 0, (P,); −1 of those who have."""
        before_P = np.cumsum(~self.shown_P) - ~self.shown_P
        start_C = np.searchsorted(self.song_P, np.arange(self.n_songs))
        before_C = np.append(before_P, 0)[start_C]  # a song without a pair may be the last
        return np.where(self.shown_P, -1, before_P - before_C[self.song_P])


@dataclass(frozen=True)
class Policy:
    """How exposures are given out.

    `worth_O` is what an outcome is worth, `rate_O` the catalogue's rate of it. `strength` is the prior's weight in
    exposures; `widen` and `stop` are chances. Each song is due `first` exposures whatever they bring. Then a wave has
    at most `size` users of it; of one that is widened as many as it has been shown so far, if these are more; of one
    that is stopped none. Without `thompson` posterior means take the place of draws.
    """

    worth_O: Array
    rate_O: Array
    strength: float
    widen: float
    stop: float
    first: int
    size: int
    thompson: bool
    seed: int


@dataclass(frozen=True)
class Beliefs:
    """What is known of each song.

    The rate of those reached is Beta(`a_OC`, `b_OC`), `expected_OC` what was expected of them, `next_OC` of the next
    wave's users. `chance_OC`: that the rate of these is above the catalogue's. `state_C`: WIDEN, HOLD or STOP.
    """

    a_OC: Array
    b_OC: Array
    expected_OC: Array
    next_OC: Array
    chance_OC: Array
    state_C: Array

    @property
    def mean_OC(self) -> Array:
        """Posterior means."""
        return self.a_OC / (self.a_OC + self.b_OC)

    def interval(self, mass: float) -> tuple[Array, Array]:
        """Ends of the central interval of so much posterior mass, (O, C) each."""
        return interval(self.a_OC, self.b_OC, mass)


def posterior(expected: Array, shown: Array, happened: Array, strength: float) -> tuple[Array, Array]:
    """Beta(a, b) of rates of which `strength` exposures' worth was expected, after `happened` of `shown` exposures."""
    return strength * expected + happened, strength * (1 - expected) + shown - happened


def interval(a: Array, b: Array, mass: float) -> tuple[Array, Array]:
    """Ends of the central interval of so much mass of Beta(a, b)."""
    return betaincinv(a, b, (1 - mass) / 2), betaincinv(a, b, (1 + mass) / 2)


def chance_above(a: Array, b: Array, rate: Array) -> Array:
    """The chance that a rate of Beta(a, b) is above another one."""
    return np.asarray(betaincc(a, b, rate))


def states(chance_OC: Array, shown_C: Array, widen: float, stop: float, first: int) -> Array:
    """State of each song, (C,), by the outcome that speaks least for it; HOLD below `first` exposures."""
    least_C = chance_OC.min(axis=0)
    state_C = np.where(least_C >= widen, WIDEN, np.where(least_C <= stop, STOP, HOLD))
    state_C[shown_C < first] = HOLD
    return state_C


def expected_rates(exposures: Exposures, policy: Policy) -> Array:
    """Rate of each outcome that is expected of each pair, (O, P): level · rank^slope, fitted to what was shown.

    Songs that went deep are the better ones: without their lifts deep ranks would look too good. So lifts and the fit
    take turns. Before anything was shown the catalogue's rate is expected of everybody.
    """
    fitted = [_by_rank(exposures, at, policy) for at in range(len(policy.rate_O))]
    return np.clip(np.stack(fitted), RARE, SURE)


def _by_rank(exposures: Exposures, at: int, policy: Policy) -> Array:
    """Expected rate of one outcome, (P,)."""
    from sklearn.linear_model import PoissonRegressor  # a second, which --help need not wait for

    rate, song_N, rank_N = policy.rate_O[at], exposures.song_P[exposures.shown_P], exposures.rank_P[exposures.shown_P]
    if not len(song_N):
        return np.full(len(exposures.song_P), rate)
    happened_N = exposures.outcome_OP[at, exposures.shown_P]
    ranks_R, rank = np.unique(rank_N, return_inverse=True)
    happened_R = np.bincount(rank, happened_N)
    n_C, happened_C = (np.bincount(song_N, of_N, minlength=exposures.n_songs) for of_N in (None, happened_N))
    lift_C = np.ones(exposures.n_songs)
    for _ in range(ROUNDS):
        weight_R = np.bincount(rank, lift_C[song_N])
        # a fit to few exposures must not go astray: as many more as the prior is worth at the catalogue's rate and the
        # middle rank, and as much precision for a slope of 0
        x = np.append(np.log(ranks_R), np.average(np.log(ranks_R), weights=weight_R))[:, None]
        y, weights = np.append(happened_R / weight_R, rate), np.append(weight_R, policy.strength)
        fit = PoissonRegressor(alpha=policy.strength / weights.sum(), tol=1e-6).fit(x, y, weights)
        fall_R = np.exp(fit.intercept_ + fit.coef_[0] * np.log(ranks_R))
        expected_N = np.clip(fall_R[rank], RARE, SURE)
        expected_C = np.bincount(song_N, expected_N, minlength=exposures.n_songs) / np.maximum(n_C, 1)
        a_C, b_C = posterior(expected_C, n_C, happened_C, policy.strength)
        lift_C = np.where(n_C > 0, a_C / (a_C + b_C) / np.maximum(expected_C, RARE), 1.0)
    log_P = fit.intercept_ + fit.coef_[0] * np.log(exposures.rank_P)
    return np.asarray(np.exp(log_P))


def judge(exposures: Exposures, expected_OP: Array, policy: Policy) -> Beliefs:
    """Posterior and state of each song. The outcome that speaks least for a song decides."""
    shown_P, turn_P = exposures.shown_P, exposures.turn()
    n_C = exposures.count(shown_P)
    coming_P = (turn_P >= 0) & (turn_P < policy.size)

    def mean(of_P: Array) -> Array:
        sums = [exposures.by_song(rate_P, of_P) for rate_P in expected_OP]
        return np.stack(sums) / np.maximum(exposures.count(of_P), 1)

    shown_OC, next_OC = mean(shown_P), mean(coming_P)
    expected_OC = np.where(n_C > 0, shown_OC, next_OC)
    next_OC = np.where(next_OC > 0, next_OC, expected_OC)  # nobody is left
    happened_OC = np.stack([exposures.by_song(one, shown_P) for one in exposures.outcome_OP])
    a_OC, b_OC = posterior(expected_OC, n_C, happened_OC, policy.strength)
    chance_OC = chance_above(a_OC, b_OC, np.minimum(policy.rate_O[:, None] * expected_OC / next_OC, 1))
    state_C = states(chance_OC, n_C, policy.widen, policy.stop, policy.first)
    return Beliefs(a_OC, b_OC, expected_OC, next_OC, chance_OC, state_C)


def draws(beliefs: Beliefs, seed: int, wave: int, name_C: Array) -> Array:
    """A rate of each outcome and song from its posterior, (O, C), hashed from seed, wave and the song's name alone."""
    n_outcomes, n_songs = beliefs.a_OC.shape
    of_wave = wave + (np.repeat(np.arange(n_outcomes), n_songs) << 32)
    luck_OC = uniform(seed, np.tile(name_C, n_outcomes), of_wave)[0].reshape(n_outcomes, n_songs)
    return np.asarray(betaincinv(beliefs.a_OC, beliefs.b_OC, luck_OC))


def next_wave(
    exposures: Exposures,
    expected_OP: Array,
    beliefs: Beliefs,
    policy: Policy,
    total: int,
    wave: int,
    name_C: Array,
    per_user_cap: int = 0,
) -> Array:
    """The pairs that are shown next, a mask (P,): at most `total`, none that was shown before.

    First come users whom songs are still due, then the highest values: each by draws of the songs' rates. With a cap
    each song keeps the number that it is given so, and pairs are allotted (`retrieval.allocation`) where users cannot
    take all.

    Args:
        exposures, expected_OP, beliefs, policy: lists, and what is known of the songs.
        total: exposures of this wave.
        wave: its number.
        name_C: a number that names each song, whatever others there are.
        per_user_cap: songs a user may be shown in this wave; 0: no limit.
    """
    song_P, n_C = exposures.song_P, exposures.count(exposures.shown_P)
    rate_OC = draws(beliefs, policy.seed, wave, name_C) if policy.thompson else beliefs.mean_OC
    lift_OC = rate_OC / beliefs.expected_OC
    value_P = np.einsum("o,op,op->p", policy.worth_O, lift_OC[:, song_P], expected_OP)
    turn_P, state_C = exposures.turn(), beliefs.state_C
    size_C = np.where(state_C == WIDEN, np.maximum(policy.size, n_C), np.where(state_C == STOP, 0, policy.size))
    due_C = np.maximum(policy.first - n_C, 0)
    may_P = (turn_P >= 0) & (turn_P < np.maximum(size_C, due_C)[song_P])
    at = np.flatnonzero(may_P)
    first = np.lexsort((turn_P[at], song_P[at], -value_P[at], turn_P[at] >= due_C[song_P[at]]))[:total]
    chosen_P = np.zeros(len(song_P), dtype=bool)
    chosen_P[at[first]] = True
    if not per_user_cap:
        return chosen_P
    pairs = ValuedPairs(song_P, exposures.user_P, value_P, exposures.n_songs, turn_P >= 0)
    return allocate(pairs, exposures.count(chosen_P), per_user_cap).chosen_P
