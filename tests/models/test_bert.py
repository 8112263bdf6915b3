"""The BERT of torch's own layers gives the vectors of transformers' BERT."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import BertConfig, BertModel

from models.bert import FrozenBert, frozen_text_encoder
from models.text_encoder import TextEncoder


def same_vectors(model: str) -> None:
    ours, theirs = frozen_text_encoder(model), TextEncoder(model).eval()
    assert isinstance(ours, FrozenBert)
    ids_NWL, mask_NWL = torch.randint(5, 90, (7, 2, 30)), torch.ones(7, 2, 30, dtype=torch.long)
    for text in range(6):
        mask_NWL[text, 0, 4 * text + 3 :] = 0
        mask_NWL[text, 1, 3 * text :] = 0
    mask_NWL[6] = 0  # a text without tokens
    with torch.inference_mode():
        for ids, mask in ((ids_NWL, mask_NWL), (ids_NWL[:, 0], mask_NWL[:, 0])):
            torch.testing.assert_close(ours(ids, mask), theirs(ids, mask), atol=1e-5, rtol=1e-5)


def test_the_packaged_one() -> None:
    same_vectors("minilm")


def test_one_of_our_own(tmp_path: Path) -> None:
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    BertModel(BertConfig(vocab_size=99, **sizes), add_pooling_layer=False).save_pretrained(tmp_path)
    same_vectors(str(tmp_path))


def test_another_model_and_a_missing_one_are_left_to_transformers(tmp_path: Path) -> None:
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    BertModel(BertConfig(vocab_size=99, hidden_act="relu", **sizes)).save_pretrained(tmp_path)
    assert isinstance(frozen_text_encoder(str(tmp_path)), TextEncoder)
    with pytest.raises(ValueError, match="nowhere"):
        frozen_text_encoder("./nowhere")
