"""Chunked embedding: one large batch's loss and gradient, whatever the chunk; and what it keeps meanwhile."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from models.chunked import embed_in_chunks, embed_in_fixed_batches
from objectives.contrastive import clip_loss
from tests.models.test_recompute import kept

N, IN, D = 13, 6, 4


def network(dropout: float = 0.0, hidden: int = 16) -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(IN, hidden), nn.GELU(), nn.Dropout(dropout), nn.Linear(hidden, D)).double()


def rows() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(N, IN, dtype=torch.float64, generator=generator)
    return {"x": x, "scale": torch.rand(N, 1, dtype=torch.float64, generator=generator)}


def step(size: int, dropout: float = 0.0, keep: bool = False) -> tuple[Tensor, dict[str, Any]]:
    """Loss of the whole batch, and gradients; with `keep` of chunks whose activations are kept."""
    net, batch = network(dropout), rows()
    torch.manual_seed(3)
    if keep:
        audio = torch.cat(
            [net(batch["x"][at : at + size]) * batch["scale"][at : at + size] for at in range(0, N, size)]
        )
    else:
        audio = embed_in_chunks(lambda part: net(part["x"]) * part["scale"], batch, size)
    text = torch.randn(N, D, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    loss = clip_loss(audio, text, 9.0)
    loss.backward()
    return loss.detach(), {name: p.grad for name, p in net.named_parameters()}


@pytest.mark.parametrize("size", [1, 6, 12, 13, 50])
def test_loss_and_gradient_are_those_of_one_big_batch(size: int) -> None:
    torch.testing.assert_close(step(size), step(0))


def test_a_chunk_is_embedded_again_with_the_same_random_numbers() -> None:
    """The gradient belongs to the vectors that the loss saw."""
    torch.testing.assert_close(step(5, dropout=0.5), step(5, dropout=0.5, keep=True))


def test_activations_are_not_kept() -> None:
    def numbers(size: int) -> int:
        return kept(
            lambda: network(hidden=4096), lambda net: embed_in_chunks(lambda part: net(part["x"]), rows(), size)
        )[2]

    assert numbers(0) - numbers(4) > N * 4096


def test_without_gradient_rows_are_embedded_once() -> None:
    net, calls = network(), []

    def embed(part: dict[str, Tensor]) -> Tensor:
        calls.append(len(part["x"]))
        return torch.as_tensor(net(part["x"]))

    with torch.no_grad():
        embed_in_chunks(embed, rows(), 5)
    assert calls == [N]
    embed_in_chunks(embed, rows(), 5).sum().backward()
    assert sorted(calls[1:]) == [3, 3, 5, 5, 5, 5], "each chunk once more for its gradient"


@pytest.mark.parametrize("n", [1, 31, 32, 70])
def test_fixed_batches_have_one_shape_and_every_row(n: int) -> None:
    x, shapes = torch.randn(n, 3), set()

    def embed(part: dict[str, Tensor]) -> Tensor:
        shapes.add(tuple(part["x"].shape))
        return 2 * part["x"]

    torch.testing.assert_close(embed_in_fixed_batches(embed, {"x": x}), 2 * x)
    assert shapes == {(32, 3)}


def test_stored_frames_are_embedded_in_bfloat16_too() -> None:
    """A CPU's autocast joins no float16 tensors."""
    x = torch.randn(5, 3).half()
    with torch.autocast("cpu", torch.bfloat16):
        found = embed_in_fixed_batches(lambda part: part["x"].float(), {"x": x})
    torch.testing.assert_close(found, x.float())
