"""Recall and NDCG against naive loops and closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest

from retrieval.metrics import hits, ndcg_at_k, own_ranks, recall_at_k, recall_curve, true_counts


def case(seed: int, n_queries: int = 12, k: int = 5) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Retrieved lists without repeats, some cut short with −1; query numbers with gaps; a true pair given twice."""
    rng = np.random.default_rng(seed)
    queries = rng.choice(100, n_queries, replace=False)
    retrieved = np.stack([rng.choice(30, k, replace=False) for _ in range(n_queries)])
    retrieved[rng.random(n_queries) < 0.3, k // 2 :] = -1
    true_query = rng.choice(np.r_[queries, 200, 7], 40)  # some true pairs are of queries that were never asked
    true_item = rng.integers(0, 35, 40)
    return retrieved, queries, np.r_[true_query, true_query[:5]], np.r_[true_item, true_item[:5]]


def naive(retrieved: np.ndarray, queries: np.ndarray, tq: np.ndarray, ti: np.ndarray) -> tuple[list[float], ...]:
    recall: list[float] = []
    ndcg: list[float] = []
    for row, query in zip(retrieved.tolist(), queries.tolist(), strict=True):
        truth = {int(item) for q, item in zip(tq, ti, strict=True) if q == query}
        if truth:
            recall.append(len(truth & set(row)) / len(truth))
            gain = sum(1 / math.log2(rank + 2) for rank, item in enumerate(row) if item in truth)
            ndcg.append(gain / sum(1 / math.log2(rank + 2) for rank in range(min(len(row), len(truth)))))
    return recall, ndcg


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("k", [1, 2, 5, 20])
def test_against_naive_loops(seed: int, k: int) -> None:
    arguments = case(seed, k=k)
    recall, ndcg = naive(*arguments)
    assert len(recall) > 0
    assert recall_at_k(*arguments).tolist() == pytest.approx(recall)
    assert ndcg_at_k(*arguments).tolist() == pytest.approx(ndcg)


def test_closed_forms() -> None:
    queries, tq, ti = np.array([4]), np.array([4, 4]), np.array([1, 2])
    perfect, reverse, none = np.array([[1, 2, 3]]), np.array([[3, 2, 1]]), np.array([[7, 8, 9]])
    assert recall_at_k(perfect, queries, tq, ti)[0] == 1 and ndcg_at_k(perfect, queries, tq, ti)[0] == 1
    expected = (1 / math.log2(3) + 1 / math.log2(4)) / (1 + 1 / math.log2(3))
    assert ndcg_at_k(reverse, queries, tq, ti)[0] == pytest.approx(expected)
    assert recall_at_k(none, queries, tq, ti)[0] == 0 and ndcg_at_k(none, queries, tq, ti)[0] == 0


def test_an_item_counts_by_its_id_alone() -> None:
    """There is no score here to be ≤ 0: item 0, query 0 and the last place all count."""
    queries = np.array([0, 1])
    assert hits(np.array([[5, 0], [0, 5]]), queries, np.array([0, 1]), np.array([0, 0])).tolist() == [
        [False, True],
        [True, False],
    ]


def test_minus_one_is_never_a_hit() -> None:
    """Not even where −1 in one query's list has the key of the next-lower query's last item."""
    queries, tq, ti = np.array([0, 1]), np.array([0, 1]), np.array([9, 3])
    retrieved = np.array([[-1, -1], [-1, 3]])
    assert hits(retrieved, queries, tq, ti).tolist() == [[False, False], [False, True]]
    assert recall_at_k(retrieved, queries, tq, ti).tolist() == [0.0, 1.0]


def test_the_denominator_is_every_true_item() -> None:
    queries, tq, ti = np.array([0]), np.zeros(50, dtype=int), np.arange(50)
    assert recall_at_k(np.arange(10)[None], queries, tq, ti).tolist() == [0.2]
    assert ndcg_at_k(np.arange(10)[None], queries, tq, ti).tolist() == pytest.approx([1.0])


def test_true_counts_are_distinct_and_zero_for_others() -> None:
    counts = true_counts(np.array([3, 1, 8]), np.array([1, 1, 1, 3]), np.array([5, 5, 6, 5]))
    assert counts.tolist() == [1, 2, 0]


def test_queries_without_truth_have_no_value() -> None:
    assert len(recall_at_k(np.array([[1], [2]]), np.array([0, 1]), np.array([1]), np.array([2]))) == 1
    empty = np.empty(0, dtype=np.int64)
    assert len(recall_at_k(np.array([[1]]), np.array([0]), empty, empty)) == 0
    assert len(ndcg_at_k(np.array([[1]]), np.array([0]), empty, empty)) == 0


def test_no_query_at_all() -> None:
    none = np.empty((0, 3), dtype=np.int64)
    assert hits(none, none[:, 0], np.array([1]), np.array([2])).shape == (0, 3)
    assert len(recall_at_k(none, none[:, 0], np.array([1]), np.array([2]))) == 0


def test_large_numbers_do_not_collide() -> None:
    """Ids near 2³¹, as of a real catalogue in 32-bit columns."""
    big = np.array([2**31 - 1, 2**31 - 2], dtype=np.int32)
    got = hits(np.array([[2**31 - 1], [2**31 - 2]], dtype=np.int32), big, big, big)
    assert got.tolist() == [[True], [True]]
    assert hits(np.array([[2**31 - 2]], dtype=np.int32), big[:1], big, big).tolist() == [[False]]


def test_own_ranks_against_a_loop() -> None:
    """Any chunk; ties rank last; vectors that are all alike are all last."""
    rng = np.random.default_rng(3)
    query, item = rng.integers(-2, 3, (2, 13, 4)).astype(np.float32)
    expected = [sum(query[q] @ other >= query[q] @ item[q] for other in item) for q in range(13)]
    for chunk in (1, 5, 13, 100):
        assert own_ranks(query, item, chunk).tolist() == expected
    assert own_ranks(np.ones((6, 2)), np.ones((6, 2))).tolist() == [6] * 6
    assert own_ranks(query, 10 * query / np.square(query).sum(axis=1, keepdims=True).clip(1)).min() == 1
    assert own_ranks(np.zeros((0, 2)), np.zeros((0, 2))).tolist() == []


def test_the_recall_curve_is_the_mean_recall_at_each_k() -> None:
    retrieved, *others = case(0, k=7)
    curve = recall_curve(retrieved, *others)
    assert curve.shape == (7,) and curve[0] < curve[-1]
    for k in range(1, 8):
        assert curve[k - 1] == pytest.approx(np.mean(naive(retrieved[:, :k], *others)[0]), rel=1e-12)
