"""Stop a short training when the songs left out no longer gain, and keep its best weights in memory."""

from __future__ import annotations

import lightning as L
from lightning.pytorch.callbacks import Callback
from torch import Tensor


class BestWeights(Callback):
    """Keeps the weights of the epoch with the least `val/loss`; stops after `patience` epochs without a better one.

    Where nothing is validated, the last weights are the best, and training stops after `patience` epochs.
    """

    def __init__(self, patience: int) -> None:
        self.patience, self.epochs, self.least = patience, 0, float("inf")
        self.weights: dict[str, Tensor] = {}

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Compare this epoch with the best one; Lightning has validated it before."""
        done = trainer.current_epoch + 1
        loss = float(trainer.callback_metrics.get("val/loss", -done))
        if loss < self.least:
            self.least, self.epochs = loss, done
            self.weights = {name: value.detach().cpu().clone() for name, value in pl_module.state_dict().items()}
        validated = "val/loss" in trainer.callback_metrics
        trainer.should_stop = done - (self.epochs if validated else 0) >= self.patience
