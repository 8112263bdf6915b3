"""The interest boundary in bulk: whose own threshold a song clears, and which songs clear a user's.

A margin ⟨u, i⟩ − ⟨u, b⟩ is the inner product of [u, −⟨u, b⟩] and [i, 1]. So the largest margins are found as inner
products, and cut at each user's own boundary, in both directions: exactly by comparing all, on a GPU by FAISS, nearly
so by an index of lists.

Shapes: C songs, U users, D vector size, Q queries, P indexed rows or pairs, K results.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrieval.audience import Allowed, Audience, Excluded, empty_audience, join, numbered, ranked, slices
from retrieval.index import GPU_MOST, Only, build_index, gpu_resources, search, to_cpu
from retrieval.products import best_scores, largest_products

Array = NDArray[Any]
NO_EXCLUSIONS = Excluded()
FEW = 10_000  # users, below which an index of lists saves nothing
RESULT_BYTES = 48  # of a query's result, with its copies and masks


def margins(item_CD: Array, user_UD: Array, boundary_U: Array) -> Array:
    """⟨u, i⟩ − ⟨u, b⟩ for songs × users, (C, U): positive where the song clears the user's interest boundary."""
    return np.asarray(item_CD @ user_UD.T - boundary_U)


def pair_scores(item_CD: Array, user_UD: Array, at_P: Array, user_P: Array, chunk: int = 1 << 16) -> Array:
    """⟨u, i⟩ of P pairs of a row of `item_CD` and a row of `user_UD`, (P,); `chunk` pairs are gathered at a time."""
    score_P = np.empty(len(at_P), dtype=np.result_type(item_CD, user_UD))
    for part in slices(len(at_P), chunk):
        np.einsum("pd,pd->p", item_CD[at_P[part]], user_UD[user_P[part]], out=score_P[part])
    return score_P


def users_above(
    item_CD: Array,
    user_UD: Array,
    boundary_U: Array,
    k: int,
    margin: float = 0.0,
    excluded: Excluded = NO_EXCLUSIONS,
    kind: str = "Flat",
    memory_mb: float = 1024.0,
) -> Audience:
    """For each song the k users with the largest margins above `margin`, fewer where fewer clear it.

    Args:
        item_CD: song vectors i.
        user_UD: user vectors u.
        boundary_U: boundary scores ⟨u, b⟩.
        k: users per song.
        margin: how far a boundary must be cleared.
        excluded: users and pairs that must not be.
        kind: "Flat" is exact; "IVF,Flat" looks into a few lists of users (for ten thousand users or more).
        memory_mb: working memory for results beside the index.
    """
    allowed = Allowed(excluded, len(user_UD))
    if (kind == "Flat" or len(user_UD) < FEW) and gpu_resources(0) is None:
        some = allowed.some(len(item_CD))

        def score(rows: slice, at: slice) -> Array:
            users = at if some is None else some[at]
            margin_Cu = margins(item_CD[rows], user_UD[users], boundary_U[users])
            allowed.cut(margin_Cu, rows, users)
            return margin_Cu

        size = len(user_UD) if some is None else len(some)
        found = best_scores(score, len(item_CD), size, k, margin, memory_mb=memory_mb)
        return found if some is None else numbered(found, some)
    users = np.flatnonzero(~allowed.is_out_U)
    if not len(users):
        return empty_audience(len(item_CD), k)
    in_index = ~allowed.is_out_U[excluded.user]
    without = excluded.song[in_index], np.searchsorted(users, excluded.user[in_index])
    index = build_index(np.c_[user_UD[users], -boundary_U[users]], kind if len(users) >= FEW else "Flat")
    found = above(index, np.c_[item_CD, np.ones_like(item_CD[:, 0])], k, margin, without, memory_mb)
    return numbered(found, users)


def songs_above(
    item_CD: Array,
    user_UD: Array,
    boundary_U: Array,
    k: int,
    margin: float = 0.0,
    excluded: Excluded = NO_EXCLUSIONS,
    memory_mb: float = 1024.0,
) -> Audience:
    """For each user the k songs with the largest margins above `margin`: possibly none. Arguments as `users_above`.

    Read `users_CB` of the result as song numbers, (U, k).
    """
    if not len(item_CD):
        return empty_audience(len(user_UD), k)
    of_users = np.c_[user_UD, -boundary_U]
    by_user = np.argsort(excluded.user, kind="stable")
    without = excluded.user[by_user], excluded.song[by_user]

    def of_songs(rows: slice) -> Array:
        return np.c_[item_CD[rows], np.ones_like(item_CD[rows, 0])]

    if gpu_resources(0) is None:
        found = largest_products(of_users, of_songs, len(item_CD), k, margin, without, memory_mb)
    else:
        found = above(build_index(of_songs(slice(None))), of_users, k, margin, without, memory_mb)
    found.users_CB[excluded.users], found.scores_CB[excluded.users] = -1, -np.inf
    return found


def above(
    index: Any,
    queries_QD: Array,
    k: int,
    margin: float,
    without: tuple[Array, Array],
    memory_mb: float = 1024.0,
    only: Only | None = None,
) -> Audience:
    """The k largest inner products above `margin` of each query, without some (query, indexed row) pairs, of all
    rows or of some `only`.

    So many more are searched for as a query has such pairs; queries that need about as many go together. An index of
    lists probes so many of them as hold eight times what is asked for, on average.
    """
    if not len(queries_QD) or k == 0:
        return empty_audience(len(queries_QD), k)
    left_out = np.sort(without[0].astype(np.int64) * index.ntotal + without[1])
    extra_Q = np.bincount(without[0].astype(np.int64), minlength=len(queries_QD))
    order = np.argsort(extra_Q, kind="stable")
    wanted_Q = np.minimum(k + extra_Q[order], index.ntotal)
    if wanted_Q[-1] > GPU_MOST:
        index = to_cpu(index)  # once, not at every search
    parts, at = [], 0
    while at < len(order):
        fit = max(1, int(memory_mb * 2**20 / (2 * wanted_Q[at] * RESULT_BYTES)))
        stop = min(at + fit, int(np.searchsorted(wanted_Q, 2 * wanted_Q[at], side="right")))
        query, fetch = order[at:stop], int(wanted_Q[stop - 1])
        if hasattr(index, "nlist"):
            index.nprobe = max(index.nlist // 8, 1, min(index.nlist, -(-8 * fetch * index.nlist // index.ntotal)))
        score, position = search(index, queries_QD[query], fetch, only)
        kept = (position >= 0) & (score > margin)
        if len(left_out):
            key = query[:, None] * index.ntotal + position
            kept &= left_out[np.minimum(np.searchsorted(left_out, key), len(left_out) - 1)] != key
        row, rank = np.nonzero(kept)
        parts.append(ranked(row, position[row, rank], score[row, rank], len(query), k))
        at = stop
    back = np.argsort(order, kind="stable")
    found = join(parts)
    return Audience(found.users_CB[back], found.scores_CB[back])
