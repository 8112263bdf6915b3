"""Losses on two and three ranks with unlike rows: value and gradient of one process with the whole batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from configs.training import I2IConfig
from lightning_modules.i2i import I2IModule
from models.chunked import embed_in_chunks
from objectives.boundary import boundary_loss
from objectives.contrastive import clip_loss, info_nce, siglip_loss
from objectives.gather import gather_rows, gather_with_grad, mean_over_ranks, sum_over_ranks
from objectives.ranking import bpr_loss, listening_loss
from tests.conftest import module_options

N, M, IN, D = 12, 5, 7, 4


class Towers(nn.Module):
    """Two linear towers and a temperature, as every contrastive step here has them; M fixed rows beside the batch."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.left, self.right = nn.Linear(IN, D), nn.Linear(IN, D)
        self.log_scale = nn.Parameter(torch.tensor(1.5))

    def forward(self, name: str, batch: dict[str, Tensor]) -> Tensor:
        return self.contrastive(name, batch) if name in CONTRASTIVE else self.weighted(name, batch)

    def contrastive(self, name: str, batch: dict[str, Tensor]) -> Tensor:
        size = 3 if name == "clip in chunks" else 0  # of three ranks' 4 rows the second chunk is short
        left_GD = gather_with_grad(embed_in_chunks(lambda part: self.left(part["x"]), {"x": batch["x"]}, size))
        right_GD = gather_with_grad(self.right(batch["y"]))
        ids_G = gather_with_grad(batch["ids"])
        if name == "info_nce":
            return info_nce(left_GD, right_GD, 0.2, ids_G, gather_with_grad(batch["valid"]))
        same_GG = ids_G[:, None] == ids_G
        if name == "siglip":
            return siglip_loss(left_GD, right_GD, self.log_scale.exp(), -1.0, same_GG)
        return clip_loss(left_GD, right_GD, self.log_scale.exp(), same_GG)

    def weighted(self, name: str, batch: dict[str, Tensor]) -> Tensor:
        others = torch.randn(M, IN, generator=torch.Generator().manual_seed(6))
        row_ND, other_MD = self.left(batch["x"]), self.right(others)
        if name == "boundary":
            edge_N1 = row_ND.sum(dim=1, keepdim=True)
            return boundary_loss(row_ND @ other_MD.T, edge_N1, batch["liked"], 0.3, batch["weight"])
        if name == "bpr":
            return bpr_loss(row_ND, row_ND.flip(1), other_MD, batch["weight"] > 0.5)
        return listening_loss(row_ND @ other_MD.T, batch["wanted"], batch["shown"], users_weight=0.0)


CONTRASTIVE = ("clip", "clip in chunks", "siglip", "info_nce")
LOSSES = (*CONTRASTIVE, "boundary", "bpr", "listening")


def whole_batch() -> dict[str, Tensor]:
    """The first third of the rows weighs nearly nothing and wants nothing; songs 0 and 1 occur on several ranks."""
    rng = torch.Generator().manual_seed(5)
    x, y = torch.randn(2, N, IN, generator=rng)
    ids = torch.tensor([0, 1, 2, 3, 4, 5, 1, 7, 0, 9, 10, 11])
    valid = torch.tensor([True] * 4 + [False] + [True] * 5 + [False, True])
    weight = torch.rand(N, M, generator=rng) * torch.linspace(0.5, 3, N)[:, None]
    wanted = torch.rand(N, M, generator=rng) < 0.5
    weight[:4], wanted[:4] = weight[:4] * 0.01, False
    shown = (torch.rand(N, M, generator=rng) < 0.2) & ~wanted
    liked = (torch.rand(N, M, generator=rng) < 0.5).float()
    contrastive = {"x": x, "y": y, "ids": ids, "valid": valid}
    return contrastive | {"liked": liked, "weight": weight, "wanted": wanted, "shown": shown}


def losses_and_gradients(rank: int, world_size: int) -> dict[str, Any]:
    share = slice(rank * N // world_size, (rank + 1) * N // world_size)
    batch = {key: value[share] for key, value in whole_batch().items()}
    results: dict[str, Any] = {}
    for name in LOSSES:
        towers = Towers()
        model = DistributedDataParallel(towers, find_unused_parameters=True) if world_size > 1 else towers
        loss = model(name, batch)
        loss.backward()
        gradients = {key: p.grad for key, p in towers.named_parameters() if p.grad is not None}
        results[name] = {"loss": mean_over_ranks(loss.detach()), **gradients}
    return results


@pytest.mark.parametrize("world_size", [2, 3])
def test_value_and_gradient_are_those_of_one_process(world_size: int, on_ranks: Callable[..., list[Any]]) -> None:
    expected = losses_and_gradients(0, 1)
    for found in on_ranks(losses_and_gradients, world_size):
        for name in LOSSES:
            for key, value in expected[name].items():
                torch.testing.assert_close(found[name][key], value, rtol=1e-5, atol=1e-6, msg=f"{name} {key}")
    assert all(value["left.weight"].abs().max() > 1e-3 for value in expected.values()), (
        "zeros would agree with anything"
    )


def ragged(rank: int, world_size: int) -> list[Tensor]:
    rows = torch.arange(3.0, requires_grad=True)[: 3 * rank].unsqueeze(1)  # rank 0 brings nothing
    return [gather_rows(rows), gather_rows(torch.full((2 + rank,), rank))]


def test_gather_rows_takes_ragged_and_empty_ranks(on_ranks: Callable[..., list[Any]]) -> None:
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
    options: dict[str, Any] = {
        "field_dim": 4,
        "hidden": 8,
        "dim": 6,
        "dropout": 0.0,
        "input_dropout": 0.0,
        "block": 64,
        "augment": "noise",
        "noise_std": 0.0,
    }
    options = module_options(I2IConfig, residual_size=0, **options)
    module = I2IModule({"audio": 8, "text": 6}, {"genres": 5, "tags": 5}, **options)
    fields = {"audio": torch.randn(N, 8), "text": torch.randn(N, 6)}
    fields |= {name: torch.randint(0, 5, (N, 2)) for name in ("genres", "tags")}
    share = slice(rank * N // world_size, (rank + 1) * N // world_size)
    torch.manual_seed(rank)  # ranks do not share torch's own randomness
    results = {}
    for seed in range(4):
        module.zero_grad()
        e_NFE, present_NF = module.model.embedding({name: x[share] for name, x in fields.items()})
        ids = torch.arange(N)[share]
        drawn = {"drawn": torch.arange(len(ids)), "drawn_ids": ids, "views_seed": seed}
        whole_ND, _ = module.model.content(e_NFE, present_NF)
        loss, left_out = module.contrastive_loss(drawn, e_NFE, present_NF, whole_ND)
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
