"""Gives a training the weights of an earlier run to start from."""

from __future__ import annotations

import lightning as L
from torch import Tensor


class StartWeights(L.Callback):
    """Loads weights before the first step, on every rank; a run that goes on has its own.

    The LightningModule has measured centre and scale of its inputs by then (`on_fit_start`): those of the earlier run
    take their place, which its weights were trained with.
    """

    def __init__(self, weights: dict[str, Tensor]) -> None:
        self.weights = weights

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Load them unless training resumes from a checkpoint."""
        if trainer.ckpt_path is None:
            pl_module.load_state_dict(self.weights)
