"""Published encoders with tiny random weights, as folders that transformers loads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers as hf


def tiny_bert(folder: Path, tokenizer: str) -> str:
    """A BERT, with the tokenizer of another model."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    hf.BertModel(hf.BertConfig(vocab_size=30522, **sizes)).save_pretrained(folder)
    hf.AutoTokenizer.from_pretrained(tokenizer).save_pretrained(folder)
    return str(folder)


def tiny_wav2vec2(folder: Path, tells_padding: bool = False) -> str:
    """A wav2vec 2.0, 24 numbers wide; its extractor may tell padding by a mask."""
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"conv_dim": (16, 16, 16), "conv_stride": (5, 4, 4), "conv_kernel": (10, 8, 8)}
    sizes |= {"num_feat_extract_layers": 3, "num_conv_pos_embeddings": 8, "num_conv_pos_embedding_groups": 2}
    sizes |= {"hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    config = hf.Wav2Vec2Config(feat_extract_norm="layer" if tells_padding else "group", **sizes)
    hf.Wav2Vec2Model(config).save_pretrained(folder)
    hf.Wav2Vec2FeatureExtractor(return_attention_mask=tells_padding).save_pretrained(folder)
    return str(folder)
