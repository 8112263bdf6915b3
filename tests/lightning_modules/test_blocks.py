"""torch.compile block by block changes nothing but the time."""

from __future__ import annotations

import shutil

import pytest
import torch
from torch import nn

from lightning_modules.clip import ClipModule, blocks_of, compile_blocks
from models.audio_encoder import AudioEncoder
from tests.conftest import CLIP


def encoder() -> AudioEncoder:
    torch.manual_seed(0)
    return AudioEncoder(8, width=16, layers=2, heads=2, dropout=0.0)


def test_blocks_are_the_layers_of_all_stacks() -> None:
    own = encoder()
    both = nn.ModuleDict({"audio": own, "text": nn.Sequential(nn.Linear(2, 2), nn.ModuleList([nn.Linear(2, 2)]))})
    assert blocks_of(both) == [*own.blocks, both["text"][1][0]]


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler on a CPU")
def test_compiled_blocks_compute_the_same() -> None:
    from torch._dynamo.utils import counters

    plain, compiled = encoder(), encoder()
    compile_blocks(compiled)
    counters.clear()
    for n, frames in ((3, 40), (5, 64)):
        logmel, length = torch.randn(n, frames, 8), torch.full((n,), frames)
        vectors = [one(logmel, length) for one in (plain, compiled)]
        torch.testing.assert_close(vectors[1], vectors[0])
        for vector in vectors:
            vector.square().sum().backward()
    assert counters["stats"]["unique_graphs"] >= 1, "nothing was compiled"
    gradients = [dict(one.named_parameters()) for one in (plain, compiled)]
    assert gradients[0].keys() == gradients[1].keys(), "compiling renames no parameter"
    for name, parameter in gradients[0].items():
        torch.testing.assert_close(gradients[1][name].grad, parameter.grad, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("compiled", [False, True])
def test_a_module_compiles_when_it_is_asked_to(compiled: bool) -> None:
    module = ClipModule(CLIP, {}, compiled=compiled)
    module.configure_model()
    assert [block._compiled_call_impl is not None for block in module.model.audio_encoder.blocks] == [compiled] * 2
    assert "compiled" not in module.hparams, "a checkpoint does not hang on it"
