"""The optimiser of all tasks: AdamW, linear warm-up, cosine decay to zero, one step of the schedule a batch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import lightning as L
import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR


def adamw(module: L.LightningModule, lr_scales: Mapping[str, float], undecayed: tuple[str, ...] = ()) -> dict[str, Any]:
    """What `configure_optimizers` returns, by the hyper-parameters `lr`, `weight_decay` and `warmup`.

    Biases, norms and scalars (fewer than two axes) have no decay; frozen parameters are left out.

    Args:
        module: to be trained.
        lr_scales: learning-rate factor of the parameters whose name starts with a key.
        undecayed: beginnings of names that have no decay: a table of which a step sees few rows would lose the others.
    """
    options, total_steps = module.hparams, module.trainer.estimated_stepping_batches
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            scale = next((s for prefix, s in lr_scales.items() if name.startswith(prefix)), 1.0)
            decayed = parameter.ndim >= 2 and not name.startswith(undecayed)
            groups.setdefault((scale, decayed), []).append(parameter)
    optimizer = torch.optim.AdamW(
        {"params": parameters, "lr": options["lr"] * scale, "weight_decay": options["weight_decay"] * decayed}
        for (scale, decayed), parameters in groups.items()
    )
    warmup_steps = options["warmup"] * total_steps
    schedule = LambdaLR(optimizer, lambda step: warmup_cosine(step, warmup_steps, total_steps))
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def warmup_cosine(step: int, warmup_steps: float, total_steps: float) -> float:
    """Factor of the peak learning rate at a step, counted from 0."""
    if step < warmup_steps:
        return (step + 1) / (warmup_steps + 1)
    done = (step - warmup_steps) / max(1.0, total_steps - warmup_steps)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, done)))
