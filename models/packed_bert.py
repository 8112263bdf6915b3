"""A frozen BERT as it runs on a CPU: weights lie as the processor multiplies them, and few calls are made.

A song that comes in is one short text. The products of a few rows then take no longer than what the usual modules do
beside them: weights are laid out anew at each call, and queries, keys and values are three products instead of one.
The texts of a catalogue gain as well. The numbers are the same but for rounding.

Shapes: N texts, L tokens of a padded text, T real tokens of all texts, H heads, D width of a head, B BERT's width.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

USUAL = 64  # tokens that weights are laid out for; any number will do
PRODUCTS = ("_reorder_linear_weight", "_linear_pointwise")  # PyTorch's own, which a later one may not have


def can_pack(bert: Any) -> bool:
    """Whether a text model is a BERT as published, and PyTorch has what it takes."""
    is_bert = type(bert).__name__ == "BertModel" and bert.config.hidden_act == "gelu" and not bert.config.is_decoder
    has_products = all(hasattr(torch.ops.mkldnn, name) for name in PRODUCTS)
    return is_bert and torch.backends.mkldnn.is_available() and has_products


def packed(bert: Any, dtype: torch.dtype = torch.float32) -> Any:
    """The text model, which has to be on a CPU, as `PackedBert` if it can be packed."""
    return PackedBert(bert, dtype) if can_pack(bert) else bert


class PackedBert(nn.Module):
    """A frozen BERT for inference on a CPU, called as the one that it is made of.

    Args:
        bert: a model of which `can_pack` is true; it is not changed.
        dtype: of the products; sums and norms are float32.
    """

    def __init__(self, bert: Any, dtype: torch.dtype) -> None:
        super().__init__()
        self.embeddings, self.dtype = bert.embeddings, dtype
        self.heads = bert.config.num_attention_heads
        self.layers = nn.ModuleList(PackedLayer(layer, dtype) for layer in bert.encoder.layer)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Any:
        """`last_hidden_state` (N, L, B) of ids and mask (N, L); what pads short texts is no row of any product."""
        n, length = input_ids.shape
        real_T, see_N11L = attention_mask.flatten().nonzero()[:, 0], None
        if len(real_T) < n * length:
            see_N11L = attention_mask.bool()[:, None, None]
        x_TB = self.embeddings(input_ids).flatten(0, 1)[real_T]
        for layer in self.layers:
            assert isinstance(layer, PackedLayer)
            heads = spread(layer.qkv(x_TB.to(self.dtype)), real_T, n * length).view(n, length, 3, self.heads, -1)
            q_NHLD, k_NHLD, v_NHLD = heads.permute(2, 0, 3, 1, 4)
            seen_NHLD = F.scaled_dot_product_attention(q_NHLD, k_NHLD, v_NHLD, see_N11L)
            x_TB = layer.norm_1(layer.out(seen_NHLD.transpose(1, 2).reshape(n * length, -1)[real_T]) + x_TB)
            x_TB = layer.norm_2(layer.down(layer.up(x_TB.to(self.dtype))) + x_TB)
        return SimpleNamespace(last_hidden_state=spread(x_TB, real_T, n * length).view(n, length, -1))


def spread(x_TX: Tensor, real_T: Tensor, places: int) -> Tensor:
    """The rows of real tokens at their places among all; zeros at the others."""
    if len(real_T) == places:
        return x_TX
    return x_TX.new_zeros(places, x_TX.shape[1]).index_copy_(0, real_T, x_TX)


class PackedLayer(nn.Module):
    """The weights of one layer."""

    def __init__(self, layer: Any, dtype: torch.dtype) -> None:
        super().__init__()
        attention, of = layer.attention, layer.attention.self
        self.qkv = PackedLinear([of.query, of.key, of.value], dtype)
        self.out, self.norm_1 = PackedLinear([attention.output.dense], dtype), attention.output.LayerNorm
        self.up = PackedLinear([layer.intermediate.dense], dtype, "gelu")
        self.down, self.norm_2 = PackedLinear([layer.output.dense], dtype), layer.output.LayerNorm


class PackedLinear(nn.Module):
    """Linear layers of one input side by side, and what follows them."""

    def __init__(self, linears: list[nn.Linear], dtype: torch.dtype, follows: str = "none") -> None:
        super().__init__()
        weight = torch.cat([linear.weight.detach() for linear in linears]).to(dtype)
        self.weight = torch.ops.mkldnn._reorder_linear_weight(weight, USUAL)
        self.bias = torch.cat([linear.bias.detach() for linear in linears]).to(dtype)
        self.follows = follows

    def forward(self, x: Tensor) -> Tensor:
        """The products."""
        made: Tensor = torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, self.follows, [], "none")
        return made
