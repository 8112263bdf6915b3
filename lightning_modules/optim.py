"""The optimiser of all tasks: AdamW, linear warm-up, cosine decay to zero, one step of the schedule a batch.

Shapes: N rows of a table that a step touches, D vector size.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import lightning as L
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from objectives.gather import mean_rows_over_ranks

EPSILON = 1e-10  # as torch's Adagrad


def adamw(module: L.LightningModule, lr_scales: Mapping[str, float], undecayed: tuple[str, ...] = ()) -> dict[str, Any]:
    """What `configure_optimizers` returns, by the hyper-parameters `lr`, `weight_decay` and `warmup`.

    Biases, norms and scalars (fewer than two axes) have no decay; frozen parameters are left out. Tables with sparse
    gradients have row-wise Adagrad (`AdamWAndRows`).

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
    made = [
        {"params": parameters, "lr": options["lr"] * scale, "weight_decay": options["weight_decay"] * decayed}
        for (scale, decayed), parameters in groups.items()
    ]
    embeddings = [one for one in module.modules() if isinstance(one, nn.Embedding) and one.sparse]
    tables = [one.weight for one in embeddings if one.weight.requires_grad]
    optimizer = AdamWAndRows(made, tables) if tables else torch.optim.AdamW(made)
    warmup_steps = options["warmup"] * total_steps
    schedule = LambdaLR(optimizer, lambda step: warmup_cosine(step, warmup_steps, total_steps))
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


class AdamWAndRows(torch.optim.AdamW):
    """AdamW; tables with sparse gradients (`nn.Embedding(sparse=True)`) take steps of row-wise Adagrad instead.

    A step reads and writes the rows that the batch of all ranks has touched. It keeps one number a row, the sum of its
    mean squared gradients (as TorchRec's rowwise Adagrad). Adam would keep two more tables, and write all rows of all
    three. Every rank holds the same table. DDP is told to leave it alone (`I2IModule`), and its rows are not clipped:
    neither DDP over NCCL nor `clip_grad_norm_` takes sparse gradients, and a step of Adagrad hardly depends on a
    gradient's length.
    """

    def __init__(self, groups: list[dict[str, Any]], tables: list[Tensor]) -> None:
        super().__init__(groups)
        self.rows: dict[Tensor, Tensor] = {}  # gradients since the last step
        for table in tables:
            table.register_post_accumulate_grad_hook(self.take)

    def take(self, table: Tensor) -> None:
        """Put by the gradient of a backward pass, the mean over ranks."""
        assert table.grad is not None
        rows, table.grad = mean_rows_over_ranks(table.grad), None
        self.rows[table] = (self.rows[table] + rows).coalesce() if table in self.rows else rows

    def step(self, closure: Any = None) -> Any:
        """The tables' rows, then all else."""
        with torch.enable_grad():
            loss = closure() if closure is not None else None
        for group in self.param_groups:
            for table in group["params"]:
                if table in self.rows:
                    step_rows(table, self.rows.pop(table), group["lr"], self.state[table])
        super().step()
        return loss


@torch.no_grad()
def step_rows(table: Tensor, gradient: Tensor, lr: float, state: dict[str, Tensor]) -> None:
    """One step of row-wise Adagrad by a coalesced sparse gradient."""
    if not state:
        state |= {"step": torch.zeros(()), "sum": table.new_zeros(len(table))}  # AdamW looks for a step when loaded
    at_N, values_ND = gradient.indices()[0], gradient.values()
    sum_N = state["sum"][at_N] + values_ND.square().mean(dim=1)
    state["sum"][at_N] = sum_N
    table[at_N] -= lr * values_ND / (sum_N.sqrt() + EPSILON)[:, None]


def warmup_cosine(step: int, warmup_steps: float, total_steps: float) -> float:
    """Factor of the peak learning rate at a step, counted from 0."""
    if step < warmup_steps:
        return (step + 1) / (warmup_steps + 1)
    done = (step - warmup_steps) / max(1.0, total_steps - warmup_steps)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, done)))
