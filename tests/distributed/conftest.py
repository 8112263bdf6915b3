"""Runs a function in several gloo processes on this machine."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp


def _rank(rank: int, function: Callable[..., Any], world_size: int, folder: str, arguments: tuple[Any, ...]) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=world_size)
    try:
        torch.save(function(rank, world_size, *arguments), f"{folder}/result{rank}.pt")
        dist.barrier()
    finally:
        dist.destroy_process_group()


@pytest.fixture
def on_ranks(tmp_path: Path) -> Callable[..., list[Any]]:
    """`on_ranks(function, world_size, *arguments)` → [function(rank, world_size, *arguments) of every rank]."""

    def run(function: Callable[..., Any], world_size: int, *arguments: Any) -> list[Any]:
        mp.spawn(_rank, (function, world_size, str(tmp_path), arguments), nprocs=world_size)
        return [torch.load(tmp_path / f"result{rank}.pt", weights_only=True) for rank in range(world_size)]

    return run
