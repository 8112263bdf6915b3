"""A frozen BERT as torch's own Transformer layers: the vectors of transformers' BertModel, without its imports.

Those take longer than all else that the service needs to start.

Shapes: N texts, L tokens, B BERT's width.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from models.pretrained import resolve_model

WEIGHTS = "model.safetensors"
PARTS = {  # of a layer: torch's names → BERT's
    "self_attn.out_proj": "attention.output.dense",
    "norm1": "attention.output.LayerNorm",
    "linear1": "intermediate.dense",
    "linear2": "output.dense",
    "norm2": "output.LayerNorm",
}


class FrozenBert(nn.Module):
    """Mean of the last hidden states of real tokens (`TextEncoder` of the same folder), from ids and mask (N, L)."""

    def __init__(self, folder: Path, config: dict[str, Any]) -> None:
        super().__init__()
        width, rate = config["hidden_size"], config["layer_norm_eps"]
        self.words = nn.Embedding(config["vocab_size"], width)
        self.places = nn.Embedding(config["max_position_embeddings"], width)
        self.kinds = nn.Embedding(config["type_vocab_size"], width)
        self.norm = nn.LayerNorm(width, rate)
        heads, hidden = config["num_attention_heads"], config["intermediate_size"]
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(width, heads, hidden, 0.0, "gelu", rate, batch_first=True)
            for _ in range(config["num_hidden_layers"])
        )
        self.load_state_dict(renamed(load_file(folder / WEIGHTS), config["num_hidden_layers"]))
        self.requires_grad_(False).eval()

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Pooled vectors, (N, B); windows (N, W, L) are read one by one; a text without tokens is zero."""
        n, (ids_RL, mask_RL) = len(input_ids), (one.flatten(0, -2) for one in (input_ids, attention_mask))
        places_L = torch.arange(ids_RL.shape[1], device=ids_RL.device)
        hidden_RLB = self.norm(self.words(ids_RL) + self.kinds.weight[0] + self.places(places_L))
        absent_RL = torch.zeros(mask_RL.shape, device=mask_RL.device).masked_fill(mask_RL == 0, -1e9)
        for layer in self.layers:
            hidden_RLB = layer(hidden_RLB, src_key_padding_mask=absent_RL)
        total_RB = torch.where(mask_RL.unsqueeze(-1) > 0, hidden_RLB, 0.0).sum(dim=1)
        total_NB = total_RB.view(n, -1, total_RB.shape[1]).sum(dim=1)
        return total_NB / mask_RL.view(n, -1).sum(dim=1, keepdim=True).clamp(min=1)


def renamed(weights: dict[str, Tensor], layers: int) -> dict[str, Tensor]:
    """A BertModel's weights by FrozenBert's names."""
    tables = {"words": "word_embeddings", "places": "position_embeddings", "kinds": "token_type_embeddings"}
    found = {f"{own}.weight": weights[f"embeddings.{theirs}.weight"] for own, theirs in tables.items()}
    for what in ("weight", "bias"):
        found[f"norm.{what}"] = weights[f"embeddings.LayerNorm.{what}"]
        for layer in range(layers):
            theirs, own = f"encoder.layer.{layer}", f"layers.{layer}"
            asked = [weights[f"{theirs}.attention.self.{one}.{what}"] for one in ("query", "key", "value")]
            found[f"{own}.self_attn.in_proj_{what}"] = torch.cat(asked)
            found |= {f"{own}.{name}.{what}": weights[f"{theirs}.{part}.{what}"] for name, part in PARTS.items()}
    return found


def frozen_text_encoder(model: str) -> nn.Module:
    """The frozen encoder of a text model: `FrozenBert` where its folder holds a plain BERT, else `TextEncoder`.

    Raises:
        ValueError: it cannot be loaded.
    """
    folder = Path(resolve_model(model))
    try:
        config = json.loads((folder / "config.json").read_text("utf-8"))
        if (config["model_type"], config["hidden_act"]) == ("bert", "gelu"):
            return FrozenBert(folder, config)
    except (OSError, ValueError, KeyError, RuntimeError):
        pass  # no such folder or another model: transformers loads it, or says what is wrong
    from models.text_encoder import TextEncoder

    return TextEncoder(model).eval()
