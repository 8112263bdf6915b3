"""Songs that share listeners, counted in compiled loops: memory for the result and one row a thread, never the product.

A row of the product "songs × songs" is built from the histories of one song's listeners (Gustavson, 1978), turned into
similarities and cut to its best K before the next. The loops hold no lock, so that plain threads share the songs.

Shapes: U users, S songs; K neighbours kept; N pairs; a source song, b target song.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
import polars as pl
from scipy import sparse

from data.arrays import AnyArray, IntArray

SHARES = 8  # per thread: songs are dealt in turn, so that every share has its popular ones


@dataclass
class Pairs:
    """Directed song pairs with their similarity, all arrays of one length."""

    source: IntArray
    target: IntArray
    similarity: AnyArray

    def take(self, keep: AnyArray) -> Pairs:
        """The sub-set chosen by a mask or by positions."""
        return Pairs(self.source[keep], self.target[keep], self.similarity[keep])

    def __len__(self) -> int:
        return len(self.source)

    def frame(self) -> pl.DataFrame:
        """As a table (source, target, similarity)."""
        return pl.DataFrame({"source": self.source, "target": self.target, "similarity": self.similarity})


@dataclass
class Terms:
    """What a similarity is made of: (scale · Σ w_u − c_a c_b) / (n_a n_b), u being the common listeners of a and b."""

    weight_U: AnyArray | None  # None: every listener weighs 1
    scale: float
    chance_S: AnyArray
    norm_S: AnyArray


def terms(similarity: str, listeners_S: AnyArray, songs_U: AnyArray) -> Terms:
    """The terms of a similarity, from how many listeners each song has and how many songs each user.

    "cosine" is n_ab / √(n_a n_b). Two popular songs share listeners by chance alone, so by cosine popular songs are
    everybody's neighbours; "phi", the correlation of the songs' 0/1 listener vectors, takes that chance away. Its
    counts are whole numbers below 2^53, so that songs which meet exactly as often as by chance come out exactly 0, and
    a song that everybody heard does with all. "iuf" is the cosine in which a common listener counts
    1 / log(1 + their songs) (inverse user frequency, Breese et al., UAI 1998). "bm25" discounts heavy listeners and
    popular songs by the weights of `implicit` (K1 = 1.2, B = 0.75).
    """
    n_S, none_S = listeners_S.astype(np.float64), np.zeros(len(listeners_S))
    if similarity == "phi":
        n_users = len(songs_U)
        return Terms(None, float(n_users), n_S, np.maximum(np.sqrt(n_S * (n_users - n_S)), 1.0))
    if similarity == "bm25":
        idf_U = np.log(max(len(n_S), 1)) - np.log1p(songs_U)
        length_S = n_S / max(float(n_S.mean()), 1e-12) if len(n_S) else n_S
        return Terms(idf_U**2, 1.0, none_S, (1.2 * (0.25 + 0.75 * length_S) + 1) / 2.2)
    weight_U = 1 / np.log1p(np.maximum(songs_U, 1)) if similarity == "iuf" else None
    return Terms(weight_U, 1.0, none_S, np.sqrt(np.maximum(n_S, 1.0)))


def neighbours(
    matrix: sparse.csr_matrix, top_k: int, min_common: int, similarity: str = "phi", shrinkage: float = 0.0
) -> Pairs:
    """The `top_k` most similar songs of every song, self left out, among those that share enough listeners.

    Not what `implicit` finds with its own search: that fills the K places before it can be told that rare songs must
    share `min_common` listeners. Equal similarities (float32) are kept in the order of the target's number.

    Args:
        matrix: (users, songs) listening matrix; only whether an entry is there counts.
        top_k: neighbours kept per song.
        min_common: listeners that a pair must share.
        similarity: "phi", "cosine", "iuf" or "bm25" (function `terms`).
        shrinkage: a similarity seen in n common listeners counts n / (n + shrinkage) of itself.
    """
    by_song, by_user = sparse.csc_matrix(matrix), sparse.csr_matrix(matrix)
    made_of = terms(similarity, np.diff(by_song.indptr), np.diff(by_user.indptr))
    return _search(by_song, by_user, made_of, made_of, top_k, min_common, shrinkage)


def cold_neighbours(cold: sparse.csr_matrix, warm: sparse.csr_matrix, top_k: int, min_common: int) -> Pairs:
    """For each cold song (column of `cold`), the warm songs of the same listeners, by phi: the truth of validation.

    Both matrices are (users, songs) over all songs; `cold` holds held-out plays and never reaches training.
    """
    by_song, by_user = sparse.csc_matrix(cold), sparse.csr_matrix(warm)
    songs_U = np.diff(by_user.indptr)
    source = terms("phi", np.diff(by_song.indptr), songs_U)
    target = terms("phi", np.bincount(by_user.indices, minlength=warm.shape[1]), songs_U)
    return _search(by_song, by_user, source, target, top_k, min_common, 0.0)


def common_listeners(first: sparse.csc_matrix, second: sparse.csc_matrix, pairs: Pairs) -> IntArray:
    """For each pair, the users for whom `first` has the source and `second` the target: (N,)."""
    order = np.argsort(pairs.source, kind="stable")
    count = np.zeros(len(pairs), dtype=np.int64)
    ends = np.linspace(0, len(pairs), threads() * SHARES + 1).astype(np.int64)
    columns = (*_pointers(first), *_pointers(second))

    def work(part: int) -> None:
        _intersect(order[ends[part] : ends[part + 1]], pairs.source, pairs.target, *columns, first.shape[0], count)

    _in_threads(work)
    return count


def threads() -> int:
    """Threads of the compiled loops: OMP_NUM_THREADS where it is set, else the cores that this process may use."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(1, int(os.environ.get("OMP_NUM_THREADS") or cores or 1))


def _search(
    by_song: sparse.csc_matrix,
    by_user: sparse.csr_matrix,
    source: Terms,
    target: Terms,
    top_k: int,
    min_common: int,
    shrinkage: float,
) -> Pairs:
    """Every song of `by_song` against all songs of its listeners in `by_user`."""
    n_songs = by_song.shape[1]
    top_k = min(top_k, n_songs)
    target_SK = np.full((n_songs, top_k), -1, dtype=np.int32)
    value_SK = np.zeros((n_songs, top_k), dtype=np.float32)
    arrays = (*_pointers(by_song), *_pointers(by_user), source.weight_U, source.scale)
    per_song = (source.chance_S, source.norm_S, target.chance_S, target.norm_S)

    def work(part: int) -> None:
        songs = np.arange(part, n_songs, threads() * SHARES)
        _fill(songs, *arrays, *per_song, max(min_common, 1), float(shrinkage), target_SK, value_SK)

    _in_threads(work)
    found = target_SK >= 0
    return Pairs(np.nonzero(found)[0], target_SK[found].astype(np.int64), value_SK[found])


def _in_threads(work: Any) -> None:
    """work(0), work(1), … for every share."""
    with ThreadPoolExecutor(threads()) as pool:
        list(pool.map(work, range(threads() * SHARES)))


def _pointers(matrix: Any) -> tuple[AnyArray, AnyArray]:
    """Starts (int64) and entries (int32) of a compressed matrix: one type, so that the loops are compiled once."""
    return matrix.indptr.astype(np.int64), matrix.indices.astype(np.int32, copy=False)


@numba.njit(nogil=True, cache=True)  # type: ignore[misc]
def _fill(
    songs: IntArray,
    song_at: IntArray,
    users: AnyArray,
    user_at: IntArray,
    heard: AnyArray,
    weight_U: AnyArray | None,
    scale: float,
    chance_a: AnyArray,
    norm_a: AnyArray,
    chance_b: AnyArray,
    norm_b: AnyArray,
    least: int,
    shrinkage: float,
    target_SK: AnyArray,
    value_SK: AnyArray,
) -> None:
    """Rows `songs` of target_SK and value_SK: each song's best, best first."""
    common = np.zeros(len(norm_b), dtype=np.int32)
    weight = np.zeros(0 if weight_U is None else len(norm_b))
    touched = np.empty(len(norm_b), dtype=np.int32)
    for song in songs:
        met = 0
        for user in users[song_at[song] : song_at[song + 1]]:
            for other in heard[user_at[user] : user_at[user + 1]]:
                if common[other] == 0:
                    touched[met] = other
                    met += 1
                common[other] += 1
                if weight_U is not None:
                    weight[other] += weight_U[user]
        target_K, value_K, kept = target_SK[song], value_SK[song], 0
        for other in touched[:met]:
            both, total = common[other], float(common[other])
            common[other] = 0
            if weight_U is not None:
                total, weight[other] = weight[other], 0.0
            if both >= least and other != song:
                value = (scale * total - chance_a[song] * chance_b[other]) / (norm_a[song] * norm_b[other])
                kept = _insert(other, np.float32(value * (both / (both + shrinkage))), target_K, value_K, kept)


@numba.njit(nogil=True, cache=True)  # type: ignore[misc]
def _insert(target: int, value: np.float32, target_K: AnyArray, value_K: AnyArray, kept: int) -> int:
    """Put a target where it belongs, if anywhere; of equal values the lower number first. Gives how many there are."""
    if value <= 0:
        return kept
    at = min(kept, len(target_K) - 1)  # the last one falls out where there is no room
    if kept == len(target_K) and (value < value_K[at] or (value == value_K[at] and target > target_K[at])):
        return kept
    while at > 0 and (value > value_K[at - 1] or (value == value_K[at - 1] and target < target_K[at - 1])):
        target_K[at], value_K[at] = target_K[at - 1], value_K[at - 1]
        at -= 1
    target_K[at], value_K[at] = target, value
    return min(kept + 1, len(target_K))


@numba.njit(nogil=True, cache=True)  # type: ignore[misc]
def _intersect(
    rows: IntArray,
    source: IntArray,
    target: IntArray,
    first_at: IntArray,
    first: AnyArray,
    second_at: IntArray,
    second: AnyArray,
    n_users: int,
    count: IntArray,
) -> None:
    """Write the common listeners of the pairs `rows`, which are in the order of their source."""
    listens = np.zeros(n_users, dtype=np.bool_)
    marked = -1
    for row in rows:
        song = source[row]
        if song != marked:
            if marked >= 0:
                listens[first[first_at[marked] : first_at[marked + 1]]] = False
            listens[first[first_at[song] : first_at[song + 1]]] = True
            marked = song
        for user in second[second_at[target[row]] : second_at[target[row] + 1]]:
            count[row] += listens[user]
