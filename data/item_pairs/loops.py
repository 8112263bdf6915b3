"""Compiled loops over listeners and their histories: a song's row of common listeners, and its best neighbours.

Counting takes no branch, and a similarity is computed only where a bound, taken of many songs at once, does not rule it
out. What is kept of a row is a heap: the worst of the best comes first.

`row` is (song, scale, c_a, n_a, c of all songs, n of all songs, 1 / n of all songs), the terms of a song's similarities
(`data.item_pairs.neighbours.Terms`); `kept` is (listeners, min_common, shrinkage, targets, similarities).
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

from data.arrays import AnyArray, IntArray

BLOCK = 64  # songs whose bound is taken at once
DENSE = 8  # where a song's listeners have heard more than 1 / DENSE of all songs, repeats counted, all are looked at


@numba.njit(nogil=True, cache=True)  # type: ignore[misc]
def fill(
    songs: IntArray,
    by_song: tuple[IntArray, AnyArray],
    by_user: tuple[IntArray, AnyArray],
    weight_U: AnyArray | None,
    terms: tuple[float, AnyArray, AnyArray, AnyArray, AnyArray],
    options: tuple[int, float],
    counts: tuple[AnyArray, AnyArray],
    best: tuple[AnyArray, AnyArray],
) -> None:
    """Fill rows of `best` with the songs' neighbours, best first.

    Args:
        songs: numbers of the rows.
        by_song: pointers and users of the listening matrix, by song.
        by_user: pointers and songs of the same, by user.
        weight_U: weight of each common listener; None: 1.
        terms: scale, c and n of the rows' songs, c and n of the others.
        options: min_common, shrinkage.
        counts: listeners in common and sum of their weights (songs,), which may be the same; 0 before and after.
        best: targets (songs, K) and similarities (songs, K).
    """
    (song_at, users), (user_at, heard), (common, total) = by_song, by_user, counts
    scale, chance_a, norm_a, chance_b, norm_b = terms
    target_SK, value_SK = best
    n_songs, share_b = len(norm_b), 1 / norm_b
    touched = np.empty(n_songs + 1, dtype=np.int32)
    for song in songs:
        listeners, products = users[song_at[song] : song_at[song + 1]], 0
        for user in listeners:
            products += user_at[user + 1] - user_at[user]
        row = (song, scale, chance_a[song], norm_a[song], chance_b, norm_b, share_b)
        kept = (len(listeners), *options, target_SK[song], value_SK[song])
        if products * DENSE < n_songs:
            met = _count(listeners, user_at, heard, weight_U, common, total, touched)
            found = _best_of(touched[:met], common, total, row, kept)
        else:
            _count(listeners, user_at, heard, weight_U, common, total, None)
            found = _best_of_all(common, total, row, kept)
        _sort(target_SK[song], value_SK[song], found)


@numba.njit(nogil=True, cache=True)  # type: ignore[misc]
def _count(
    listeners: AnyArray,
    user_at: IntArray,
    heard: AnyArray,
    weight_U: AnyArray | None,
    common: AnyArray,
    total: AnyArray,
    touched: AnyArray | None,
) -> int:
    """Add up, of each song, the listeners who heard it and, in `total`, their weights.

    Each song that was heard is written down in `touched`, if that is given; returns how many these are.
    """
    met = 0
    for user in listeners:
        for other in heard[user_at[user] : user_at[user + 1]]:
            if touched is not None:
                touched[met] = other  # the next one takes its place unless this one is new
                met += int(common[other] == 0)
            common[other] += 1
            if weight_U is not None:
                total[other] += weight_U[user]
    return met


@numba.njit(nogil=True, cache=True)  # type: ignore[misc]
def _best_of(touched: AnyArray, common: AnyArray, total: AnyArray, row: Any, kept: Any) -> int:
    """Heap up the most similar of the touched songs, and set their counts to 0; returns the size of the heap."""
    _, scale, chance, _, chance_b, _, share_b = row
    found, least, min_common, shrinkage = 0, 0.0, kept[1], kept[2]
    for other in touched:
        both, summed = common[other], float(total[other])
        common[other] = total[other] = 0
        value = (scale * summed - chance * chance_b[other]) * share_b[other] * both
        if value > least * (both + shrinkage) and both >= min_common:
            found, least = _offer(other, both, summed, row, kept, found, least)
    return found


@numba.njit(nogil=True, cache=True)  # type: ignore[misc]
def _best_of_all(common: AnyArray, total: AnyArray, row: Any, kept: Any) -> int:
    """The same of all songs."""
    _, scale, chance, _, chance_b, _, share_b = row
    found, least, min_common, shrinkage = 0, 0.0, np.int32(kept[1]), kept[2]
    for start in range(0, len(common), BLOCK):
        common_B, total_B = common[start:][:BLOCK], total[start:][:BLOCK]
        chance_B, share_B = chance_b[start:][:BLOCK], share_b[start:][:BLOCK]
        hits = np.int32(0)  # a sum without a branch: the compiler takes many songs at once
        for i in range(len(common_B)):
            value = (scale * total_B[i] - chance * chance_B[i]) * share_B[i] * common_B[i]
            hits += np.int32((value > least * (common_B[i] + shrinkage)) & (common_B[i] >= min_common))
        for i in range(len(common_B) if hits else 0):
            value = (scale * total_B[i] - chance * chance_B[i]) * share_B[i] * common_B[i]
            if value > least * (common_B[i] + shrinkage) and common_B[i] >= min_common:
                found, least = _offer(start + i, common_B[i], float(total_B[i]), row, kept, found, least)
    common[:] = 0
    total[:] = 0
    return found


@numba.njit(nogil=True, cache=True)  # type: ignore[misc]
def _offer(other: int, both: int, summed: float, row: Any, kept: Any, found: int, least: float) -> tuple[int, float]:
    """Put a song into the heap if it belongs there.

    Returns:
        The size of the heap, and what scale · Σ_u w_u − c_a c_b, over n_b, has to exceed: a little less than the worst
        of a full heap has, for rounding.
    """
    song, scale, chance, norm, chance_b, norm_b, _ = row
    listeners, _, shrinkage, target_K, value_K = kept
    if other == song:
        return found, least
    value = (scale * summed - chance * chance_b[other]) / (norm * norm_b[other])
    found = _push(other, np.float32(value * (both / (both + shrinkage))), target_K, value_K, found)
    if found < len(target_K):
        return found, 0.0
    return found, max(0.0, value_K[0] * norm * (1 - 1e-6) - 1e-14 * scale * listeners)


@numba.njit(nogil=True, cache=True)  # type: ignore[misc]
def _worse(value: np.float32, target: int, other_value: np.float32, other_target: int) -> bool:
    """Whether a neighbour stands behind another: less similar, or as similar with the higher number."""
    return bool(value < other_value or (value == other_value and target > other_target))


@numba.njit(nogil=True, cache=True)  # type: ignore[misc]
def _push(target: int, value: np.float32, target_K: AnyArray, value_K: AnyArray, found: int) -> int:
    """Put a neighbour into the heap, whose first is the worst and falls out where it is full; returns its size."""
    if value <= 0:
        return found
    if found == len(target_K):
        if _worse(value, target, value_K[0], target_K[0]):
            return found
        _sink(target, value, target_K, value_K, found)
        return found
    at = found
    while at and _worse(value, target, value_K[(at - 1) // 2], target_K[(at - 1) // 2]):
        target_K[at], value_K[at] = target_K[(at - 1) // 2], value_K[(at - 1) // 2]
        at = (at - 1) // 2
    target_K[at], value_K[at] = target, value
    return found + 1


@numba.njit(nogil=True, cache=True)  # type: ignore[misc]
def _sink(target: int, value: np.float32, target_K: AnyArray, value_K: AnyArray, size: int) -> None:
    """Put a neighbour in the place of the first of a heap, and down to where it belongs."""
    at = 0
    while 2 * at + 1 < size:
        child = 2 * at + 1
        if child + 1 < size and _worse(value_K[child + 1], target_K[child + 1], value_K[child], target_K[child]):
            child += 1
        if not _worse(value_K[child], target_K[child], value, target):
            break
        target_K[at], value_K[at] = target_K[child], value_K[child]
        at = child
    target_K[at], value_K[at] = target, value


@numba.njit(nogil=True, cache=True)  # type: ignore[misc]
def _sort(target_K: AnyArray, value_K: AnyArray, found: int) -> None:
    """Sort a heap, best first."""
    for last in range(found - 1, 0, -1):
        target, value = target_K[last], value_K[last]
        target_K[last], value_K[last] = target_K[0], value_K[0]
        _sink(target, value, target_K, value_K, last)


@numba.njit(nogil=True, cache=True)  # type: ignore[misc]
def count_common(
    rows: IntArray,
    pairs: tuple[IntArray, IntArray],
    first: tuple[IntArray, AnyArray],
    second: tuple[IntArray, AnyArray],
    n_users: int,
    count: IntArray,
) -> None:
    """Write to `count` the common listeners of the pairs `rows`, which are sorted by source.

    `first` and `second` are pointers and users by song, of the sources and of the targets.
    """
    (source, target), (first_at, first_users), (second_at, second_users) = pairs, first, second
    listens = np.zeros(n_users, dtype=np.bool_)
    marked = -1
    for row in rows:
        song = source[row]
        if song != marked:
            if marked >= 0:
                listens[first_users[first_at[marked] : first_at[marked + 1]]] = False
            listens[first_users[first_at[song] : first_at[song + 1]]] = True
            marked = song
        for user in second_users[second_at[target[row]] : second_at[target[row] + 1]]:
            count[row] += listens[user]
