"""Gather rows over ranks, with and without gradient.

In contrastive training on many devices every rank gathers the vectors of all ranks and computes the loss of the whole
global batch. The backward of the gather sums the gradients that all ranks have for a row; DDP's mean over W ranks then
cancels the W equal losses, so the gradient is that of a single process with the whole batch
(tests/distributed/test_objectives.py).

Shapes: N rows on this rank, W ranks, D vector size.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.nn.functional import all_gather


def gather_with_grad(x_ND: Tensor) -> Tensor:
    """Gather the rows of all ranks in rank order, (W·N, D), differentiably; the input itself without a process group.

    Shapes must be equal on all ranks (training batches are full: `datamodules.batches`).
    """
    return torch.cat(all_gather(x_ND)) if _many_ranks() else x_ND


def gather_rows(x: Tensor) -> Tensor:
    """Gather the rows of all ranks in rank order, without gradient; ranks may differ in their number of rows (≥ 0)."""
    if not _many_ranks():
        return x.detach()
    sizes_W = [torch.zeros(1, dtype=torch.long, device=x.device) for _ in range(dist.get_world_size())]
    dist.all_gather(sizes_W, torch.tensor([len(x)], device=x.device))
    counts = [int(size) for size in sizes_W]
    padded = x.new_zeros(max(counts), *x.shape[1:])
    padded[: len(x)] = x.detach()
    blocks = [torch.empty_like(padded) for _ in counts]
    dist.all_gather(blocks, padded)
    return torch.cat([block[:count] for block, count in zip(blocks, counts, strict=True)])


def _many_ranks() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def mean_over_ranks(x: Tensor) -> Tensor:
    """Element-wise mean over ranks, without gradient.

    The divisor of weighted losses: each rank divides its sum by the mean weight over ranks, so that DDP's mean is the
    weighted mean of the whole batch.
    """
    return sum_over_ranks(x) / (dist.get_world_size() if _many_ranks() else 1)


def sum_over_ranks(x: Tensor) -> Tensor:
    """Element-wise sum over ranks, without gradient; shapes must be equal on all ranks."""
    if not _many_ranks():
        return x.detach()
    total = x.detach().clone()
    dist.all_reduce(total)
    return total


def mean_rows_over_ranks(rows: Tensor) -> Tensor:
    """Mean over ranks of a sparse gradient of rows, (R, D), coalesced, without gradient; ranks may have other rows."""
    rows = rows.detach().coalesce()
    if not _many_ranks():
        return rows
    at_N, values_ND = gather_rows(rows.indices()[0]), gather_rows(rows.values()) / dist.get_world_size()
    return torch.sparse_coo_tensor(at_N[None], values_ND, rows.shape).coalesce()
