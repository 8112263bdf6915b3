"""Allocation: all new songs of a day go to users together, and a few places go to users drawn at random.

`allocate` maximises the total value of the chosen (song, user) pairs under a budget a song and a cap a user: a
transportation problem, whose linear programme has whole-numbered optima. Values must be comparable across songs, such
as the expected favourites of a pair. Where a mode's scores are not (I2I2U sums over other neighbours for each song),
`rank_values` makes them so: a first choice is worth the same to every song.

Without caps the songs do not compete, and each gets its best. So there is no option beside the cap.

Shapes: P candidate pairs (a song's place, a user), C songs, U users, B budget, N nodes (songs, then users), E of the P
pairs that may be chosen.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrieval.audience import FUSION, Audience, empty_audience, in_order

Array = NDArray[Any]
COARSE, FINER = 0.1, 10.0  # ε of the auction's first phase, in mean values of a pair; and how much it falls each phase
TOLERANCE = 1e-4


@dataclass(frozen=True)
class ValuedPairs:
    """Pairs, each once and in any order, their finite values, and who passes a gate; only values above 0 are chosen."""

    song_P: Array
    user_P: Array
    value_P: Array
    n_songs: int
    allowed_P: Array | None = None

    def eligible(self, budget_C: Array, cap_U: Array) -> Array:
        """Mask of those that may be chosen and have any place to go, (P,)."""
        mask = (self.value_P > 0) & (budget_C[self.song_P] > 0) & (cap_U[self.user_P] > 0)
        return mask if self.allowed_P is None else mask & self.allowed_P


@dataclass(frozen=True)
class Exploration:
    """How much goes to users drawn at random: a share of each song's budget, a seed, and a number that names each song.

    The draw of a (song, user) pair is a hash of seed, name and user: it does not change with the batch.
    """

    share: float
    seed: int
    name_C: Array


@dataclass(frozen=True)
class Allocation:
    """Which pairs are chosen, (P,) in the order given.

    `propensity_P` is the chance of having been chosen (see `explore`), 0 of the others. `value` is what the pairs that
    were chosen by it are worth, `bound` what no choice can exceed, by the prices of the auction.
    """

    chosen_P: Array
    explored_P: Array
    propensity_P: Array
    value: float
    bound: float

    @property
    def gap(self) -> float:
        """How much of the best total value is missing at most, as a share of it."""
        return max(0.0, 1 - self.value / self.bound) if self.bound > 0 else 0.0

    def audience(self, candidates: ValuedPairs, score_P: Array, width: int) -> Audience:
        """The users of each song, up to `width`, the highest scores first, with what exploration adds."""
        at = np.flatnonzero(self.chosen_P)
        order, rank = in_order(candidates.song_P[at], candidates.user_P[at], score_P[at], candidates.n_songs)
        at = at[order]
        row = candidates.song_P[at]
        found = empty_audience(candidates.n_songs, width, score_P.dtype)
        found.users_CB[row, rank], found.scores_CB[row, rank] = candidates.user_P[at], score_P[at]
        found.explored_CB, found.propensity_CB = np.zeros(found.users_CB.shape, bool), np.zeros(found.users_CB.shape)
        found.explored_CB[row, rank], found.propensity_CB[row, rank] = self.explored_P[at], self.propensity_P[at]
        return found


def rank_values(found: Audience) -> Array:
    """Values for scores of no common scale: 1 / (60 + rank), as in `union`; (C, B)."""
    return np.broadcast_to(1 / (FUSION + 1 + np.arange(found.users_CB.shape[1])), found.users_CB.shape)


def share_out(found: Audience, value_CB: Array, budget: int, cap: int, exploration: Exploration | None) -> Audience:
    """Longer ranked lists cut to `budget` users a song and `cap` songs a user (0: no limit); scores stay theirs."""
    row, rank = np.nonzero(found.users_CB >= 0)
    candidates = ValuedPairs(row, found.users_CB[row, rank], value_CB[row, rank], len(found.users_CB))
    allocation = allocate(candidates, budget, cap or max(1, candidates.n_songs), exploration)
    result = allocation.audience(candidates, found.scores_CB[row, rank], budget)
    if exploration is None:
        result.explored_CB = result.propensity_CB = None
    return result


def allocate(
    candidates: ValuedPairs,
    budget: int | Array,
    cap: int | Array,
    exploration: Exploration | None = None,
    tolerance: float = TOLERANCE,
) -> Allocation:
    """Choose the pairs of the largest total value.

    Values of 0 and below are left out, whatever is free. Of users worth the same to a song, and with room for it, it
    takes the lower numbers.
    The order in which candidates are given changes nothing.

    Args:
        candidates: pairs and their values.
        budget: users a song, one number or (C,).
        cap: songs a user, one number or (U,).
        exploration: how many places are given at random; None: none.
        tolerance: share of the best total value that may be missing. By 1e-9 small cases are exact.
    """
    budget_C = np.broadcast_to(budget, (candidates.n_songs,)).astype(np.int64)
    cap_U = np.broadcast_to(cap, (int(candidates.user_P.max(initial=-1)) + 1,) if np.ndim(cap) == 0 else np.shape(cap))
    places_C = np.zeros_like(budget_C)
    if exploration is not None:
        places_C = np.floor(exploration.share * budget_C + 0.5).astype(np.int64)
    chosen_P, value, bound = best_pairs(candidates, budget_C - places_C, cap_U, tolerance)
    propensity_P = chosen_P.astype(np.float64)
    if exploration is None:
        return Allocation(chosen_P, np.zeros_like(chosen_P), propensity_P, value, bound)
    drawn_P, chance_P = explore(candidates, chosen_P, places_C, cap_U, exploration)
    return Allocation(chosen_P | drawn_P, drawn_P, propensity_P + drawn_P * chance_P, value, bound)


def best_pairs(candidates: ValuedPairs, budget_C: Array, cap_U: Array, tolerance: float) -> tuple[Array, float, float]:
    """The pairs chosen by value: mask (P,), their total value, and an upper bound of any choice's."""
    from retrieval.auction import auction, greedy, settle_ties  # here: the service takes this module, and no numba

    chosen_P = np.zeros(len(candidates.song_P), dtype=bool)
    at = np.flatnonzero(candidates.eligible(budget_C, cap_U))
    at = at[np.lexsort((candidates.user_P[at], candidates.song_P[at]))]
    if not len(at):
        return chosen_P, 0.0, 0.0
    songs, song_E = np.unique(candidates.song_P[at], return_inverse=True)
    users, user_E = np.unique(candidates.user_P[at], return_inverse=True)
    value_E = candidates.value_P[at].astype(np.float64)
    ends_2E = np.stack([song_E, user_E + len(songs)]).astype(np.int32)
    pairs = np.concatenate([np.arange(len(at)), np.argsort(user_E, kind="stable")]).astype(np.int32)
    pair_at = np.concatenate([[0], np.cumsum(np.bincount(ends_2E.ravel()))])
    limit_N = np.concatenate([budget_C[songs], cap_U[users]]).astype(np.int64)
    first_E = greedy(np.argsort(-value_E, kind="stable"), ends_2E, limit_N)
    most = min(int(limit_N[: len(songs)].sum()), int(limit_N[len(songs) :].sum()), len(at))
    unit = float(value_E[first_E].sum()) / most  # so that ε · pairs chosen ≤ tolerance · the best total value
    epsilons = unit * falling(tolerance)
    chosen_E, price_N = auction(pair_at, pairs, ends_2E, value_E, limit_N, len(songs), epsilons)
    if value_E[first_E].sum() > value_E[chosen_E].sum():
        chosen_E = first_E
    settle_ties(np.lexsort((user_E, -value_E, song_E)), ends_2E, value_E, limit_N, chosen_E)
    over_E = np.maximum(value_E - price_N[ends_2E[0]] - price_N[ends_2E[1]], 0)  # what no price covers
    chosen_P[at[chosen_E]] = True
    return chosen_P, float(value_E[chosen_E].sum()), float(limit_N @ price_N + over_E.sum())


def falling(tolerance: float) -> Array:
    """ε of each phase in mean values of a pair, the last one the tolerance."""
    phases = max(0, int(np.ceil(np.log(COARSE / tolerance) / np.log(FINER) - 1e-9)))
    return np.append(COARSE / FINER ** np.arange(phases), tolerance)


def explore(
    candidates: ValuedPairs, chosen_P: Array, places_C: Array, cap_U: Array, exploration: Exploration
) -> tuple[Array, Array]:
    """Draw users for each song's `places_C` uniformly among its candidates that were not chosen by value.

    Caps hold. A user whom more songs could draw than they have room for is first open to as many of them as they have
    room, drawn uniformly: chance room / songs. Each song then draws among those open to it: chance places / open. The
    propensity is the product. With weights 1 / propensity the drawn users speak for all candidates below the cut whose
    user had room (two-phase sampling). Without caps the first chance is 1. Where the choice by value has used up all
    caps, nobody is drawn.

    Returns:
        Who is drawn, (P,), and the propensity of those open to the song, 0 of others.
    """
    song_P, user_P = candidates.song_P, candidates.user_P
    room_U = cap_U - np.bincount(user_P[chosen_P], minlength=len(cap_U))
    at = np.flatnonzero(candidates.eligible(places_C, room_U) & ~chosen_P)
    song, user = song_P[at], user_P[at]
    songs_U = np.bincount(user, minlength=len(cap_U))
    draw = uniform(exploration.seed, exploration.name_C[song], user)
    order, turn = in_order(user, song, -draw[0], len(cap_U))
    is_open = np.zeros(len(at), dtype=bool)
    is_open[order] = turn < room_U[user[order]]
    at, song, user, draw = at[is_open], song[is_open], user[is_open], draw[:, is_open]
    order, turn = in_order(song, user, -draw[1], candidates.n_songs)
    drawn_P, chance_P = np.zeros(len(song_P), dtype=bool), np.zeros(len(song_P))
    drawn_P[at[order]] = turn < places_C[song[order]]
    open_C = np.bincount(song, minlength=candidates.n_songs)
    chance_P[at] = np.minimum(1, room_U[user] / songs_U[user]) * np.minimum(1, places_C[song] / open_C[song])
    return drawn_P, chance_P


def uniform(seed: int, name_P: Array, user_P: Array) -> Array:
    """Two numbers in [0, 1) for each pair, hashed from seed, song and user alone: (2, P)."""
    key_P = _mixed(_mixed(np.uint64(seed) + np.zeros(len(name_P), np.uint64)) ^ name_P.astype(np.uint64))
    key_P = _mixed(key_P ^ user_P.astype(np.uint64))
    return np.stack([_mixed(key_P), _mixed(~key_P)]) / 2.0**64


def _mixed(x_P: Array) -> Array:
    """SplitMix64 (Steele et al., OOPSLA 2014)."""
    x_P = x_P + np.uint64(0x9E3779B97F4A7C15)
    x_P = (x_P ^ (x_P >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x_P = (x_P ^ (x_P >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x_P ^ (x_P >> np.uint64(31))
