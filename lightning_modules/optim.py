"""The optimiser of all tasks: AdamW, linear warm-up, cosine decay to zero, one step of the schedule a batch."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR


def adamw(
    named_parameters: nn.Module | Iterable[tuple[str, nn.Parameter]],
    lr: float,
    weight_decay: float,
    warmup: float,
    total_steps: float,
    lr_scales: Mapping[str, float] | None = None,
    undecayed: tuple[str, ...] = (),
) -> dict[str, Any]:
    """What `configure_optimizers` returns.

    Args:
        named_parameters: a module, or its `named_parameters()`; frozen parameters are left out.
        lr: peak learning rate.
        weight_decay: decay of matrices; biases, norms and scalars (fewer than two axes) have none.
        warmup: share of all steps, 0 … 1, over which the rate rises linearly.
        total_steps: optimiser steps of the whole training (`trainer.estimated_stepping_batches`).
        lr_scales: learning-rate factor of the parameters whose name starts with a key.
        undecayed: beginnings of names that have no decay: a table of which a step sees few rows would lose the others.

    Raises:
        ValueError: warm-up is no share.
    """
    if not 0 <= warmup < 1:
        raise ValueError(f"warmup is a share of all steps, at least 0 and below 1, got {warmup}")
    named = named_parameters.named_parameters() if isinstance(named_parameters, nn.Module) else named_parameters
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for name, parameter in named:
        if parameter.requires_grad:
            scale = next((s for prefix, s in (lr_scales or {}).items() if name.startswith(prefix)), 1.0)
            decayed = parameter.ndim >= 2 and not name.startswith(undecayed)
            groups.setdefault((scale, decayed), []).append(parameter)
    optimizer = torch.optim.AdamW(
        [
            {"params": parameters, "lr": lr * scale, "weight_decay": weight_decay if decayed else 0.0}
            for (scale, decayed), parameters in groups.items()
        ]
    )
    schedule = LambdaLR(optimizer, lambda step: warmup_cosine(step, warmup * total_steps, total_steps))
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def warmup_cosine(step: int, warmup_steps: float, total_steps: float) -> float:
    """Factor of the peak learning rate at a step, counted from 0."""
    if step < warmup_steps:
        return (step + 1) / (warmup_steps + 1)
    done = (step - warmup_steps) / max(1.0, total_steps - warmup_steps)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, done)))
