"""Chunked embedding: one large batch's loss and gradient, whatever the chunk; and what it keeps meanwhile."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from models.chunked import embed_in_chunks, embed_in_fixed_batches
from objectives.contrastive import clip_loss, siglip_loss

N, IN, D = 13, 6, 4
Loss = Callable[..., Tensor]
LOSSES: dict[str, Loss] = {
    "infonce": lambda a, t: clip_loss(a, t, 9.0),
    "siglip": lambda a, t: siglip_loss(a, t, 9.0, -3.0),
}


def network(dropout: float = 0.0, hidden: int = 16) -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(IN, hidden), nn.GELU(), nn.Dropout(dropout), nn.Linear(hidden, D)).double()


def rows() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(N, IN, dtype=torch.float64, generator=generator)
    return {"x": x, "scale": torch.rand(N, 1, dtype=torch.float64, generator=generator)}


def step(size: int, loss: Loss, dropout: float = 0.0) -> tuple[Tensor, list[Tensor]]:
    net, batch = network(dropout), rows()
    torch.manual_seed(3)
    audio = embed_in_chunks(lambda part: net(part["x"]) * part["scale"], batch, size)
    text = torch.randn(N, D, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    value = loss(audio, text)
    value.backward()
    return value.detach(), [p.grad for p in net.parameters() if p.grad is not None]


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("size", [1, 6, 12, 13, 50])
def test_loss_and_gradient_are_those_of_one_big_batch(size: int, loss: str) -> None:
    expected, gradients = step(0, LOSSES[loss])
    found, others = step(size, LOSSES[loss])
    torch.testing.assert_close(found, expected)
    assert len(gradients) == len(others) == 4 and gradients[0].abs().max() > 1e-3
    for one, other in zip(others, gradients, strict=True):
        torch.testing.assert_close(one, other)


def test_a_chunk_is_embedded_again_with_the_same_random_numbers() -> None:
    """The gradient belongs to the vectors that the loss saw: checked against the same chunks with activations kept."""
    net, batch = network(dropout=0.5), rows()
    torch.manual_seed(3)
    parts = [net(batch["x"][at : at + 5]) * batch["scale"][at : at + 5] for at in range(0, N, 5)]
    text = torch.randn(N, D, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    clip_loss(torch.cat(parts), text, 9.0).backward()
    _, gradients = step(5, LOSSES["infonce"], dropout=0.5)
    for one, p in zip(gradients, net.parameters(), strict=True):
        torch.testing.assert_close(one, p.grad)


def test_activations_are_not_kept() -> None:
    net = network(hidden=4096)

    def kept(size: int) -> int:
        sizes = []

        def pack(x: Tensor) -> Tensor:
            sizes.append(0 if isinstance(x, nn.Parameter) else x.numel())
            return x

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
            embed_in_chunks(lambda part: net(part["x"]), rows(), size)
        return sum(sizes)

    assert kept(0) > N * 4096 and kept(4) < N * 40


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
