"""Why a user is in an audience: known songs that brought them in, or those of theirs nearest to the new one.

Both functions take `users_CB`, the audience as rows of `heard_NS`, −1 where fewer; `heard_NS`, the strongest signal of
each user on each song, with sorted indices; `top`, songs named per user; and `chunk`, new songs at a time.

Shapes: C new songs, S known songs, N users, K similar songs, B budget, D vector size.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from retrieval.audience import slices

Array = NDArray[Any]


def explain(
    users_CB: Array,
    positions_CK: Array,
    weights_CK: Array,
    heard_NS: sparse.csr_matrix,
    top: int = 3,
    chunk: int = 64,
) -> Array:
    """The similar songs that brought each user in: song numbers (C, B, top), strongest contribution first, −1 padded.

    Of the similar songs `positions_CK`, −1 where none, by their weights. The working set is chunk × B × K numbers.
    """
    n_songs = heard_NS.shape[1]
    key = np.repeat(np.arange(heard_NS.shape[0], dtype=np.int64), np.diff(heard_NS.indptr)) * n_songs
    key = np.append(key + heard_NS.indices, np.iinfo(np.int64).max)  # after all that can be wanted
    data = np.append(heard_NS.data, 0)
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
    chunk: int = 64,
) -> Array:
    """The songs each user listened to that are most similar to the new song: song numbers (C, B, top), −1 padded.

    The working set is chunk × H numbers, H the songs that chunk × B users heard.
    """
    length_U = np.diff(heard_NS.indptr)
    reasons = np.full((*users_CB.shape, top), -1, dtype=np.int64)
    for rows in slices(len(users_CB), chunk):
        row, rank = np.nonzero(users_CB[rows] >= 0)
        user = users_CB[rows][row, rank]
        length = length_U[user]
        pair = np.repeat(np.arange(len(user)), length)
        within = np.arange(len(pair)) - np.repeat(np.cumsum(length) - length, length)
        song = heard_NS.indices[heard_NS.indptr[user][pair] + within]
        heard, at = _distinct(song, len(song_SD))
        value = (new_CD[rows] @ song_SD[heard].T)[row[pair], at]
        order = np.lexsort((song, -value, pair))
        keep = within < top  # as many as there are in each group, whatever its order
        pair, within, song = pair[keep], within[keep], song[order][keep]
        reasons[rows][row[pair], rank[pair], within] = song
    return reasons


def _distinct(song: Array, n_songs: int) -> tuple[Array, Array]:
    """The different songs in order, and where each is among them; a few are sorted, many are marked among all."""
    if 16 * len(song) < n_songs:
        return np.unique(song, return_inverse=True)
    heard_S = np.bincount(song, minlength=n_songs) > 0
    return np.flatnonzero(heard_S), np.cumsum(heard_S)[song] - 1
