"""Recall and NDCG against naive loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from retrieval.metrics import auc, hits, ndcg_at_k, overlap, own_ranks, recall_at_k, recall_curve


def case(seed: int, n_queries: int = 12, k: int = 5) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Retrieved lists without repeats, some cut short with −1; query numbers with gaps; a true pair given twice."""
    rng = np.random.default_rng(seed)
    queries = np.r_[0, 1 + rng.choice(100, n_queries - 1, replace=False)]
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
    curve = [np.mean(naive(arguments[0][:, : at + 1], *arguments[1:])[0]) for at in range(k)]
    assert recall_curve(*arguments).tolist() == pytest.approx(curve)


def test_nothing_is_true_or_nothing_is_asked() -> None:
    none = np.empty(0, dtype=np.int64)
    for retrieved, queries, *truth in (
        (np.array([[1]]), np.array([0]), none, none),
        (none.reshape(0, 3), none, np.array([1]), np.array([2])),
    ):
        assert hits(retrieved, queries, *truth).tolist() == [[False]] * len(queries)
        assert len(recall_at_k(retrieved, queries, *truth)) == len(ndcg_at_k(retrieved, queries, *truth)) == 0


def test_minus_one_is_never_a_hit() -> None:
    """Not even where −1 in one query's list has the key of the next-lower query's last item."""
    queries, tq, ti = np.array([0, 1]), np.array([0, 1]), np.array([9, 3])
    retrieved = np.array([[-1, -1], [-1, 3]])
    assert hits(retrieved, queries, tq, ti).tolist() == [[False, False], [False, True]]
    assert recall_at_k(retrieved, queries, tq, ti).tolist() == [0.0, 1.0]


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


@pytest.mark.parametrize("seed", range(4))
def test_overlap_is_that_of_sets(seed: int) -> None:
    rng = np.random.default_rng(seed)
    one, other = (np.stack([rng.permutation(30)[:12] for _ in range(9)]) for _ in range(2))
    one[1, 4:], other[1, 9:], one[2], one[3], other[3] = -1, -1, -1, -1, -1
    shares = []
    for ours, theirs in zip(one.tolist(), other.tolist(), strict=True):
        sets = set(ours) - {-1}, set(theirs) - {-1}
        if longer := max(map(len, sets)):
            shares.append(len(sets[0] & sets[1]) / longer)
    assert len(shares) == 8 and 0 in shares
    assert overlap(one, other) == pytest.approx(np.mean(shares)) == overlap(other, one)
    assert overlap(one[:1], one[:1]) == 1 and overlap(one[3:4], other[3:4]) == 0


@pytest.mark.parametrize("values", [2, 5, 10_000], ids=["mostly ties", "ties", "hardly any"])
def test_auc_against_a_loop_and_sklearn(values: int) -> None:
    rng = np.random.default_rng(values)
    score, label = rng.integers(0, values, 120).astype(np.float32), (rng.random(120) < 0.2).astype(np.float32)
    won = [1.0 if p > n else 0.5 if p == n else 0.0 for p in score[label > 0] for n in score[label == 0]]
    assert auc(score, label) == pytest.approx(np.mean(won)) == pytest.approx(roc_auc_score(label, score))
    assert auc(-score, label) == pytest.approx(1 - np.mean(won))
    assert auc(score, np.ones(120)) == auc(score, np.zeros(120)) == 0.5, "nothing to tell apart"
