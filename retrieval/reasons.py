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
from retrieval.distinct import marked

Array = NDArray[Any]
MOST = 1 << 22  # heard songs at a time
CELLS = 1 << 20  # weights of all songs for some new ones at a time: 4 MB
PART = 1 << 16  # heard songs whose vectors are read at a time, where few are asked for


def placed(users_CB: Array) -> tuple[Array, Array]:
    """The users of audiences, (N,), and which of them is at each place, (C, B); −1 where nobody is."""
    there = users_CB >= 0
    if len(users_CB) == 1:  # none is there twice
        return users_CB[there], np.where(there, np.cumsum(there) - 1, -1)
    users, place = np.unique(users_CB, return_inverse=True)
    return users[users >= 0], place.reshape(users_CB.shape).astype(np.int64) - int((users < 0).sum())


def explain(
    users_CB: Array,
    positions_CK: Array,
    weights_CK: Array,
    heard_NS: sparse.csr_matrix,
    top: int = 3,
    most: int = MOST,
) -> Array:
    """The similar songs that brought each user in: song numbers (C, B, top), strongest contribution first, −1 padded.

    Of the similar songs `positions_CK`, −1 where none, by their weights; of equal contributions the lower song number.
    The working set is that of new songs whose users heard `most` songs together, or of a single one, and their weights.
    """
    n_songs, length_N = heard_NS.shape[1], np.diff(heard_NS.indptr)
    reasons = np.full((*users_CB.shape, top), -1, dtype=np.int64)
    longest = max(1, CELLS // n_songs)
    weight_CS = np.zeros((min(longest, len(users_CB)), n_songs), dtype=weights_CK.dtype)
    for rows in _turns(users_CB, length_N, most, longest):
        row_P, rank_P, heard_PS = _heard(users_CB[rows], heard_NS)
        row, place = np.nonzero(positions_CK[rows] >= 0)
        similar = row, positions_CK[rows][row, place]
        weight_CS[similar] = weights_CK[rows][row, place]
        start_P = (row_P * n_songs).astype(np.int32)
        weight_H = weight_CS.ravel().take(np.repeat(start_P, np.diff(heard_PS.indptr)) + heard_PS.indices)
        weight_CS[similar] = 0
        kept = np.flatnonzero(weight_H != 0)
        value = heard_PS.data[kept] * weight_H[kept]
        value[value <= 0] = -np.inf
        pair = np.searchsorted(heard_PS.indptr, kept, side="right") - 1
        _name(reasons[rows], value, pair, heard_PS.indices[kept], row_P, rank_P)
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
    for rows in _turns(users_CB, length_N, most):
        row_P, rank_P, heard_PS = _heard(users_CB[rows], heard_NS)
        pair_H = np.repeat(np.arange(len(row_P)), np.diff(heard_PS.indptr))
        value_H = _similarities(new_CD[rows], song_SD, row_P[pair_H], heard_PS.indices)
        _name(reasons[rows], value_H, pair_H, heard_PS.indices, row_P, rank_P)
    return reasons


def nearest_of(heard_H: Array, new_CD: Array, song_SD: Array, top: int = 3, most: int = MOST) -> Array:
    """As `nearest_heard`, (C, top), for one user who heard these songs; they ascend."""
    reasons_CT = np.full((len(new_CD), top), -1, dtype=np.int64)
    vector_HD = song_SD[heard_H]
    for rows in slices(len(new_CD), max(1, most // max(1, len(heard_H)))):
        value_RH = np.asarray(new_CD[rows] @ vector_HD.T)
        value_RH[np.isnan(value_RH)] = -np.inf
        row_R = np.arange(len(value_RH))
        for place in range(min(top, len(heard_H))):
            at_R = value_RH.argmax(axis=1)  # of equal ones the first
            reasons_CT[rows, place] = np.where(value_RH[row_R, at_R] > -np.inf, heard_H[at_R], -1)
            value_RH[row_R, at_R] = -np.inf
    return reasons_CT


def _heard(users_CB: Array, heard_NS: sparse.csr_matrix) -> tuple[Array, Array, sparse.csr_matrix]:
    """New song and place in the audience of each of P users, (P,), and what they heard, (P, S)."""
    row_P, rank_P = np.nonzero(users_CB >= 0)
    user_P = users_CB[row_P, rank_P]
    all_in_order = len(user_P) == heard_NS.shape[0] and (user_P == np.arange(len(user_P))).all()  # of one song
    return row_P, rank_P, heard_NS if all_in_order else heard_NS[user_P]


def _similarities(new_CD: Array, song_SD: Array, row_H: Array, song_H: Array) -> Array:
    """Inner products of new songs and heard ones, (H,): of all with all where most are asked for, else one by one."""
    heard, at_H = _distinct(song_H, len(song_SD))
    if 4 * len(song_H) > len(new_CD) * len(heard):
        return np.asarray((new_CD @ song_SD[heard].T)[row_H, at_H])
    value_H = np.empty(len(song_H), dtype=np.result_type(new_CD, song_SD))
    for part in slices(len(song_H), PART):
        np.einsum("hd,hd->h", new_CD[row_H[part]], song_SD[song_H[part]], out=value_H[part])
    return value_H


def _name(reasons_CBT: Array, value_H: Array, pair_H: Array, song_H: Array, row_P: Array, rank_P: Array) -> None:
    """Write the songs of the highest values above −inf of each pair, of equal ones the first; `pair_H` ascends, and
    `value_H` is overwritten."""
    begins_H = np.diff(pair_H, prepend=-1) > 0
    start, of_H = np.flatnonzero(begins_H), np.cumsum(begins_H) - 1
    for place in range(reasons_CBT.shape[2] if len(pair_H) else 0):
        highest_H = np.fmax.reduceat(value_H, start)[of_H]
        at = np.flatnonzero((value_H == highest_H) & (value_H > -np.inf))
        at = at[np.diff(pair_H[at], prepend=-1) > 0]
        pair = pair_H[at]
        reasons_CBT[row_P[pair], rank_P[pair], place] = song_H[at]
        value_H[at] = -np.inf


def _turns(users_CB: Array, length_N: Array, most: int, longest: int | None = None) -> Iterator[slice]:
    """Slices of at most `longest` new songs whose users, by `length_N`, heard at most `most` songs, or of one."""
    heard_C = np.where(users_CB >= 0, np.append(length_N, 0)[users_CB], 0).sum(axis=1)
    end_C, start = np.cumsum(heard_C), 0
    while start < len(end_C):
        before = end_C[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(end_C, before + most, side="right")))
        stop = min(stop, start + longest) if longest else stop
        yield slice(start, stop)
        start = stop


def _distinct(song: Array, n_songs: int) -> tuple[Array, Array]:
    """The different songs in order, and where each is among them; a few are sorted, many are marked among all."""
    if 16 * len(song) < n_songs:
        return np.unique(song, return_inverse=True)
    heard_S = marked(song, n_songs)
    return np.flatnonzero(heard_S), np.cumsum(heard_S)[song] - 1
