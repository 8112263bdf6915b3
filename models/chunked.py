"""Embedding many rows some at a time: in training without keeping their activations, at inference in one shape.

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
    """`embed` of all rows, (N, D), `size` rows at a time, for a batch whose activations do not fit into memory.

    Only the vectors are kept. The loss sees all of them, so that each row has every other as a negative; its gradient
    for the vectors then runs through one chunk after the other, which is embedded again for that, with the same random
    numbers. Loss and gradient are those of the whole batch at once (GradCache, Gao et al., arXiv 2101.06983), memory is
    that of one chunk. Adding up the gradients of small batches (`trainer.accumulate`) is another, weaker loss.

    Args:
        embed: rows → vectors (n, D), each row by itself.
        rows: what it takes.
        size: rows at a time; 0: all at once, activations kept.

    Raises:
        ValueError: `size` is negative.
    """
    if size < 0:
        raise ValueError(f"size must be 0 (all rows at once) or positive, got {size}")
    n = len(next(iter(rows.values())))
    if size == 0 or n <= size or not torch.is_grad_enabled():
        return embed(rows)
    parts = [{key: x[at : at + size] for key, x in rows.items()} for at in range(0, n, size)]
    return torch.cat([checkpoint(embed, part, use_reentrant=False) for part in parts])


def embed_in_fixed_batches(embed: Embed, rows: Rows) -> Tensor:
    """`embed` in batches of one constant size, the last one filled up with zeros.

    Matrix kernels are chosen by shape and round differently: with one shape only, a row's vector is the same to the
    last bit on a CPU whatever its batch. 32 rows, say crops of a recording, fit a CPU's cache.
    """
    first = next(iter(rows.values()))
    n, size = len(first), 32 if first.device.type == "cpu" else 512
    padded = {key: torch.cat([x, x.new_zeros(-n % size, *x.shape[1:])]) for key, x in rows.items()}
    parts = [embed({key: x[at : at + size] for key, x in padded.items()}) for at in range(0, n, size)]
    return torch.cat(parts)[:n]


def embed_crops(embed: Embed, crops: Rows) -> Tensor:
    """`embed` of all crops of recordings, (N, C, D); the crops are (N, C, …)."""
    n, c = next(iter(crops.values())).shape[:2]
    return embed({name: values.flatten(0, 1) for name, values in crops.items()}).view(n, c, -1)


def embed_recordings(embed: Embed, crops: Rows) -> Tensor:
    """Unit vectors of recordings, (N, D): the mean over their crops (N, C, …)."""
    return F.normalize(embed_crops(embed, crops).mean(dim=1), dim=-1)
