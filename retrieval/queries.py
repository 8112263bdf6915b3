"""Vectors by which songs are searched for: of examples, and of words.

Shapes: L liked and N disliked songs, S songs, D vector size, Q queries, K results.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrieval.index import unit_rows

# Weight of disliked examples beside liked ones: Rocchio's usual .15 beside .75 (Manning, Raghavan, Schütze:
# Introduction to Information Retrieval, §9.1.1). Measured in docs/results/search.md: with real dislikes it is level
# with none (AUC .003 ± .007 more) and so are greater ones; where what is near is disliked, it loses .007 ± .004 of
# NDCG@20 .232, and .5 a quarter.
DISLIKED = 0.2


def example_vector(liked_LD: NDArray[Any], disliked_ND: NDArray[Any], weight: float = DISLIKED) -> NDArray[np.float32]:
    """The mean of the liked songs less `weight` of the mean of the disliked ones, (D,): "like these, not those".

    At least one is liked; none need be disliked. Of a single liked song it is that song's vector.
    """
    vector_D = liked_LD.mean(axis=0)
    if len(disliked_ND):
        vector_D = vector_D - weight * disliked_ND.mean(axis=0)
    return np.asarray(vector_D, dtype=np.float32)


def centre(field_SD: NDArray[Any]) -> NDArray[np.float32]:
    """The mean of the unit vectors of those songs that have one, (D,); zeros where none has."""
    unit_SD = unit_rows(field_SD)
    has_S = np.isfinite(unit_SD).all(axis=1)
    return np.asarray(unit_SD[has_S].mean(axis=0) if has_S.any() else np.zeros(field_SD.shape[1]), dtype=np.float32)


def centred(vectors_ND: NDArray[Any], centre_D: NDArray[np.float32]) -> NDArray[np.float32]:
    """Unit vectors (N, D) in the direction in which vectors differ from a centre."""
    return unit_rows(unit_rows(vectors_ND) - centre_D)


def word_vectors(fields: Sequence[NDArray[Any]], centres_FD: NDArray[np.float32]) -> NDArray[np.float32]:
    """What a text is compared with, of songs: the mean of their vectors of sound and of words, each centred, (S, D).

    A text is nearer to all texts than to any sound (the modality gap, arXiv 2203.02053): without centres, songs of
    words alone come before all others (docs/results/search.md).

    Args:
        fields: vectors (S, D) of one space, NaN where a song lacks that one.
        centres_FD: `centre` of each.

    Returns:
        NaN for a song that lacks all of them.
    """
    units_FSD = np.stack([centred(field_SD, centre_D) for field_SD, centre_D in zip(fields, centres_FD, strict=True)])
    has_FS1 = np.isfinite(units_FSD).all(axis=2, keepdims=True)
    count_S1 = has_FS1.sum(axis=0)
    total_SD = np.where(has_FS1, units_FSD, 0.0).sum(axis=0)
    return np.where(count_S1 > 0, total_SD / np.maximum(count_S1, 1), np.nan).astype(np.float32)


def best_of(
    lists: Sequence[tuple[NDArray[np.float32], NDArray[np.int64]]], k: int, named: Sequence[Sequence[int]]
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Scores and numbers of the k best in several lists of results, each (Q, K); −1 where there are fewer.

    Args:
        lists: scores and numbers, (Q, …) each, that have no number twice.
        k: results of a query.
        named: of each query the numbers that it is not to be answered.
    """
    scores, numbers = (np.concatenate([one[part] for one in lists], axis=1) for part in (0, 1))
    for row, given in enumerate(named):
        numbers[row, np.isin(numbers[row], list(given))] = -1
    scores = np.where(numbers < 0, -np.inf, scores).astype(np.float32)
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(scores, order, axis=1), np.take_along_axis(numbers, order, axis=1)
