"""Why a user is in an audience: known songs that brought them in, or those of theirs nearest to the new one.

Both functions take `users_CB`, the audience as rows of `heard_NS`, −1 where fewer; `heard_NS`, the strongest signal of
each user on each song, with sorted indices; and `top`, songs named per user.

Shapes: C new songs, S known songs, N users, K similar songs, B budget, D vector size, P (new song, user) pairs of some
audiences, H songs that the users of these pairs heard.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from retrieval.audience import slices

Array = NDArray[Any]
MOST = 1 << 22  # heard songs at a time


def explain(
    users_CB: Array,
    positions_CK: Array,
    weights_CK: Array,
    heard_NS: sparse.csr_matrix,
    top: int = 3,
    chunk: int = 64,
) -> Array:
    """The similar songs that brought each user in: song numbers (C, B, top), strongest contribution first, −1 padded.

    Of the similar songs `positions_CK`, −1 where none, by their weights; of equal contributions the lower song number.
    The working set is chunk × B × K numbers.
    """
    n_songs = heard_NS.shape[1]
    key = np.repeat(np.arange(heard_NS.shape[0], dtype=np.int64), np.diff(heard_NS.indptr)) * n_songs
    key = np.append(key + heard_NS.indices, np.iinfo(np.int64).max)  # after all that can be wanted
    data = np.append(heard_NS.data, 0)
    by_number = np.argsort(positions_CK, axis=1, kind="stable")  # neighbours in memory are looked up twice as fast
    positions_CK = np.take_along_axis(positions_CK, by_number, axis=1)
    weights_CK = np.take_along_axis(weights_CK, by_number, axis=1)
    reasons = np.full((*users_CB.shape, top), -1, dtype=np.int64)
    for rows in slices(len(users_CB), chunk):
        user, song = users_CB[rows][:, :, None].astype(np.int64), positions_CK[rows][:, None, :]
        wanted = np.where((user >= 0) & (song >= 0), user * n_songs + song, -1)
        at = np.searchsorted(key, wanted)
        value = np.where(key[at] == wanted, data[at], 0.0) * weights_CK[rows][:, None, :]
        k = min(top, value.shape[2])
        best = np.argsort(-value, axis=2, kind="stable")[:, :, :k]
        named = np.take_along_axis(np.broadcast_to(song, value.shape), best, axis=2)
        reasons[rows, :, :k] = np.where(np.take_along_axis(value, best, axis=2) > 0, named, -1)
    return reasons


def nearest_heard(
    users_CB: Array,
    new_CD: Array,
    song_SD: Array,
    heard_NS: sparse.csr_matrix,
    top: int = 3,
    most: int = MOST,
) -> Array:
    """The songs each user listened to that are most similar to the new song: song numbers (C, B, top), −1 padded.

    Of equally similar ones the lower song number. The working set is that of new songs whose users heard `most` songs
    together, or of a single one.
    """
    reasons = np.full((*users_CB.shape, top), -1, dtype=np.int64)
    length_N = np.diff(heard_NS.indptr)
    heard_C = np.where(users_CB >= 0, np.append(length_N, 0)[users_CB], 0).sum(axis=1)
    for rows in _turns(heard_C, most):
        row_P, rank_P = np.nonzero(users_CB[rows] >= 0)
        user_P = users_CB[rows][row_P, rank_P]
        length_P = length_N[user_P]
        pair_H = np.repeat(np.arange(len(user_P)), length_P)
        first_P = heard_NS.indptr[user_P] - (np.cumsum(length_P) - length_P)
        song_H = heard_NS.indices[first_P[pair_H] + np.arange(len(pair_H))]
        heard, at_H = _distinct(song_H, len(song_SD))
        value_H = (new_CD[rows] @ song_SD[heard].T)[row_P[pair_H], at_H]
        for place in range(top):
            at = _highest(value_H, pair_H)
            reasons[rows][row_P[pair_H[at]], rank_P[pair_H[at]], place] = song_H[at]
            value_H[at] = -np.inf
    return reasons


def _turns(heard_C: Array, most: int) -> Iterator[slice]:
    """Slices of the new songs of which each, or a single song, has at most `most` heard songs."""
    end_C, start = np.cumsum(heard_C), 0
    while start < len(end_C):
        before = end_C[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(end_C, before + most, side="right")))
        yield slice(start, stop)
        start = stop


def _highest(value_H: Array, pair_H: Array) -> Array:
    """Where each pair has its highest value above −inf, of equal ones the first; `pair_H` ascends."""
    starts_H = np.diff(pair_H, prepend=-1) > 0
    if not len(pair_H):
        return np.zeros(0, dtype=np.int64)
    highest = np.fmax.reduceat(value_H, np.flatnonzero(starts_H))[np.cumsum(starts_H) - 1]
    at = np.flatnonzero((value_H == highest) & (value_H > -np.inf))
    return at[np.diff(pair_H[at], prepend=-1) > 0]


def _distinct(song: Array, n_songs: int) -> tuple[Array, Array]:
    """The different songs in order, and where each is among them; a few are sorted, many are marked among all."""
    if 16 * len(song) < n_songs:
        return np.unique(song, return_inverse=True)
    heard_S = np.bincount(song, minlength=n_songs) > 0
    return np.flatnonzero(heard_S), np.cumsum(heard_S)[song] - 1
