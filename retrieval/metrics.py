"""Ranking metrics over retrieved ids, vectorised; denominators count every true item, retrieved or not.

Shapes: Q queries, K retrieved, P true (query, item) pairs. A retrieved id of −1 means "nothing".
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def hits(retrieved_QK: Array, query_Q: Array, true_query_P: Array, true_item_P: Array) -> Array:
    """Whether each retrieved id is a true item of its query, (Q, K) bool."""
    span = int(max(true_item_P.max(initial=0), retrieved_QK.max(initial=0))) + 1
    key_QK = query_Q.astype(np.int64)[:, None] * span + retrieved_QK
    return np.isin(key_QK, true_query_P.astype(np.int64) * span + true_item_P) & (retrieved_QK >= 0)


def true_counts(query_Q: Array, true_query_P: Array, true_item_P: Array) -> Array:
    """Number of distinct true items of each query, (Q,)."""
    query_P = np.unique(np.stack([true_query_P, true_item_P], axis=1), axis=0)[:, 0]
    return np.asarray(np.searchsorted(query_P, query_Q, side="right") - np.searchsorted(query_P, query_Q))


def recall_at_k(retrieved_QK: Array, query_Q: Array, true_query_P: Array, true_item_P: Array) -> Array:
    """Recall of each query that has a true item: hits among the K retrieved / all its true items."""
    count_Q = true_counts(query_Q, true_query_P, true_item_P)
    found_Q = hits(retrieved_QK, query_Q, true_query_P, true_item_P).sum(axis=1)
    return np.asarray(found_Q[count_Q > 0] / count_Q[count_Q > 0])


def overlap(one_QK: Array, other_QK: Array) -> float:
    """Mean share of each query's two lists that is in both, of the longer one; queries without any list left out."""
    rows = np.arange(len(one_QK))
    query, at = np.nonzero(other_QK >= 0)
    both_Q = hits(one_QK, rows, query, other_QK[query, at]).sum(axis=1)
    longer_Q = np.maximum(*((found_QK >= 0).sum(axis=1) for found_QK in (one_QK, other_QK)))
    return float((both_Q[longer_Q > 0] / longer_Q[longer_Q > 0]).mean()) if longer_Q.any() else 0.0


def recall_curve(retrieved_QK: Array, query_Q: Array, true_query_P: Array, true_item_P: Array) -> Array:
    """Mean recall over the queries that have a true item, at 1, 2, … K: (K,)."""
    count_Q = true_counts(query_Q, true_query_P, true_item_P)
    found_QK = hits(retrieved_QK, query_Q, true_query_P, true_item_P).cumsum(axis=1)
    return np.asarray((found_QK[count_Q > 0] / count_Q[count_Q > 0, None]).mean(axis=0))


def auc(score_N: Array, label_N: Array) -> float:
    """Chance that a positive scores above a negative, a tie counting half; .5 where one of them is missing."""
    positive, negative = score_N[label_N > 0], np.sort(score_N[label_N == 0])
    if not len(positive) or not len(negative):
        return 0.5
    below, up_to = (np.searchsorted(negative, positive, side).sum(dtype=float) for side in ("left", "right"))
    return float((below + up_to) / 2 / (len(positive) * len(negative)))


def own_ranks(query_QD: Array, item_QD: Array, chunk: int = 1024) -> Array:
    """Rank of each query's own item, that of the same row, by inner product among all Q items: (Q,), 1 is best.

    Ties rank it last, so that vectors that are all alike find nothing. `chunk` queries are scored at a time.
    """
    ranks = [np.zeros(0, dtype=np.int64)]
    for at in range(0, len(query_QD), chunk):
        score_qQ = query_QD[at : at + chunk] @ item_QD.T
        row = np.arange(len(score_qQ))
        ranks.append((score_qQ >= score_qQ[row, at + row, None]).sum(axis=1))
    return np.concatenate(ranks)


def ndcg_at_k(retrieved_QK: Array, query_Q: Array, true_query_P: Array, true_item_P: Array) -> Array:
    """Binary NDCG@K of each query that has a true item; the ideal list has min(K, true items) hits."""
    count_Q = true_counts(query_Q, true_query_P, true_item_P)
    discount_K = 1 / np.log2(np.arange(retrieved_QK.shape[1]) + 2)
    gain_Q = (hits(retrieved_QK, query_Q, true_query_P, true_item_P) * discount_K).sum(axis=1)
    ideal_Q = np.r_[0, discount_K.cumsum()][np.minimum(count_Q, retrieved_QK.shape[1])]
    return np.asarray(gain_Q[count_Q > 0] / ideal_Q[count_Q > 0])
