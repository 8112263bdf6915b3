"""Character tf-idf and its neighbours, against the definition written out."""

from __future__ import annotations

import math
import re
import tracemalloc
from collections import Counter

import numpy as np
import pytest
from scipy import sparse

from benchmarks.quality.item_cold.characters import character_knn, tf_idf
from benchmarks.quality.item_cold.closed_form import content_knn
from data.tfidf import HASHES, LONGEST

TEXTS = ["Blue moon", "blue Monday", None, "Mond", "晴天\n周杰伦", "晴天", "xyz", "", "moon moon moon", "周杰伦"]
KNOWN = np.array([0, 1, 2, 3, 4, 7])


def grams(text: str) -> Counter[str]:
    text = re.sub(r"\s\s+", " ", text.lower())
    return Counter(text[at : at + n] for n in (1, 2, 3) for at in range(len(text) - n + 1))


def naive_cosines(texts: list[str | None], known: np.ndarray) -> np.ndarray:
    told = [at for at in known if texts[at]]
    df = Counter(gram for at in told for gram in set(grams(texts[at] or "")))
    rows: list[dict[str, float]] = []
    for text in texts:
        row = {
            g: (1 + math.log(n)) * (1 + math.log((1 + len(told)) / (1 + df[g]))) for g, n in grams(text or "").items()
        }
        length = math.sqrt(sum(value**2 for value in row.values()))
        rows.append({g: value / length for g, value in row.items()})
    return np.array([[sum(value * b.get(g, 0) for g, value in a.items()) for b in rows] for a in rows])


def test_cosines_are_the_loop() -> None:
    x = tf_idf(TEXTS, KNOWN)
    assert x.shape == (len(TEXTS), HASHES) and x.dtype == np.float32
    np.testing.assert_allclose((x @ x.T).toarray(), naive_cosines(TEXTS, KNOWN), atol=1e-5)


def test_weights_come_from_known_songs_alone() -> None:
    """The text of a new song changes its own row and no other's."""
    other = list(TEXTS)
    other[6], other[9] = "blue blue blue", "moon"
    one, two = (tf_idf(texts, KNOWN) for texts in (TEXTS, other))
    rest = [at for at in range(len(TEXTS)) if at not in (6, 9)]
    assert (one[rest] != two[rest]).nnz == 0 and (one[[6, 9]] != two[[6, 9]]).nnz > 0


@pytest.mark.parametrize("k", [1, 3, 50])
def test_neighbours_are_those_of_the_dense_rows(k: int) -> None:
    rng = np.random.default_rng(0)
    plays = sparse.csr_matrix((rng.random((20, len(KNOWN))) < 0.5).astype(np.float32))
    x, new = tf_idf(TEXTS, KNOWN), [5, 6, 8, 9]
    used = np.unique(x.indices)
    x_w, x_c = x[KNOWN], x[new]
    expected = content_knn(plays, x_w[:, used].toarray(), x_c[:, used].toarray(), k)
    score = character_knn(plays, x_w, x_c, k)
    np.testing.assert_allclose(score, expected, atol=1e-5)
    cosines = naive_cosines(TEXTS, KNOWN)[np.ix_(new, KNOWN)]
    for c in range(len(new)):
        near = sorted(range(len(KNOWN)), key=lambda w: (-cosines[c, w], w))[:k]
        loop = [sum(cosines[c, w] for w in near if plays[u, w]) for u in range(20)]
        np.testing.assert_allclose(score[:, c], loop, atol=1e-5)
    np.testing.assert_array_equal(character_knn(plays, x_w, x_c, k, kept={}), score)


def test_long_texts_do_not_take_more_memory() -> None:
    """Songs × LONGEST characters bound what is kept; no square of songs and no row of all n-grams is formed."""
    rng = np.random.default_rng(0)
    texts: list[str | None] = ["".join(map(chr, rng.integers(0x4E00, 0x9000, 20_000))) for _ in range(50)]
    tracemalloc.start()
    x = tf_idf(texts, np.arange(50))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert np.diff(x.indptr).max() <= 3 * LONGEST
    assert peak < 3 * LONGEST * 50 * 40 + 3 * 8 * HASHES  # bytes
