"""Row-wise Adagrad of a table with sparse gradients, beside AdamW: against a loop over rows, and on several ranks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from lightning_modules.optim import AdamWAndRows

ROWS, D = 9, 3
CODES = torch.tensor([[0, 1, 1, 4], [4, 4, 7, 0], [1, 0, 0, 0], [2, 7, 2, 1]])  # of four steps; 0 is padding


class Songs(nn.Module):
    """A table and a layer after it; a loss in which every row has its own gradient."""

    def __init__(self, sparse: bool = True) -> None:
        super().__init__()
        torch.manual_seed(1)
        self._ddp_params_and_buffers_to_ignore = ["table.weight"] if sparse else []
        self.table, self.layer = nn.Embedding(ROWS, D, padding_idx=0, sparse=sparse), nn.Linear(D, 2)

    def forward(self, codes_N: Tensor) -> Tensor:
        return self.layer(self.table(codes_N)).sin().square().mean()


def optimiser(songs: Songs) -> AdamWAndRows:
    groups = [{"params": [songs.table.weight], "lr": 0.3, "weight_decay": 0.0}, {"params": [*songs.layer.parameters()]}]
    return AdamWAndRows(groups, [songs.table.weight])


def steps(model: Any, optimizer: AdamWAndRows, codes: Tensor) -> None:
    for codes_N in codes:
        optimizer.zero_grad()
        optimizer.step(lambda codes_N=codes_N: model(codes_N).backward())


def by_hand() -> Songs:
    """Dense gradients, and a loop over rows."""
    songs = Songs(sparse=False)
    others = torch.optim.AdamW(songs.layer.parameters())
    sums = [0.0] * ROWS
    for codes_N in CODES:
        songs.zero_grad()
        songs(codes_N).backward()
        assert songs.table.weight.grad is not None
        with torch.no_grad():
            for row in sorted(set(codes_N.tolist()) - {0}):
                gradient = songs.table.weight.grad[row]
                sums[row] += float((gradient**2).mean())
                songs.table.weight[row] -= 0.3 * gradient / (sums[row] ** 0.5 + 1e-10)
        others.step()
    return songs


def test_rows_take_the_steps_of_a_loop_and_all_else_those_of_adamw() -> None:
    songs, expected, first = Songs(), by_hand(), Songs()
    optimizer = optimiser(songs)
    steps(songs, optimizer, CODES)
    torch.testing.assert_close(songs.state_dict(), expected.state_dict())
    untouched = sorted(set(range(ROWS)) - set(CODES.unique().tolist()) | {0})
    assert torch.equal(songs.table.weight[untouched], first.table.weight[untouched]) and len(untouched) == 5
    held = [x.numel() for x in optimizer.state[songs.table.weight].values()]
    assert sum(held) == ROWS + 1 and songs.table.weight.grad is None, "a number a row, and no gradient of all rows"


def test_gradients_of_several_backward_passes_add_up() -> None:
    one, two = Songs(), Songs()
    once, twice = optimiser(one), optimiser(two)
    (one(CODES[0]) + one(CODES[1])).backward()
    two(CODES[0]).backward(), two(CODES[1]).backward()
    once.step(), twice.step()
    torch.testing.assert_close(two.state_dict(), one.state_dict())


def test_it_goes_on_from_its_state() -> None:
    whole = Songs()
    steps(whole, optimiser(whole), CODES)
    half, later = Songs(), Songs()
    before, after = optimiser(half), optimiser(later)
    steps(half, before, CODES[:2])
    later.load_state_dict(half.state_dict()), after.load_state_dict(before.state_dict())
    steps(later, after, CODES[2:])
    torch.testing.assert_close(later.state_dict(), whole.state_dict(), rtol=0, atol=0)


def on_rank(rank: int, world_size: int) -> dict[str, Tensor]:
    songs = Songs()
    model = DistributedDataParallel(songs) if world_size > 1 else songs
    steps(model, optimiser(songs), CODES.chunk(world_size, dim=1)[rank])
    return songs.state_dict()


def test_two_ranks_with_other_rows_are_one_process(on_ranks: Callable[..., list[Any]]) -> None:
    expected = on_rank(0, 1)
    found = on_ranks(on_rank, 2)
    for state in found:
        torch.testing.assert_close(state, expected, rtol=1e-5, atol=1e-6)
    assert torch.equal(found[0]["table.weight"], found[1]["table.weight"]), "tables do not drift apart"
