"""A packed BERT gives what the one gives that it is made of."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from data.text import token_batch, token_rows
from models.packed_bert import PackedBert, can_pack, packed
from models.processor import has_bfloat16
from models.text_encoder import TextEncoder, load_tokenizer

TEXTS = ["rain", "the sea at night and the long way home " * 9, "雨 and песня", "", "a fire in the garden"]


@pytest.fixture(scope="module")
def encoder() -> TextEncoder:
    return TextEncoder("minilm").eval()


@torch.inference_mode()
def vectors(encoder: TextEncoder, dtype: torch.dtype | None, texts: list[str], windows: int) -> Tensor:
    """Pooled vectors of texts together, by the packed model or (None) by its own."""
    own = encoder.bert
    try:
        encoder.bert = own if dtype is None else PackedBert(own, dtype)
        found: Tensor = encoder(**token_batch(*token_rows(texts, "minilm", 32, windows, load_tokenizer("minilm"))))
        return found
    finally:
        encoder.bert = own


@pytest.mark.parametrize(("texts", "windows"), [(TEXTS[:1], 1), (TEXTS[1:2], 1), (TEXTS, 1), (TEXTS, 3)])
def test_a_packed_model_reads_texts_alike(encoder: TextEncoder, texts: list[str], windows: int) -> None:
    """Alone and padded, in one window and several, of which some are empty; a text without words gives zeros."""
    assert can_pack(encoder.bert)
    expected, found = (vectors(encoder, dtype, texts, windows) for dtype in (None, torch.float32))
    torch.testing.assert_close(found, expected, atol=2e-6, rtol=0)
    assert expected.norm(dim=1).tolist() != [0] * len(texts)


def test_a_text_has_its_vector_whatever_stands_beside_it(encoder: TextEncoder) -> None:
    """To the last bit, as long as they are padded alike: the cache of a catalogue's texts relies on it."""
    beside = [vectors(encoder, torch.float32, [TEXTS[1], *others], 1)[0] for others in ([], TEXTS[:1], TEXTS[2:] * 9)]
    assert torch.equal(beside[0], beside[1]) and torch.equal(beside[0], beside[2])


@pytest.mark.skipif(not has_bfloat16(), reason="the processor has no bfloat16")
def test_half_precision_is_close(encoder: TextEncoder) -> None:
    texts = [text for text in TEXTS if text]
    expected, found = (vectors(encoder, dtype, texts, 2) for dtype in (None, torch.bfloat16))
    assert found.dtype == torch.float32 and (F.cosine_similarity(found, expected) > 0.9999).all()
    assert not torch.allclose(found, expected, atol=2e-6)


def test_other_models_are_left_as_they_are() -> None:
    from transformers import BertConfig, BertModel, DistilBertConfig, DistilBertModel

    small = {"vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    assert can_pack(BertModel(BertConfig(**small, intermediate_size=32)))
    other = DistilBertModel(DistilBertConfig(vocab_size=50, dim=16, n_layers=1, n_heads=2, hidden_dim=32))
    assert not can_pack(other) and packed(other) is other
    assert not can_pack(BertModel(BertConfig(**small, intermediate_size=32, hidden_act="relu")))
