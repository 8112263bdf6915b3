"""The best scores of many queries over many rows, exactly: a block at a time, against running thresholds.

A block of scores is small enough for the cache. Of it only those are looked at that beat the query's k-th best so far,
soon next to none, so that the whole takes little longer than the matrix product alone (docs/results/
targeting_speed.md).

Shapes: Q queries, P rows, D dimensions, K results.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrieval.audience import CELL_BYTES, Audience, empty_audience, join, ranked, slices

Array = NDArray[Any]
CELLS = 1 << 20  # scores of a block: 4 MB
QUERIES = 1024  # of a block at most
FEWEST = 64  # rows of a block at least
MORE, DEEPER = 64, 4  # rows beside twice the wanted ones that are scored again; times deeper if they are too few
ONCE = 16  # queries whose rows are scored again at a time
HELD = 3  # times k: candidates of a query that are held before they are cut to k, on average
RESULT_BYTES = 100  # of a candidate, with what sorting takes
BELOW_SIGN = np.uint32(0x7FFFFFFF)  # the bits of a float32 but its sign
Candidates = tuple[Array, Array, Array]  # query, row and score of each
NO_CANDIDATES = np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.float32)


def largest_products(
    queries_QD: Array,
    rows: Callable[[slice], Array],
    n_rows: int,
    k: int,
    above: float = -np.inf,
    without: tuple[Array, Array] | None = None,
    memory_mb: float = 1024.0,
) -> Audience:
    """`best_scores` where the scores are inner products; `rows` gives those of a slice of the P rows, (p, D)."""

    def score(queries: slice, part: slice) -> Array:
        return np.asarray(queries_QD[queries] @ rows(part).T)

    return best_scores(score, len(queries_QD), n_rows, k, above, without, memory_mb)


def best_scores(
    score: Callable[[slice, slice], Array],
    n_queries: int,
    n_rows: int,
    k: int,
    above: float = -np.inf,
    without: tuple[Array, Array] | None = None,
    memory_mb: float = 1024.0,
) -> Audience:
    """The k highest scores above `above` of each query, best first, ties by row; `users_CB` holds rows.

    Args:
        score: of a slice of the Q queries and a slice of the P rows, (q, p), float32; it may be overwritten.
        n_queries: Q.
        n_rows: P.
        k: results per query.
        above: what a score must exceed.
        without: pairs (query, row) that must not be found, by query in ascending order.
        memory_mb: working memory beside the result.
    """
    fit = max(1, int(memory_mb * 2**20 / (2 * HELD * max(1, k) * RESULT_BYTES)))
    cells = min(CELLS, int(memory_mb * 2**20 / CELL_BYTES))
    query, row = without if without is not None else (np.zeros(0, dtype=np.int64),) * 2
    parts = []
    for part in slices(n_queries, min(QUERIES, fit)):
        start, stop = np.searchsorted(query, [part.start, part.stop])
        pairs = query[start:stop] - part.start, row[start:stop]
        width = max(FEWEST, cells // (part.stop - part.start))
        parts.append(_best(score, part, slices(n_rows if k else 0, width), k, above, pairs))
    return join(parts) if parts else empty_audience(0, k)


def rescored(
    best: Callable[[int], Audience], score: Callable[[slice, Array], Array], row_PD: Array, k: int
) -> Audience:
    """The k highest scores of each query, found among the highest by codes of the rows.

    So many rows are scored again that the next one has less than the k-th best, by more than twice the largest error
    that was seen among them.

    Args:
        best: the highest scores by codes, as many as it is told, fewer where there are no more.
        score: of a slice of the Q queries and of rows, (p, D), (q, p).
        row_PD: the rows; few are read.
        k: results per query.
    """
    depth = 2 * k + MORE
    while True:
        near = best(depth)
        parts = slices(len(near.users_CB), ONCE)
        exact_QK = np.concatenate([_again(score, part, near.users_CB[part], row_PD) for part in parts])
        query, place = np.nonzero(near.users_CB >= 0)
        exact = exact_QK[query, place]
        found = ranked(query, near.users_CB[query, place], exact, len(near.users_CB), k)
        error = 2 * np.abs(exact - near.scores_CB[query, place]).max(initial=0)
        enough = found.scores_CB[:, -1] >= near.scores_CB[:, -1] + error
        if enough.all() or near.users_CB.shape[1] < depth:
            return found
        depth *= DEEPER


def _again(score: Callable[[slice, Array], Array], queries: slice, rows_QK: Array, row_PD: Array) -> Array:
    """Scores of some queries' rows, (Q, K); anything where there is none."""
    rows, at = np.unique(rows_QK, return_inverse=True)
    return np.take_along_axis(np.asarray(score(queries, row_PD[rows])), at.reshape(rows_QK.shape), axis=1)


def _best(
    score: Callable[[slice, slice], Array],
    queries: slice,
    blocks: Iterator[slice],
    k: int,
    above: float,
    without: tuple[Array, Array],
) -> Audience:
    n, least = queries.stop - queries.start, np.float32(-np.inf)
    by_row = np.argsort(without[1], kind="stable")
    query, row = without[0][by_row], without[1][by_row]
    threshold_Q = np.full(n, above, dtype=np.float32)
    held, n_held = [NO_CANDIDATES], 0
    for part in blocks:
        score_QP = np.asarray(score(queries, part), dtype=np.float32)
        start, stop = np.searchsorted(row, [part.start, part.stop])
        score_QP[query[start:stop], row[start:stop] - part.start] = least
        if part.start == 0 and score_QP.shape[1] > k:
            kth_Q = -np.partition(-score_QP, k - 1, axis=1)[:, k - 1]
            threshold_Q = np.maximum(threshold_Q, np.nextafter(kth_Q, least))  # which the k-th exceeds
        at = np.flatnonzero(score_QP > threshold_Q[:, None])
        of, place = np.divmod(at, score_QP.shape[1])
        if len(at):
            held.append((of, place + part.start, score_QP.ravel()[at]))
        n_held += len(at)
        if n_held > HELD * n * k:
            kth_Q, kept = _cut(_joined(held), n, k)
            held, n_held = [kept], len(kept[0])
            threshold_Q = np.maximum(threshold_Q, kth_Q)  # a later row with as much comes behind
    return ranked(*_joined(held), n, k)


def _joined(held: list[Candidates]) -> Candidates:
    query, row, score = (np.concatenate(parts) for parts in zip(*held, strict=True))
    return query, row, score


def _cut(held: Candidates, n: int, k: int) -> tuple[Array, Candidates]:
    """The k-th best score of each of n queries, −inf where it has fewer, (Q,); and the candidates that have as much.

    One sort of whole numbers that hold query and score, which takes a tenth of a sort by the two.
    """
    query, row, score = held
    bits = score.view(np.uint32)
    falling = np.where(bits >> 31, bits, ~bits & BELOW_SIGN)  # the larger a score, the smaller
    key = np.sort(query.astype(np.uint64) << np.uint64(32) | falling)
    start = np.searchsorted(key, np.arange(n + 1, dtype=np.uint64) << np.uint64(32))
    full = np.flatnonzero(np.diff(start) >= k)
    last = key[start[full] + k - 1].astype(np.uint32)  # without the query
    kth_Q = np.full(n, -np.inf, dtype=np.float32)
    kth_Q[full] = np.where(last >> 31, last, ~last & BELOW_SIGN).view(np.float32)
    keep = score >= kth_Q[query]
    return kth_Q, (query[keep], row[keep], score[keep])
