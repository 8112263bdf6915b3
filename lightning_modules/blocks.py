"""Block by block: weights divided among ranks (FSDP), and compilation."""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method


def blocks_of(model: nn.Module) -> list[nn.Module]:
    """The layers of each stack (`nn.ModuleList`) in a model, ours and those of published encoders."""
    return [block for stack in model.modules() if isinstance(stack, nn.ModuleList) for block in stack]


def shard(model: nn.Module, mesh: Any, methods: tuple[str, ...]) -> None:
    """Divide weights, gradients and optimiser state of each block, and of what is left, among the ranks of a mesh.

    A block is gathered when it is about to run and let go after it (Zhao et al., arXiv 2304.11277; torch's FSDP2).

    Args:
        model: the whole model; changed in place.
        mesh: one axis of ranks that see different data.
        methods: of the model that are called from outside and use its weights.
    """
    for block in blocks_of(model):
        fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh)
    for name in methods:
        register_fsdp_forward_method(model, name)


def compile_blocks(model: nn.Module) -> None:
    """Let torch.compile fuse each block when it first runs; blocks of one kind share code, names stay as they are."""
    for block in blocks_of(model):
        block.compile()
