"""Neighbours by the characters of songs' texts, tf-idf of 1- to 3-grams (`data.tfidf`).

Shapes: U users, S songs, W warm songs, C cold songs, D n-grams.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from scipy import sparse

from benchmarks.quality.item_cold.closed_form import content_knn
from data.arrays import FloatArray, IntArray
from data.tfidf import counted, rarity, unit

GRIDS: dict[str, list[dict[str, Any]]] = {"character_knn": [{"k": k} for k in (200, 100, 50, 20, 10, 5)]}


def tf_idf(texts: Sequence[str | None], known: IntArray) -> sparse.csr_matrix:
    """Rows of length 1 of all songs' texts, (S, D), weighed by the known songs': zeros where there is no text."""
    count_SD = counted(texts)
    return unit(count_SD, rarity(count_SD[[at for at in known if texts[at]]]))


def character_knn(
    plays_UW: sparse.csr_matrix,
    x_WD: sparse.csr_matrix,
    x_CD: sparse.csr_matrix,
    k: int = 100,
    kept: dict[str, Any] | None = None,
) -> FloatArray:
    """`content_knn` by the rows of `tf_idf`: they are sparse, and some cold songs are compared at a time; (U, C)."""
    return content_knn(plays_UW, x_WD, x_CD, k, kept=kept)
