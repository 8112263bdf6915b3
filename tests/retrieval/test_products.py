"""The largest products, block by block, against sorting all of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from retrieval import products
from retrieval.products import largest_products


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("k", [0, 1, 7, 40, 300])
@pytest.mark.parametrize("n_queries", [0, 1, 5])
@pytest.mark.parametrize(
    ("cells", "queries", "held"), [(1 << 20, 1024, 3), (50, 2, 3), (50, 1024, 0.01), (3000, 3, 0.01)]
)
def test_as_by_sorting_all(
    k: int, n_queries: int, cells: int, queries: int, held: int, dtype: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whole numbers, so that there are many ties, which go to the earlier row."""
    for name, value in {"CELLS": cells, "QUERIES": queries, "HELD": held, "FEWEST": 3}.items():
        monkeypatch.setattr(products, name, value)
    rng = np.random.default_rng(k)
    query_QD, row_PD = (rng.integers(-2, 3, (n, 4)).astype(dtype) for n in (n_queries, 200))
    without = (np.sort(rng.integers(0, max(1, n_queries), 90 * bool(n_queries))), rng.integers(0, 200, 90))
    without = without[0], without[1][: len(without[0])]
    asked: list[int] = []

    def rows(part: slice) -> Any:
        asked.append(part.stop - part.start)
        return row_PD[part]

    found = largest_products(query_QD, rows, 200, k, 1.0, without)

    product_QP = query_QD @ row_PD.T
    product_QP[without] = -np.inf
    for query in range(n_queries):
        order = [row for row in np.argsort(-product_QP[query], kind="stable") if product_QP[query, row] > 1][:k]
        n = len(order)
        assert found.users_CB[query].tolist() == order + [-1] * (k - n)
        assert found.scores_CB[query, :n].tolist() == product_QP[query, order].tolist()
        assert np.isneginf(found.scores_CB[query, n:]).all()
    assert found.users_CB.shape == found.scores_CB.shape == (n_queries, k) and found.scores_CB.dtype in (dtype, "f4")
    assert not asked or max(asked) <= max(3, cells)


def test_memory_bounds_the_queries_of_a_block(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    real = products._best
    monkeypatch.setattr(
        products, "_best", lambda score, part, *more: sizes.append(part.stop - part.start) or real(score, part, *more)
    )
    rows = np.eye(50, dtype=np.float32)
    largest_products(np.ones((40, 50), dtype=np.float32), rows.__getitem__, 50, 30, memory_mb=0.2)
    assert sum(sizes) == 40 and max(sizes) == 0.2 * 2**20 // (2 * products.HELD * 30 * products.RESULT_BYTES)


@pytest.mark.parametrize("error", [0.0, 0.02, 1.0])
def test_scored_again_as_by_sorting_all(error: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """However wrong the codes are, the best are found; where they are good, by few rows."""
    monkeypatch.setattr(products, "MORE", 0)
    rng = np.random.default_rng(3)
    query_QD, row_PD = (rng.standard_normal((n, 8)).astype(np.float32) for n in (40, 2000))
    code_PD = row_PD + error * rng.standard_normal(row_PD.shape).astype(np.float32)
    depths: list[int] = []

    def best(depth: int) -> Any:
        depths.append(depth)
        return largest_products(query_QD, lambda part: code_PD[part], 2000, min(depth, 2000), above=0.5)

    found = products.rescored(best, lambda queries, rows: query_QD[queries] @ rows.T, row_PD, 10)

    product_QP = np.where(query_QD @ code_PD.T > 0.5, query_QD @ row_PD.T, -np.inf)
    np.testing.assert_array_equal(found.users_CB, np.argsort(-product_QP, axis=1, kind="stable")[:, :10])
    np.testing.assert_allclose(found.scores_CB, -np.sort(-product_QP, axis=1)[:, :10], rtol=1e-5)
    assert depths == [20, *((80, 320, 1280, 5120)[: len(depths) - 1])] and (error == 1) == (len(depths) > 3)
