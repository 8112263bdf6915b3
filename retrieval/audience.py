"""Building blocks of audience targeting (`retrieval.targeting`): scores of similar songs' listeners (I2I2U), ranked
lists cut to a budget, and unions of audiences. Vectorised; memory is bounded by `chunk` new songs at a time.

Shapes: C new songs, S known songs, U users, K similar songs, B budget, D vector size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from retrieval.distinct import distinct
from retrieval.listening import Listening

Array = NDArray[Any]
Scores = Callable[[slice], Any]  # of some new songs → scores (rows, U), an array or a sparse matrix
CELL_BYTES = 32  # at most, to score a (new song, user) pair: score, index, their copies and masks (12 to 25 measured)
FUSION = 60.0  # of reciprocal rank fusion, as its authors chose it
GATHERED = 4  # to gather a user's vector takes as long as to score it for so many songs


@dataclass
class Audience:
    """Ranked users of each new song; `users_CB` is padded with −1 where fewer users qualify, `scores_CB` with −inf.

    With exploration also who was drawn at random, and the chance with which each was chosen (`retrieval.allocation`).
    Of a ranked audience also `asked`: the candidates and their features (`retrieval.ranking.Asked`).
    """

    users_CB: Array
    scores_CB: Array
    explored_CB: Array | None = None
    propensity_CB: Array | None = None
    asked: Any = None


@dataclass(frozen=True)
class Excluded:
    """Users who must not be reached at all, and (song, user) pairs that must not be; songs by place, ascending."""

    users: Array = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    song: Array = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    user: Array = field(default_factory=lambda: np.zeros(0, dtype=np.int64))

    def and_users(self, users_N: Array) -> Self:
        """These, and some users more."""
        return replace(self, users=distinct(self.users, users_N)) if len(users_N) else self

    def __bool__(self) -> bool:
        return bool(len(self.users) or len(self.song))


@dataclass(frozen=True)
class Allowed:
    """Who may be reached: nobody who is excluded and, with a gate, only those whose boundary a song clears.

    Args:
        excluded: users, and pairs of a song and a user.
        n_users: U.
        clears: of some songs (a slice) and users (a slice or their numbers) → whether a boundary is cleared, (rows, u).
    """

    excluded: Excluded
    n_users: int
    clears: Callable[[slice, Any], Array] | None = None

    @cached_property
    def is_out_U(self) -> Array:
        """Whom no song may reach."""
        is_out_U = np.zeros(self.n_users, dtype=bool)
        is_out_U[self.excluded.users] = True
        return is_out_U

    def some(self, n_songs: int) -> Array | None:
        """The numbers of those who are not out, if to score them alone is quicker than to score everybody."""
        stay = self.n_users - len(self.excluded.users)
        return np.flatnonzero(~self.is_out_U) if stay * (n_songs + GATHERED) < self.n_users * n_songs else None

    def cut(self, score_Cu: Array, rows: slice, users: Any) -> None:
        """Set scores of some songs and users (a slice or their numbers, ascending) to −inf where they may not be
        reached."""
        score_Cu[:, self.is_out_U[users]] = -np.inf
        song, user = self._pairs(rows)
        if len(song) and score_Cu.shape[1]:
            known = np.arange(users.start, users.stop) if isinstance(users, slice) else users
            at = np.minimum(np.searchsorted(known, user), len(known) - 1)
            here = known[at] == user
            score_Cu[song[here], at[here]] = -np.inf
        if self.clears is not None:
            score_Cu[~self.clears(rows, users)] = -np.inf

    def kept(self, score_CU: sparse.csr_matrix, rows: slice) -> sparse.csr_matrix:
        """The stored scores of some songs and all users, without those of who may not be reached."""
        keep = ~self.is_out_U[score_CU.indices]
        song, user = self._pairs(rows)
        is_met_U = np.zeros(self.n_users, dtype=bool)
        for one in np.unique(song):
            entries = slice(score_CU.indptr[one], score_CU.indptr[one + 1])
            is_met_U[user[song == one]] = True
            keep[entries] &= ~is_met_U[score_CU.indices[entries]]
            is_met_U[user[song == one]] = False
        if self.clears is not None:
            row = np.repeat(np.arange(score_CU.shape[0], dtype=np.int32), np.diff(score_CU.indptr))
            keep &= self.clears(rows, slice(0, self.n_users))[row, score_CU.indices]
        at = np.flatnonzero(keep)
        stored = score_CU.data[at], score_CU.indices[at], np.searchsorted(at, score_CU.indptr)
        return sparse.csr_matrix(stored, shape=score_CU.shape)

    def _pairs(self, rows: slice) -> tuple[Array, Array]:
        """Excluded pairs of some songs: places of these, and users."""
        start, stop = np.searchsorted(self.excluded.song, [rows.start, rows.stop])
        return self.excluded.song[start:stop] - rows.start, self.excluded.user[start:stop]


def similarity_weights(scores_CK: Array, positions_CK: Array, power: float = 1.0) -> Array:
    """How much each similar song of a new song weighs, (C, K); 0 where there is none.

    A weight is the similarity, min-max scaled within the song's own K neighbours to (0, 1], to the given power: inner
    products have no common zero, so only their order and spacing within a list are used.
    """
    found = positions_CK >= 0
    low = np.where(found, scores_CK, np.inf).min(axis=1, keepdims=True)
    high = np.where(found, scores_CK, -np.inf).max(axis=1, keepdims=True)
    width = np.where(high > low, high - low, 1.0)
    scaled = np.where(found, scores_CK - low, 0.0) / width
    floor = 1.0 / positions_CK.shape[1]
    weight_CK = (floor + (1 - floor) * np.where(high > low, scaled, 1.0)) ** power
    return np.where(found, weight_CK, 0.0).astype(np.float32)


def without_itself(scores_CK: Array, positions_CK: Array, song_C: Array) -> tuple[Array, Array]:
    """Neighbours of each song but itself, one fewer; of a song that is not among its neighbours the last one goes."""
    own = positions_CK == song_C[:, None]
    own[~own.any(axis=1), -1] = True
    shape = len(song_C), positions_CK.shape[1] - 1
    return scores_CK[~own].reshape(shape), positions_CK[~own].reshape(shape)


def song_rows(positions_CK: Array, weights_CK: Array, n_songs: int) -> sparse.csr_matrix:
    """Weights of similar songs as a sparse matrix, (C, S)."""
    row, at = np.nonzero(positions_CK >= 0)
    entries = weights_CK[row, at], (row, positions_CK[row, at])
    return sparse.csr_matrix(entries, shape=(len(positions_CK), n_songs))


def activity_scale(listening_US: sparse.csr_matrix, power: float) -> Array:
    """1 / (plays + 1)^power of each user, (U,): without it the most active users head every list."""
    plays_U = np.diff(listening_US.indptr)
    return np.asarray((plays_U + 1.0) ** -power, dtype=np.float32)


def popularity_scale(listening_US: sparse.csr_matrix, power: float) -> Array:
    """1 / (listeners + 1)^power of each song, (S,): everybody listens to a hit, which says little about taste."""
    return scale_of(np.bincount(listening_US.indices, minlength=listening_US.shape[1]), power)


def scale_of(listeners_S: Array, power: float) -> Array:
    """1 / (listeners + 1)^power by how many there are, (S,)."""
    return np.asarray((listeners_S + 1.0) ** -power, dtype=np.float32)


def listener_scores(weights_CS: sparse.csr_matrix, listening: Listening, scale_U: Array) -> sparse.csr_matrix:
    """I2I2U: score(u) = scale(u) · Σ_similar songs weight · strength of u's signal on it, (C, U).

    Stored are those who listened to a similar song; −inf where the score is not above 0.
    """
    score = listening.weighted(weights_CS)
    score.data = score.data * scale_U[score.indices]
    score.data[score.data <= 0] = -np.inf
    return score


def rank_by_score(score_of: Scores, n_new: int, budget: int, chunk: int = 256) -> Audience:
    """The best `budget` users of each new song; −inf never qualifies.

    Args:
        score_of: scores, of all users or the stored entries of a sparse matrix; they may be overwritten.
        n_new: new songs.
        budget: users per new song.
        chunk: new songs scored at a time; the working set is chunk × U numbers.
    """
    return join([best_of(score_of(rows), budget) for rows in slices(n_new, chunk)])


def best_of(score: Any, budget: int) -> Audience:
    """The best `budget` users of each row of scores, which may be overwritten."""
    if not score.shape[1]:
        return empty_audience(score.shape[0], budget, score.dtype)
    return top_entries(score, budget) if sparse.issparse(score) else top_users(score, budget)


def top_users(score_CU: Array, budget: int) -> Audience:
    """The `budget` highest-scoring users of each row; ties go to the lower user number, −inf never qualifies."""
    # of −score: where most are −inf, looking for the place from the other end takes ten times as long
    last = min(budget, score_CU.shape[1]) - 1
    edge_C1 = -np.partition(-score_CU, last, axis=1)[:, last, None]
    row, user = np.nonzero((score_CU >= edge_C1) & (score_CU > -np.inf))
    return ranked(row, user, score_CU[row, user], len(score_CU), budget)


def top_entries(score_CU: sparse.csr_matrix, budget: int) -> Audience:
    """As `top_users`, among the stored entries of a sparse matrix only: most users have no score for most songs."""
    n_rows, found_C = score_CU.shape[0], np.diff(score_CU.indptr)
    widest = int(found_C.max(initial=0))
    keep = score_CU.data > -np.inf
    if 0 < budget < widest:
        padded = np.full((n_rows, widest), -np.inf, dtype=score_CU.dtype)
        padded[np.arange(widest, dtype=np.int32) < found_C[:, None]] = score_CU.data
        padded.partition(widest - budget, axis=1)
        keep &= score_CU.data >= np.repeat(padded[:, widest - budget], found_C)
    at = np.flatnonzero(keep)
    row = np.searchsorted(score_CU.indptr, at, side="right") - 1
    return ranked(row, score_CU.indices[at], score_CU.data[at], n_rows, budget)


def ranked(row: Array, user: Array, score: Array, n_rows: int, budget: int) -> Audience:
    """Candidates, of any number a row and in any order, as ranked lists of `budget`."""
    order, rank = in_order(row, user, score, n_rows)
    row, user, score = row[order], user[order], score[order]
    keep = rank < budget
    found = empty_audience(n_rows, budget, score.dtype)
    found.users_CB[row[keep], rank[keep]] = user[keep]
    found.scores_CB[row[keep], rank[keep]] = score[keep]
    return found


def in_order(row: Array, user: Array, score: Array, n_rows: int) -> tuple[Array, Array]:
    """By row, the highest scores first, ties by user: the order, and the rank from 0 within the row of each in it."""
    order = np.lexsort((user, -score, row))
    return order, np.arange(len(row)) - np.searchsorted(row[order], np.arange(n_rows))[row[order]]


def empty_audience(n_rows: int, budget: int, dtype: Any = np.float32) -> Audience:
    """Audiences without a user."""
    return Audience(np.full((n_rows, budget), -1), np.full((n_rows, budget), -np.inf, dtype=dtype))


def numbered(found: Audience, users_P: Array) -> Audience:
    """An audience of places among some users as one of their numbers."""
    places_CB = np.maximum(found.users_CB, 0)
    users_CB = users_P[places_CB] if len(users_P) else places_CB
    return replace(found, users_CB=np.where(found.users_CB >= 0, users_CB, -1))


def union(one: Audience, other: Audience, budget: int) -> Audience:
    """Two audiences of the same songs merged by reciprocal rank fusion (Cormack et al., SIGIR 2009).

    A user's score is Σ 1 / (60 + rank) over the lists they are in: scores of unlike methods are never compared, and who
    is in both lists goes ahead of their neighbours in either. Equal ranks go to the lower user number.
    """
    n_users = max(int(one.users_CB.max(initial=-1)), int(other.users_CB.max(initial=-1)), budget - 1) + 1
    total = sparse.csr_matrix((len(one.users_CB), n_users))
    for found in (one, other):
        row, rank = np.nonzero(found.users_CB >= 0)
        entries = (1 / (FUSION + 1 + rank), (row, found.users_CB[row, rank]))
        total = total + sparse.csr_matrix(entries, shape=total.shape)
    return top_entries(sparse.csr_matrix(total), budget)


def songs_at_once(memory_mb: float, n_users: int, extra: int = 0) -> int:
    """New songs whose users can be scored at a time in so much memory, at least one; `extra` bytes a song.

    Holds for any listening, also where every user has a score for every song, and budgets well below `n_users`. The
    listening itself and its transpose come on top.
    """
    return max(1, int(memory_mb * 2**20 / (n_users * CELL_BYTES + extra)))


def slices(n: int, chunk: int) -> Iterator[slice]:
    """0 … n−1 in slices of at most `chunk`."""
    return (slice(at, min(at + chunk, n)) for at in range(0, n, chunk))


def join(parts: list[Audience]) -> Audience:
    """Audiences of some songs and of the next ones, as one."""
    return Audience(np.concatenate([p.users_CB for p in parts]), np.concatenate([p.scores_CB for p in parts]))
