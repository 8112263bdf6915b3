"""Activations computed again in the backward pass: the same loss and gradient, dropout too, and less that is kept."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf
from torch import Tensor, nn

from models.audio_encoder import AudioEncoder
from models.clip import ClipModel
from models.pretrained_audio import PretrainedAudio
from models.text_encoder import TextEncoder
from tests.conftest import CLIP
from tests.models.test_pretrained_audio import small


def kept(make: Callable[..., nn.Module], use: Callable[[Any], Tensor]) -> tuple[Tensor, dict[str, Tensor], int]:
    """Output, gradients, and how many numbers the graph keeps for the backward pass."""
    torch.manual_seed(1)
    network = make().train()
    sizes: list[int] = []
    torch.manual_seed(2)
    with torch.autograd.graph.saved_tensors_hooks(lambda x: sizes.append(x.numel()) or x, lambda x: x):
        output = use(network)
    (output * torch.linspace(-1, 1, output.shape[-1])).sum().backward()
    return output.detach(), {n: p.grad for n, p in network.named_parameters() if p.grad is not None}, sum(sizes)


def assert_same_for_less(make: Callable[..., nn.Module], use: Callable[[Any], Tensor]) -> None:
    plain, again = kept(make, use), kept(lambda: make(recompute=True), use)
    torch.testing.assert_close(again[0], plain[0])
    assert again[2] < 0.8 * plain[2]
    assert len(plain[1]) > 5 and sum(float(one.abs().sum()) for one in plain[1].values()) > 0
    torch.testing.assert_close(again[1], plain[1])


def test_our_transformer() -> None:
    logmel, frames = torch.randn(3, 60, 8, generator=torch.Generator().manual_seed(3)), torch.tensor([60, 31, 8])
    assert_same_for_less(
        lambda **options: AudioEncoder(8, width=16, layers=3, heads=2, dropout=0.3, **options),
        lambda network: network(logmel, frames),
    )
    assert ClipModel(**CLIP | {"audio": CLIP["audio"] | {"recompute": True}}).audio_encoder.recompute  # type: ignore[union-attr]


@pytest.mark.parametrize("part", [{}, {"last_layers": 1}, {"lora_rank": 2}])
def test_a_published_text_encoder(part: dict[str, int]) -> None:
    ids = torch.randint(0, 50, (4, 12), generator=torch.Generator().manual_seed(3))
    assert_same_for_less(
        lambda **options: TextEncoder("minilm", frozen=False, **part, **options),
        lambda network: network(ids, torch.ones_like(ids)),
    )


def test_a_published_audio_encoder(tmp_path: Path) -> None:
    for one in small("ast"):
        one.save_pretrained(tmp_path)
    frames = torch.randn(2, 128, 32, generator=torch.Generator().manual_seed(3))
    assert_same_for_less(
        lambda **options: PretrainedAudio(str(tmp_path), frozen=False, **options),
        lambda network: network({"input_values": frames}),
    )


def test_a_network_that_cannot_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hf.BertModel, "supports_gradient_checkpointing", False)
    with pytest.raises(ValueError, match=r"cannot compute its activations again: model\.recompute=false"):
        TextEncoder("minilm", frozen=False, recompute=True)
    TextEncoder("minilm", frozen=True, recompute=True)
