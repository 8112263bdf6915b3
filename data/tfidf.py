"""A text model that needs no training on text: tf-idf of a text's characters, reduced to a dense vector.

An n-gram of 1 to 3 characters that occurs n times in a lower-case text, and in d of the N known texts, weighs
(1 + ln n) · (1 + ln((1 + N) / (1 + d))). The row of a text has length 1. `fit` finds the directions that hold most of
the known texts' rows (singular value decomposition); a text's vector is the product of its row with these.

Shapes: N texts, H hashes of n-grams, K kept n-grams, E vector size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse

from configs.errors import UserError
from data.arrays import AnyArray, FloatArray, IntArray

FILE = "tfidf.safetensors"
LONGEST = 2000  # characters of a text that are read; with HASHES and KEPT it bounds the memory
HASHES = 2**20  # n-grams are told apart by their hash
KEPT, SIZE = 2**16, 256  # n-grams in most known texts that are kept, and size of the vectors


@dataclass
class CharacterTfidf:
    """A fitted model: the kept n-grams' hashes and weights, and the directions."""

    hash_K: IntArray
    weight_K: FloatArray
    axes_KE: FloatArray

    def vectors(self, texts: Sequence[str | None]) -> FloatArray:
        """Vectors (N, E), each of its own text alone; NaN without a text, or where no n-gram of it is kept."""
        x_NK = unit(counted(texts)[:, self.hash_K], self.weight_K)
        vector_NE = np.asarray(x_NK @ self.axes_KE, dtype=np.float32)
        vector_NE[np.diff(x_NK.indptr) == 0] = np.nan
        return vector_NE

    def save(self, folder: Path) -> None:
        """Write the model into a folder."""
        from safetensors.numpy import save_file

        save_file(vars(self), folder / FILE)


def load_tfidf(folder: Path) -> CharacterTfidf:
    """The model that `CharacterTfidf.save` wrote.

    Raises:
        UserError: it is missing or damaged.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        return CharacterTfidf(**load_file(folder / FILE))
    except (OSError, SafetensorError, TypeError) as error:
        raise UserError(f"{folder / FILE}: cannot be read ({error})") from None


def fit(texts: Sequence[str | None], kept: int = KEPT, size: int = SIZE) -> CharacterTfidf:
    """The model of the known songs' texts; it has fewer directions where they or their n-grams are few.

    Raises:
        UserError: no n-gram is in two of the texts.
    """
    from sklearn.utils.extmath import randomized_svd

    count_NH = counted([text for text in texts if text])
    in_H = np.bincount(count_NH.indices, minlength=HASHES)
    often = np.argsort(-in_H, kind="stable")[:kept]
    hash_K = np.sort(often[in_H[often] > 1])
    if not len(hash_K):
        raise UserError("text.model=tfidf: known songs have too little text, no characters are in two of them")
    weight_K = rarity(count_NH)[hash_K]
    x_NK = unit(count_NH[:, hash_K], weight_K)
    axes_EK = randomized_svd(x_NK, min(size, *x_NK.shape), random_state=0)[2]
    return CharacterTfidf(hash_K, weight_K, np.ascontiguousarray(axes_EK.T, dtype=np.float32))


def counted(texts: Sequence[str | None]) -> sparse.csr_matrix:
    """1 + ln of how often each n-gram is in each text, (N, H)."""
    from sklearn.feature_extraction.text import HashingVectorizer

    if not texts:  # which it cannot do
        return sparse.csr_matrix((0, HASHES), dtype=np.float32)
    count = HashingVectorizer(
        analyzer="char", ngram_range=(1, 3), n_features=HASHES, alternate_sign=False, norm=None, dtype=np.float32
    )
    count_NH = sparse.csr_matrix(count.transform((text or "")[:LONGEST] for text in texts))
    count_NH.data = 1 + np.log(count_NH.data)
    return count_NH


def rarity(count_NH: sparse.csr_matrix) -> FloatArray:
    """1 + ln((1 + N) / (1 + d)) of every n-gram, d being in how many of the texts it is, (H,)."""
    in_H = np.bincount(count_NH.indices, minlength=count_NH.shape[1])
    return np.asarray(1 + np.log((1 + count_NH.shape[0]) / (1 + in_H)), dtype=np.float32)


def unit(count_NK: Any, weight_K: AnyArray) -> sparse.csr_matrix:
    """Rows times weights, scaled to length 1; a row of zeros stays one."""
    x_NK = sparse.csr_matrix(count_NK, copy=True)
    x_NK.data *= weight_K[x_NK.indices]
    length_N = np.sqrt(np.asarray(x_NK.multiply(x_NK).sum(axis=1)).ravel())
    x_NK.data /= np.repeat(length_N, np.diff(x_NK.indptr))
    return x_NK
