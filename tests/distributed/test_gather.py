"""Two processes must give the loss and the gradient of one process with the whole batch."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from lightning_modules.i2i import I2IModule
from models.chunked import embed_in_chunks
from objectives.contrastive import clip_loss, info_nce, siglip_loss
from objectives.gather import gather_rows, gather_with_grad, sum_over_ranks

N, IN, D = 12, 7, 5


class Towers(nn.Module):
    """Two linear towers and a temperature, as every contrastive step here has them."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.left, self.right = nn.Linear(IN, D), nn.Linear(IN, D)
        self.log_scale = nn.Parameter(torch.tensor(1.5))

    def forward(self, name: str, batch: dict[str, Tensor]) -> Tensor:
        size = 4 if name == "clip in chunks" else 0  # 6 rows a rank: two chunks, the second one short
        left_GD = gather_with_grad(embed_in_chunks(lambda part: self.left(part["x"]), {"x": batch["x"]}, size))
        right_GD = gather_with_grad(self.right(batch["y"]))
        ids_G = gather_with_grad(batch["ids"])
        if name in ("clip", "clip in chunks"):
            return clip_loss(left_GD, right_GD, self.log_scale.exp(), ids_G[:, None] == ids_G)
        if name == "siglip":
            return siglip_loss(left_GD, right_GD, self.log_scale.exp(), -1.0, ids_G[:, None] == ids_G)
        valid_G = gather_with_grad(batch["valid"])
        return info_nce(left_GD, right_GD, 0.2, ids_G, valid_G) + 0 * self.log_scale


def whole_batch() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(5)
    x, y = torch.randn(2, N, IN, generator=generator)
    ids = torch.tensor([0, 1, 2, 3, 4, 5, 1, 7, 0, 9, 10, 11])  # 0 and 1 occur on both ranks
    valid = torch.tensor([True] * 4 + [False] + [True] * 5 + [False, True])
    return {"x": x, "y": y, "ids": ids, "valid": valid}


def losses_and_gradients(rank: int, world_size: int) -> dict[str, Any]:
    share = slice(rank * N // world_size, (rank + 1) * N // world_size)
    batch = {key: value[share] for key, value in whole_batch().items()}
    results = {}
    for name in ("clip", "clip in chunks", "siglip", "info_nce"):
        towers = Towers()
        model = DistributedDataParallel(towers) if world_size > 1 else towers
        loss = model(name, batch)
        loss.backward()
        results[name] = {"loss": loss.detach(), **{key: p.grad for key, p in towers.named_parameters()}}
    return results


def ragged(rank: int, world_size: int) -> list[Tensor]:
    rows = torch.arange(3.0, requires_grad=True)[: 3 * rank].unsqueeze(1)  # rank 0 brings nothing
    return [gather_rows(rows), gather_rows(torch.full((2 + rank,), rank))]


def test_two_ranks_equal_one_process(on_ranks: Any) -> None:
    expected = losses_and_gradients(0, 1)
    for result in on_ranks(losses_and_gradients, 2):
        for name, values in expected.items():
            for key, value in values.items():
                torch.testing.assert_close(result[name][key], value, rtol=1e-5, atol=1e-6, msg=f"{name} {key}")
    assert expected["clip"]["left.weight"].abs().max() > 1e-3  # zeros would agree with anything


def test_gather_rows_takes_ragged_and_empty_ranks(on_ranks: Any) -> None:
    for floats, integers in on_ranks(ragged, 2):
        assert floats.squeeze(1).tolist() == [0, 1, 2]
        assert integers.tolist() == [0, 0, 1, 1, 1]


@pytest.mark.parametrize("gather", [gather_with_grad, gather_rows])
def test_without_process_group_rows_stay(gather: Any) -> None:
    rows = torch.randn(4, 2, requires_grad=True)
    assert torch.equal(gather(rows), rows)
    assert gather_with_grad(rows).requires_grad and not gather_rows(rows).requires_grad


def views_and_gradients(rank: int, world_size: int) -> dict[str, Tensor]:
    """The contrastive part of the I2I task with groups drawn by correlation; nothing else is random in it."""
    torch.manual_seed(0)
    module = I2IModule(
        {"audio": 8, "text": 6}, {"genres": 5, "tags": 5}, field_dim=4, hidden=8, dim=6, dropout=0.0, augment="noise",
        noise_std=0.0,
    )  # fmt: skip
    fields = {"audio": torch.randn(N, 8), "text": torch.randn(N, 6)}
    fields |= {name: torch.randint(0, 5, (N, 2)) for name in ("genres", "tags")}
    share = slice(rank * N // world_size, (rank + 1) * N // world_size)
    torch.manual_seed(rank)  # ranks do not share torch's own randomness
    results = {}
    for seed in range(4):
        module.zero_grad()
        part = {name: x[share] for name, x in fields.items()}
        loss, left_out = module.contrastive_loss(part, torch.arange(N)[share], seed)
        loss.backward()
        results |= {f"loss {seed}": loss.detach(), f"left out {seed}": left_out}
        for key, p in module.named_parameters():
            if p.grad is not None:
                results[f"{key} {seed}"] = sum_over_ranks(p.grad) / world_size  # as DDP has it
    return results


@pytest.mark.parametrize("world_size", [2, 3])
def test_the_global_batch_has_one_pair_of_groups(on_ranks: Any, world_size: int) -> None:
    expected = views_and_gradients(0, 1)
    for result in on_ranks(views_and_gradients, world_size):
        assert result.keys() == expected.keys()
        for key, value in expected.items():
            torch.testing.assert_close(result[key], value, rtol=1e-4, atol=1e-6, msg=key)
    assert len({round(float(expected[f"loss {seed}"]), 4) for seed in range(4)}) > 1, "groups differ from draw to draw"
