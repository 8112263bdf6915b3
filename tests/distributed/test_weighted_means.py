"""Losses that are weighted means: on two and three ranks with unlike weights, value and gradient of one process."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from objectives.boundary import boundary_loss
from objectives.gather import mean_over_ranks
from objectives.ranking import bpr_loss, listening_loss

N, M, IN, D = 12, 5, 7, 4
LOSSES = ("boundary", "bpr", "listening")


class Tower(nn.Module):
    """A linear map of rows, and M fixed ones beside them."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.rows, self.others = nn.Linear(IN, D), nn.Linear(IN, D)

    def forward(self, name: str, batch: dict[str, Tensor]) -> Tensor:
        row_ND, other_MD = self.rows(batch["x"]), self.others(batch["others"])
        if name == "boundary":
            return boundary_loss(row_ND @ other_MD.T, row_ND.sum(dim=1, keepdim=True), batch["y"], 0.3, batch["weight"])
        if name == "bpr":
            return bpr_loss(row_ND, row_ND.flip(1), other_MD, batch["weight"] > 0.5)
        return listening_loss(row_ND @ other_MD.T, batch["wanted"], batch["shown"], users_weight=0.0)


def whole_batch() -> dict[str, Tensor]:
    """The first third of the rows weighs nearly nothing and wants nothing."""
    rng = torch.Generator().manual_seed(5)
    weight = torch.rand(N, M, generator=rng) * torch.linspace(0.5, 3, N)[:, None]
    wanted = torch.rand(N, M, generator=rng) < 0.5
    weight[:4], wanted[:4] = weight[:4] * 0.01, False
    shown = (torch.rand(N, M, generator=rng) < 0.2) & ~wanted
    y = (torch.rand(N, M, generator=rng) < 0.5).float()
    return {"x": torch.randn(N, IN, generator=rng), "y": y, "weight": weight, "wanted": wanted, "shown": shown}


def losses_and_gradients(rank: int, world_size: int) -> dict[str, Any]:
    share = slice(rank * N // world_size, (rank + 1) * N // world_size)
    batch = {key: value[share] for key, value in whole_batch().items()}
    batch["others"] = torch.randn(M, IN, generator=torch.Generator().manual_seed(6))
    results: dict[str, Any] = {}
    for name in LOSSES:
        tower = Tower()
        model = DistributedDataParallel(tower, find_unused_parameters=True) if world_size > 1 else tower
        loss = model(name, batch)
        loss.backward()
        gradients = {key: p.grad for key, p in tower.named_parameters()}
        results[name] = {"loss": mean_over_ranks(loss), **gradients}
    return results


@pytest.mark.parametrize("world_size", [2, 3])
def test_value_and_gradient_are_those_of_one_process(world_size: int, on_ranks: Callable[..., list[Any]]) -> None:
    expected = losses_and_gradients(0, 1)
    for found in on_ranks(losses_and_gradients, world_size):
        for name in LOSSES:
            for key, value in expected[name].items():
                torch.testing.assert_close(found[name][key], value, rtol=1e-5, atol=1e-7, msg=f"{name} {key}")
    assert all(value["rows.weight"].abs().sum() > 0.01 for value in expected.values())
