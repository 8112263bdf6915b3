"""Ends a training whose numbers are lost, before they are written anywhere."""

from __future__ import annotations

from typing import Any

import lightning as L
import torch
from torch import Tensor

from configs.errors import UserError
from objectives.gather import sum_over_ranks

EVERY = 50  # steps between two looks at the loss on a GPU, which each look makes wait


class DivergenceError(UserError):
    """A training lost its numbers: another learning rate mends it."""


class StopOnDivergence(L.Callback):
    """Raises DivergenceError on all ranks when a loss, a validation vector or a weight is NaN or infinite.

    It comes before the callbacks that use what was computed. Weights are looked at when a checkpoint is to be written,
    so that the last one is always good. `group` are the options that have the learning rate.
    """

    def __init__(self, group: str = "optim") -> None:
        self.lost, self.group = torch.tensor(False), group

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Note the loss; look at it now and then."""
        self._note(outputs)
        if pl_module.device.type == "cpu" or batch_idx % EVERY == 0:
            self._look(trainer, pl_module, "the loss")

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Look at the losses that nobody has looked at."""
        self._look(trainer, pl_module, "the loss")

    def on_validation_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, *_: Any) -> None:
        """Note the vectors."""
        self._note(outputs)

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Look at them before anyone searches among them."""
        self._look(trainer, pl_module, "a validation vector")

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Look at the weights, of which each rank may hold a part."""
        self._note([getattr(one, "to_local", lambda one=one: one)() for one in pl_module.parameters()])
        self._look(trainer, pl_module, "a weight")

    def _note(self, outputs: Any) -> None:
        values = outputs.values() if isinstance(outputs, dict) else outputs if isinstance(outputs, list) else [outputs]
        for value in values:
            if isinstance(value, Tensor) and value.is_floating_point():
                self.lost = self.lost.to(value.device) | ~value.detach().isfinite().all()

    def _look(self, trainer: L.Trainer, pl_module: L.LightningModule, what: str) -> None:
        lost = self.lost.to(pl_module.device, torch.float32)
        if trainer.world_size > 1:
            lost = sum_over_ranks(lost)
        if lost > 0:
            lr = pl_module.hparams.get("lr")  # type: ignore[call-overload]
            raise DivergenceError(
                f"training diverged at step {trainer.global_step} ({what} is NaN or infinite): lower "
                f"{self.group}.lr={lr:g}, or raise {self.group}.warmup"
            )
