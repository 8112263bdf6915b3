"""Item-item collaborative filtering: songs that share listeners, by compiled loops (`data.item_pairs.loops`).

Each row of the product "songs × songs" is built from the histories of one song's listeners (Gustavson, 1978), turned
into similarities and reduced to its top K before the next, so memory is the result plus one row a thread. The loops
release the GIL, so threads share the songs.

Shapes: U users, S songs; K neighbours kept; N pairs; a source song, b target song.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from scipy import sparse

from data.arrays import AnyArray, IntArray
from data.item_pairs.loops import count_common, fill

SHARES = 8  # work units per thread; songs are dealt round-robin, so that each unit has popular ones


@dataclass
class Pairs:
    """Directed song pairs with their similarity, all arrays of one length."""

    source: IntArray
    target: IntArray
    similarity: AnyArray

    def take(self, keep: AnyArray) -> Pairs:
        """Select pairs by mask or positions."""
        return Pairs(self.source[keep], self.target[keep], self.similarity[keep])

    def __len__(self) -> int:
        return len(self.source)

    def frame(self) -> pl.DataFrame:
        """As a table (source, target, similarity)."""
        return pl.DataFrame({"source": self.source, "target": self.target, "similarity": self.similarity})


@dataclass
class Terms:
    """Terms of a similarity (scale · Σ_u w_u − c_a c_b) / (n_a n_b), over common listeners u of a and b."""

    weight_U: AnyArray | None  # None: every listener weighs 1
    scale: float
    chance_S: AnyArray
    norm_S: AnyArray


def terms(similarity: str, listeners_S: AnyArray, songs_U: AnyArray) -> Terms:
    """Terms of a similarity, from each song's number of listeners and each user's number of songs.

    "cosine" is n_ab / √(n_a n_b). Popular songs share listeners by chance, so cosine makes them neighbours of every
    song; "phi", the Pearson correlation of the songs' 0/1 listener vectors, subtracts the expected overlap. Its counts
    are integers below 2^53, so that an overlap of exactly the expected size gives exactly 0. "iuf" is the cosine with a
    weight of 1 / log(1 + number of songs) for each common listener (inverse user frequency, after Breese et al., UAI
    1998). "bm25" discounts heavy listeners and popular songs by the weights of `implicit` (K1 = 1.2, B = 0.75).
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
    """Find the `top_k` most similar songs of every song, without itself, among those that share enough listeners.

    The search of `implicit` cannot do this: it selects the top K before `min_common` could be applied. Ties (float32)
    are broken by the target's number.

    Args:
        matrix: (users, songs) listening matrix; values are ignored.
        top_k: neighbours kept per song.
        min_common: minimum of common listeners of a pair.
        similarity: "phi", "cosine", "iuf" or "bm25" (function `terms`).
        shrinkage: a similarity with n common listeners is multiplied by n / (n + shrinkage).
    """
    by_song, by_user = sparse.csc_matrix(matrix), sparse.csr_matrix(matrix)
    made_of = terms(similarity, np.diff(by_song.indptr), np.diff(by_user.indptr))
    return _search(by_song, by_user, made_of, made_of, top_k, min_common, shrinkage)


def cold_neighbours(cold: sparse.csr_matrix, warm: sparse.csr_matrix, top_k: int, min_common: int) -> Pairs:
    """Find the warm songs most similar by phi to each cold song (column of `cold`): the ground truth of validation.

    Both matrices are (users, songs) over all songs; `cold` holds held-out plays and never reaches training.
    """
    by_song, by_user = sparse.csc_matrix(cold), sparse.csr_matrix(warm)
    songs_U = np.diff(by_user.indptr)
    source = terms("phi", np.diff(by_song.indptr), songs_U)
    target = terms("phi", np.bincount(by_user.indices, minlength=warm.shape[1]), songs_U)
    return _search(by_song, by_user, source, target, top_k, min_common, 0.0)


def common_listeners(first: sparse.csc_matrix, second: sparse.csc_matrix, pairs: Pairs) -> IntArray:
    """Count for each pair the users with the source in `first` and the target in `second`: (N,)."""
    order = np.argsort(pairs.source, kind="stable")
    count = np.zeros(len(pairs), dtype=np.int64)
    ends = np.linspace(0, len(pairs), threads() * SHARES + 1).astype(np.int64)
    of = (pairs.source, pairs.target), _pointers(first), _pointers(second), first.shape[0]

    def work(part: int) -> None:
        count_common(order[ends[part] : ends[part + 1]], *of, count)

    _in_threads(work)
    return count


def threads() -> int:
    """Number of threads of the compiled loops: OMP_NUM_THREADS if set, else the cores available to this process."""
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
    """Top neighbours of every song of `by_song` among the songs of its listeners in `by_user`."""
    n_songs = by_song.shape[1]
    top_k = min(top_k, n_songs)
    target_SK = np.full((n_songs, top_k), -1, dtype=np.int32)
    value_SK = np.zeros((n_songs, top_k), dtype=np.float32)
    arrays = _pointers(by_song), _pointers(by_user), source.weight_U
    similarity = (source.scale, source.chance_S, source.norm_S, target.chance_S, target.norm_S)
    options = max(min_common, 1), float(shrinkage)

    def work(part: int) -> None:
        songs, common = np.arange(part, n_songs, threads() * SHARES), np.zeros(n_songs, dtype=np.int32)
        total = common if source.weight_U is None else np.zeros(n_songs)
        fill(songs, *arrays, similarity, options, (common, total), (target_SK, value_SK))

    _in_threads(work)
    found = target_SK >= 0
    return Pairs(np.nonzero(found)[0], target_SK[found].astype(np.int64), value_SK[found])


def _in_threads(work: Any) -> None:
    """Run work(0), work(1), … of every work unit in threads."""
    with ThreadPoolExecutor(threads()) as pool:
        list(pool.map(work, range(threads() * SHARES)))


def _pointers(matrix: Any) -> tuple[AnyArray, AnyArray]:
    """`indptr` (int64) and `indices` (int32) of a compressed matrix: fixed types, so that the loops compile once."""
    return matrix.indptr.astype(np.int64), matrix.indices.astype(np.int32, copy=False)
