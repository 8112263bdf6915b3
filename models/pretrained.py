"""Load published encoders, and select which of their weights are trained.

Besides packaged.py, vocabulary.py, musicnn.py and use_multilingual.py the only module of models/ that reads files:
weights.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

from torch import nn

from models.packaged import resolve_model


def load_pretrained(auto: str, model: str, kind: str) -> Any:
    """Call `from_pretrained` of a class of transformers on the resolved model; weights come as float32.

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
        made = getattr(transformers, auto).from_pretrained(resolved, local_files_only=local, trust_remote_code=False)
    except Exception as error:  # transformers, hub and safetensors raise unrelated types
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        if local and not (Path(resolved) / "config.json").is_file():  # transformers guesses at other reasons
            reason = "the folder has no config.json, so it holds no model"
        raise ValueError(f"{kind} '{model}' cannot be loaded: {reason}") from error
    return made.float() if isinstance(made, nn.Module) else made  # transformers keeps the type in which they were saved


class Published(nn.Module):
    """A published encoder, frozen or trained: all of it, its last layers, or LoRA adapters of its linear layers.

    A frozen one takes no gradient and stays in evaluation mode. LoRA (Hu et al., arXiv 2106.09685) adds nothing at
    first. With `recompute`, activations are computed again in the backward pass instead of being kept.

    Raises:
        ValueError: the model cannot be loaded, has fewer layers, or cannot compute its activations again.
    """

    def __init__(
        self, model: str, frozen: bool = True, last_layers: int = 0, lora_rank: int = 0, recompute: bool = False
    ) -> None:
        super().__init__()
        self.frozen, network = frozen, self.load(model)
        if recompute and not frozen:
            if not getattr(network, "supports_gradient_checkpointing", False):
                raise ValueError(f"{model} cannot compute its activations again: model.recompute=false")
            network.gradient_checkpointing_enable({"use_reentrant": False})
        if frozen or last_layers or lora_rank:
            network.requires_grad_(False)
        if last_layers:
            layers = layers_of(network, model)
            if last_layers > len(layers):
                raise ValueError(f"last_layers={last_layers}: '{model}' has {len(layers)}")
            layers[-last_layers:].requires_grad_(True)
        elif lora_rank:
            from peft import LoraConfig, inject_adapter_in_model

            config = LoraConfig(r=lora_rank, lora_alpha=2 * lora_rank, target_modules="all-linear")
            inject_adapter_in_model(config, network)
        self.train(self.training)

    def load(self, model: str) -> Any:
        """Load the network into an attribute of the encoder's own, and return it."""
        raise NotImplementedError

    def train(self, mode: bool = True) -> Self:
        """Set training mode; a frozen encoder stays in evaluation mode."""
        return super().train(mode and not self.frozen)


def layers_of(model: nn.Module, name: str) -> nn.ModuleList:
    """A model's Transformer layers, first to last: its module list with the most weights."""
    lists = [module for module in model.modules() if isinstance(module, nn.ModuleList)]
    if not lists:
        raise ValueError(f"'{name}' has no list of layers, so that its last ones cannot be trained alone")
    return max(lists, key=lambda layers: sum(weight.numel() for weight in layers.parameters()))
