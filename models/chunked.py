"""Embed many rows in chunks: in training without keeping their activations, at inference in batches of one shape.

Shapes: N rows or recordings, C crops of a recording, D vector size. Rows are tensors by name that share their first
dimension.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

Rows = dict[str, Tensor]
Embed = Callable[[Rows], Tensor]


def embed_in_chunks(embed: Embed, rows: Rows, size: int) -> Tensor:
    """Embed all rows, (N, D), `size` at a time, for a batch whose activations do not fit into memory.

    The forward pass keeps the vectors only, so the loss sees the whole batch and every row has every other as a
    negative. The backward pass embeds each chunk again, with the same random numbers. Loss and gradient equal those of
    the whole batch at once (GradCache, Gao et al., arXiv 2101.06983) with the memory of one chunk. Accumulating the
    gradients of small batches (`trainer.accumulate`) is a different, weaker loss.

    Args:
        embed: rows → vectors (n, D), each row independently.
        rows: the input of `embed`.
        size: rows per chunk; 0: all at once, activations kept.
    """
    n = len(next(iter(rows.values())))
    if size == 0 or n <= size or not torch.is_grad_enabled():
        return embed(rows)
    parts = [{key: x[at : at + size] for key, x in rows.items()} for at in range(0, n, size)]
    return torch.cat([checkpoint(embed, part, use_reentrant=False) for part in parts])


def embed_in_fixed_batches(embed: Embed, rows: Rows) -> Tensor:
    """Embed rows in batches of one constant size, the last one padded with zeros.

    Matrix kernels are chosen by shape and round differently: with a single shape, a row's vector on a CPU is the same
    to the last bit whatever its batch. 32 rows fit a CPU's cache.
    """
    first = next(iter(rows.values()))
    n, size = len(first), 32 if first.device.type == "cpu" else 512
    # not by torch.cat, which refuses stored frames (float16) under autocast to bfloat16 on a CPU
    padded = {key: F.pad(x, [0] * (2 * x.ndim - 1) + [-n % size]) for key, x in rows.items()}
    parts = [embed({key: x[at : at + size] for key, x in padded.items()}) for at in range(0, n, size)]
    return torch.cat(parts)[:n]


def embed_crops(embed: Embed, crops: Rows) -> Tensor:
    """`embed` of all crops of recordings, (N, C, D); the crops are (N, C, …)."""
    n, c = next(iter(crops.values())).shape[:2]
    return embed({name: values.flatten(0, 1) for name, values in crops.items()}).view(n, c, -1)


def embed_recordings(embed: Embed, crops: Rows) -> Tensor:
    """Unit vectors of recordings, (N, D): the mean over their crops (N, C, …)."""
    return F.normalize(embed_crops(embed, crops).mean(dim=1), dim=-1)
