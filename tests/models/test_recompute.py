"""Activations computed again in the backward pass: the same loss and gradient, dropout too, and less that is kept."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import transformers as hf
from torch import Tensor, nn

from models.audio_encoder import AudioEncoder
from models.clip import ClipModel
from models.pretrained_audio import PretrainedAudio
from models.text_encoder import TextEncoder


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> str:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("bert")
    sizes = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 32}
    hf.BertModel(hf.BertConfig(vocab_size=50, **sizes)).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def ast(tmp_path_factory: pytest.TempPathFactory) -> str:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("ast")
    sizes = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 32}
    hf.ASTModel(hf.ASTConfig(max_length=128, num_mel_bins=32, **sizes)).save_pretrained(folder)
    hf.ASTFeatureExtractor(max_length=128, num_mel_bins=32).save_pretrained(folder)
    return str(folder)


def kept(make: Callable[[], nn.Module], use: Callable[[Any], Tensor]) -> tuple[Tensor, dict[str, Tensor], int]:
    """Output, gradients, and how many numbers the graph keeps for the backward pass."""
    torch.manual_seed(1)
    network = make().train()
    sizes: list[int] = []
    torch.manual_seed(2)
    with torch.autograd.graph.saved_tensors_hooks(lambda x: sizes.append(x.numel()) or x, lambda x: x):
        output = use(network)
    (output * torch.linspace(-1, 1, output.shape[-1])).sum().backward()
    return output.detach(), {n: p.grad for n, p in network.named_parameters() if p.grad is not None}, sum(sizes)


def assert_same_for_less(make: Callable[[bool], nn.Module], use: Callable[[Any], Tensor]) -> None:
    plain, again = kept(lambda: make(False), use), kept(lambda: make(True), use)
    torch.testing.assert_close(again[0], plain[0])
    assert again[2] < 0.8 * plain[2]
    assert again[1].keys() == plain[1].keys() and len(plain[1]) > 5
    for name, gradient in plain[1].items():
        torch.testing.assert_close(again[1][name], gradient, msg=name)
    assert sum(float(one.abs().sum()) for one in plain[1].values()) > 0


def test_our_transformer() -> None:
    logmel, frames = torch.randn(3, 60, 8, generator=torch.Generator().manual_seed(3)), torch.tensor([60, 31, 8])
    assert_same_for_less(
        lambda recompute: AudioEncoder(8, width=16, layers=3, heads=2, dropout=0.3, recompute=recompute),
        lambda network: network(logmel, frames),
    )


def test_a_published_text_encoder(bert: str) -> None:
    ids = torch.randint(0, 50, (4, 12), generator=torch.Generator().manual_seed(3))
    for more in ({}, {"last_layers": 1}, {"lora_rank": 2}):
        assert_same_for_less(
            lambda recompute, more=more: TextEncoder(bert, frozen=False, recompute=recompute, **more),  # type: ignore[misc]
            lambda network: network(ids, torch.ones_like(ids)),
        )


def test_a_published_audio_encoder(ast: str) -> None:
    frames = torch.randn(2, 128, 32, generator=torch.Generator().manual_seed(3))
    assert_same_for_less(
        lambda recompute: PretrainedAudio(ast, frozen=False, recompute=recompute),
        lambda network: network({"input_values": frames}),
    )


def test_it_is_an_option_of_the_whole_model_and_frozen_parts_do_not_mind(bert: str) -> None:
    front = {"sample_rate": 16000, "win_length": 800, "hop_length": 320, "n_mels": 8}
    own = {"model": "transformer", "dim": 0, "width": 16, "layers": 2, "heads": 2, "recompute": True}
    text = {"model": bert, "dim": 16, "frozen": True, "recompute": True}
    model: Any = ClipModel(front, own, text, dim=8)
    assert model.audio_encoder.recompute and model.text_encoder is None


def test_a_network_that_cannot_is_named(bert: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hf.BertModel, "supports_gradient_checkpointing", False)
    with pytest.raises(ValueError, match=r"cannot compute its activations again: model\.recompute=false"):
        TextEncoder(bert, frozen=False, recompute=True)
    TextEncoder(bert, frozen=True, recompute=True)
