"""The largest inner products of many queries with many rows, exactly: a block at a time, against running thresholds.

A block of products is small enough for the cache. Of it only those are looked at that beat the query's k-th best so
far, soon next to none, so that the whole takes little longer than the matrix product alone (docs/results/
targeting_speed.md).

Shapes: Q queries, P rows, D dimensions, K results.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrieval.audience import Audience, empty_audience, join, ranked, slices

Array = NDArray[Any]
CELLS = 1 << 20  # products of a block: 4 MB
QUERIES = 1024  # of a block at most
FEWEST = 64  # rows of a block at least
HELD = 3  # times k: candidates of a query that are held before they are cut to k, on average
RESULT_BYTES = 100  # of a candidate, with what sorting takes


def largest_products(
    queries_QD: Array,
    rows: Callable[[slice], Array],
    n_rows: int,
    k: int,
    above: float = -np.inf,
    without: tuple[Array, Array] | None = None,
    memory_mb: float = 1024.0,
) -> Audience:
    """The k largest inner products above `above` of each query, best first, ties by row; `users_CB` holds rows.

    Args:
        queries_QD: one query a row.
        rows: of a slice of the P rows, (p, D).
        n_rows: P.
        k: results per query.
        above: what a product must exceed.
        without: pairs (query, row) that must not be found, by query in ascending order.
        memory_mb: working memory beside the result.
    """
    fit = max(1, int(memory_mb * 2**20 / (2 * HELD * max(1, k) * RESULT_BYTES)))
    query, row = without if without is not None else (np.zeros(0, dtype=np.int64),) * 2
    parts = []
    for part in slices(len(queries_QD), min(QUERIES, fit)):
        start, stop = np.searchsorted(query, [part.start, part.stop])
        pairs = query[start:stop] - part.start, row[start:stop]
        parts.append(_largest(queries_QD[part], rows, n_rows, k, above, pairs))
    return join(parts) if parts else empty_audience(0, k)


def _largest(
    queries_QD: Array, rows: Callable[[slice], Array], n_rows: int, k: int, above: float, without: tuple[Array, Array]
) -> Audience:
    n, width = len(queries_QD), max(FEWEST, CELLS // len(queries_QD))
    by_row = np.argsort(without[1], kind="stable")
    query, row = without[0][by_row], without[1][by_row]
    dtype = np.result_type(queries_QD, rows(slice(0, 0)))
    threshold_Q, least = np.full(n, above, dtype=dtype), dtype.type(-np.inf)
    found, held, n_held = empty_audience(n, k, dtype), list[tuple[Array, Array, Array]](), 0
    for part in slices(n_rows if k else 0, width):
        products_QP = queries_QD @ rows(part).T
        start, stop = np.searchsorted(row, [part.start, part.stop])
        products_QP[query[start:stop], row[start:stop] - part.start] = least
        if part.start == 0 and products_QP.shape[1] > k:
            kth_Q = -np.partition(-products_QP, k - 1, axis=1)[:, k - 1]
            threshold_Q = np.maximum(threshold_Q, np.nextafter(kth_Q, least))  # which the k-th exceeds
        at = np.flatnonzero(products_QP > threshold_Q[:, None])
        of, place = np.divmod(at, products_QP.shape[1])
        if len(at):
            held.append((of, place + part.start, products_QP.ravel()[at]))
        n_held += len(at)
        if n_held > HELD * n * k:
            found, held, n_held = _cut(found, held, k), [], 0
            threshold_Q = np.maximum(threshold_Q, found.scores_CB[:, -1])  # a later row with as much comes behind
    return _cut(found, held, k)


def _cut(found: Audience, held: list[tuple[Array, Array, Array]], k: int) -> Audience:
    """The k best of each query, of those found so far and of candidates (query, row, product)."""
    of, place = np.nonzero(found.users_CB >= 0)
    before = of, found.users_CB[of, place], found.scores_CB[of, place]
    query, row, product = (np.concatenate(parts) for parts in zip(before, *held, strict=True))
    return ranked(query, row, product, len(found.users_CB), k)
