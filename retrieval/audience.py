"""Audience targeting: a new song's similar songs → their listeners, ranked and cut to a budget (I2I2U), and the
users above their own interest boundary (U2I). Vectorised; memory is bounded by `chunk` new songs at a time.

Shapes: C new songs, S known songs, U users, K similar songs, B budget, D vector size.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

Array = NDArray[Any]


@dataclass
class Audience:
    """Ranked users of each new song; `users_CB` is padded with −1 where fewer users qualify, `scores_CB` with −inf."""

    users_CB: Array
    scores_CB: Array


def similarity_weights(scores_CK: Array, positions_CK: Array, n_songs: int, power: float = 1.0) -> sparse.csr_matrix:
    """Similar songs of each new song as a sparse matrix (C, S).

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
    row = np.broadcast_to(np.arange(len(positions_CK))[:, None], positions_CK.shape)
    shape = (len(positions_CK), n_songs)
    return sparse.csr_matrix((weight_CK[found].astype(np.float32), (row[found], positions_CK[found])), shape=shape)


def activity_scale(listening_US: sparse.csr_matrix, power: float) -> Array:
    """1 / (plays + 1)^power of each user, (U,): without it the most active users head every list."""
    plays_U = np.diff(listening_US.indptr)
    return np.asarray((plays_U + 1.0) ** -power, dtype=np.float32)


def popularity_scale(listening_US: sparse.csr_matrix, power: float) -> Array:
    """1 / (listeners + 1)^power of each song, (S,): everybody listens to a hit, which says little about taste."""
    listeners_S = np.bincount(listening_US.indices, minlength=listening_US.shape[1])
    return np.asarray((listeners_S + 1.0) ** -power, dtype=np.float32)


def listeners_of_similar(
    weights_CS: sparse.csr_matrix,
    listening_US: sparse.csr_matrix,
    scale_U: Array,
    budget: int,
    allowed_CU: Any = None,
    chunk: int = 256,
) -> Audience:
    """I2I2U: score(u) = scale(u) · Σ_similar songs weight · strength of u's signal on it; the best `budget` users.

    Args:
        weights_CS: similar songs of each new song.
        listening_US: strongest signal of each user on each song (favourite > complete > play).
        scale_U: factor of each user.
        budget: users per new song.
        allowed_CU: function of a slice of new songs → (rows, U) bool mask of users who may be reached, or None.
        chunk: new songs scored at a time; the working set is chunk × U numbers.
    """
    by_song = sparse.csr_matrix(listening_US.T)
    parts = []
    for rows in _slices(weights_CS.shape[0], chunk):
        score = (weights_CS[rows] @ by_song).toarray() * scale_U
        score[score <= 0] = -np.inf
        if allowed_CU is not None:
            score[~allowed_CU(rows)] = -np.inf
        parts.append(top_users(score, budget))
    return _join(parts)


def rank_by_score(score_of: Any, n_new: int, budget: int, chunk: int = 256) -> Audience:
    """The best `budget` users by a dense score: `score_of(slice)` gives (rows, U), −inf for who must not be reached."""
    return _join([top_users(score_of(rows), budget) for rows in _slices(n_new, chunk)])


def top_users(score_CU: Array, budget: int) -> Audience:
    """The `budget` highest-scoring users of each row; ties go to the lower user number, −inf never qualifies."""
    n_users = score_CU.shape[1]
    budget = min(budget, n_users)
    kth = min(n_users - budget, n_users - 1)
    edge_C1 = np.partition(score_CU, kth, axis=1)[:, kth, None]
    # Partitioning picks any of the users tied at the edge: take the first of them that still find a place.
    above, tied = score_CU > edge_C1, score_CU == edge_C1
    chosen = above | (tied & (tied.cumsum(axis=1) <= budget - above.sum(axis=1, keepdims=True)))
    best = np.nonzero(chosen)[1].reshape(len(score_CU), budget)
    order = np.argsort(-np.take_along_axis(score_CU, best, axis=1), axis=1, kind="stable")
    best = np.take_along_axis(best, order, axis=1)
    value = np.take_along_axis(score_CU, best, axis=1)
    return Audience(np.where(np.isneginf(value), -1, best), value)


def margins(item_CD: Array, user_UD: Array, boundary_U: Array) -> Array:
    """⟨u, i⟩ − ⟨u, b⟩ for new songs × users, (C, U): positive where the song clears the user's interest boundary."""
    return np.asarray(item_CD @ user_UD.T - boundary_U)


def explain(
    users_CB: Array,
    positions_CK: Array,
    weights_CK: Array,
    listening_US: sparse.csr_matrix,
    top: int = 3,
    chunk: int = 64,
) -> Array:
    """The similar songs that brought each user in: song numbers (C, B, top), strongest contribution first, −1 padded.

    Args:
        users_CB: the audience.
        positions_CK: similar songs, −1 where none.
        weights_CK: their weights.
        listening_US: strongest signal of each user on each song.
        top: songs named per user.
        chunk: new songs at a time; the working set is chunk × B × K numbers.
    """
    n_songs = listening_US.shape[1]
    sorted_US = sparse.csr_matrix(listening_US)
    sorted_US.sort_indices()
    key = (
        np.repeat(np.arange(sorted_US.shape[0], dtype=np.int64), np.diff(sorted_US.indptr)) * n_songs
        + sorted_US.indices
    )
    reasons = np.full((*users_CB.shape, top), -1, dtype=np.int64)
    for rows in _slices(len(users_CB), chunk):
        user, song = users_CB[rows][:, :, None], positions_CK[rows][:, None, :]
        wanted = np.where((user >= 0) & (song >= 0), user.astype(np.int64) * n_songs + song, -1)
        at = np.minimum(np.searchsorted(key, wanted), max(len(key) - 1, 0))
        strength = np.where(key[at] == wanted, sorted_US.data[at], 0.0) if len(key) else np.zeros(wanted.shape)
        value = strength * weights_CK[rows][:, None, :]
        k = min(top, value.shape[2])
        best = np.argsort(-value, axis=2, kind="stable")[:, :, :k]
        named = np.take_along_axis(np.broadcast_to(song, value.shape), best, axis=2)
        reasons[rows, :, :k] = np.where(np.take_along_axis(value, best, axis=2) > 0, named, -1)
    return reasons


def _slices(n: int, chunk: int) -> Iterator[slice]:
    return (slice(at, min(at + chunk, n)) for at in range(0, n, chunk))


def _join(parts: list[Audience]) -> Audience:
    return Audience(np.concatenate([p.users_CB for p in parts]), np.concatenate([p.scores_CB for p in parts]))
