"""The text model of characters: its weights by the definition, its directions by numpy's decomposition."""

from __future__ import annotations

import math
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from configs.errors import UserError
from data.tfidf import FILE, counted, fit, load_tfidf, rarity, unit

TEXTS = ["Blue moon", "blue Monday", None, "Mond\nmoon", "晴天\n周杰伦", "晴天", "", "moon moon moon", "周杰伦", "blue"]


def grams(text: str) -> Counter[str]:
    text = re.sub(r"\s\s+", " ", text.lower())
    return Counter(text[at : at + n] for n in (1, 2, 3) for at in range(len(text) - n + 1))


def naive_rows() -> tuple[list[str], np.ndarray]:
    """The n-grams that two texts have, and the rows of the texts that there are over these."""
    told = [grams(text) for text in TEXTS if text]
    df = Counter(gram for one in told for gram in one)
    kept = sorted(gram for gram in df if df[gram] > 1)
    rows = np.zeros((len(told), len(kept)))
    for at, one in enumerate(told):
        for column, gram in enumerate(kept):
            if one[gram]:
                rows[at, column] = (1 + math.log(one[gram])) * (1 + math.log((1 + len(told)) / (1 + df[gram])))
    return kept, rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_vectors_are_the_rows_in_their_main_directions() -> None:
    """Cosines as in the best approximation of the rows; all of them where there are enough directions."""
    kept, rows = naive_rows()
    left, value, _ = np.linalg.svd(rows, full_matrices=False)
    for size in (2, 3, 100):
        model = fit(TEXTS, size=size)
        assert len(model.hash_K) == len(kept) and model.axes_KE.shape == (len(kept), min(size, *rows.shape))
        vectors = model.vectors([text for text in TEXTS if text])
        expected = (left[:, :size] * value[:size] ** 2) @ left[:, :size].T
        np.testing.assert_allclose(vectors @ vectors.T, expected, atol=1e-4)
    np.testing.assert_allclose(vectors @ vectors.T, rows @ rows.T, atol=1e-4)


def test_a_text_has_its_own_vector_whatever_is_beside_it() -> None:
    """To the last bit: the service encodes a song alone, the pipeline all at once."""
    model = fit(TEXTS, size=4)
    every = model.vectors([*TEXTS, "blue cheese", "zzz"])
    for text, vector in zip([*TEXTS, "blue cheese", "zzz"], every, strict=True):
        np.testing.assert_array_equal(model.vectors([text])[0], vector)
    assert np.isnan(every).any(axis=1).tolist() == [not text for text in TEXTS] + [False, True]
    assert every.dtype == np.float32 and (np.isnan(every).all(axis=1) == np.isnan(every).any(axis=1)).all()


def test_the_most_frequent_are_kept() -> None:
    texts = [text for text in TEXTS if text]
    df = Counter(gram for text in texts for gram in grams(text))
    model = fit(TEXTS, kept=5)
    in_H = np.bincount(counted(texts).indices, minlength=2**20)
    assert sorted(in_H[model.hash_K], reverse=True) == [n for _, n in df.most_common(5)]


def test_a_saved_model_is_the_same_and_a_damaged_one_is_refused(tmp_path: Path) -> None:
    model = fit(TEXTS)
    model.save(tmp_path)
    np.testing.assert_array_equal(load_tfidf(tmp_path).vectors(TEXTS), model.vectors(TEXTS))
    (tmp_path / FILE).write_bytes(b"nothing")
    with pytest.raises(UserError, match=f"{FILE}: cannot be read"):
        load_tfidf(tmp_path)
    with pytest.raises(UserError, match="cannot be read"):
        load_tfidf(tmp_path / "nowhere")


@pytest.mark.parametrize("texts", [[], [None, ""], ["abc", "xyz"]])
def test_too_little_text_is_one_line(texts: list[str | None]) -> None:
    with pytest.raises(UserError, match="too little text"):
        fit(texts)


def test_rows_have_length_one() -> None:
    count = counted(["moon", None, "blue moon"])
    x = unit(count, rarity(count))
    np.testing.assert_allclose(np.sqrt(x.multiply(x).sum(axis=1)).ravel(), [[1, 0, 1]], rtol=1e-6)
    assert (count != counted(["moon", None, "blue moon"])).nnz == 0, "what is given is left as it is"
