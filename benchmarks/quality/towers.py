"""The boundary towers trained by train.py's own parts, kept at the epoch that a benchmark's validation likes best.

Shapes: S songs, U users, D vector size.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import lightning as L
import numpy as np
import torch

from configs.training import BoundaryConfig
from data.arrays import FloatArray
from training.parts import boundary_parts

Judge = Callable[[FloatArray, FloatArray, FloatArray], tuple[float, Any]]


def best_epoch(config: BoundaryConfig, judge: Judge, patience: int = 0) -> Any:
    """Train; what `judge` kept of the epoch it valued most.

    `judge` sees the vectors of all songs (S, D) and users (U, D) and the boundary scores (U,), in the catalogue's order
    and with histories at the end of training time. With `patience`, so many epochs without a better one end training.
    """
    torch.manual_seed(config.seed)
    module, data, _ = boundary_parts(config)
    best = _Best(data, judge, patience)
    trainer = L.Trainer(
        max_epochs=config.trainer.epochs, accelerator=config.trainer.accelerator, devices=1, callbacks=[best],
        gradient_clip_val=1.0, limit_val_batches=0, num_sanity_val_steps=0, use_distributed_sampler=False,
        logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*(does not have many workers|val_dataloader).*")
        trainer.fit(module, datamodule=data)
    return best.kept


class _Best(L.Callback):
    def __init__(self, data: Any, judge: Judge, patience: int) -> None:
        self.data, self.judge, self.patience = data, judge, patience
        self.value, self.kept, self.since = -np.inf, None, 0

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Embed everything anew and ask the judge."""
        module: Any = pl_module.eval()
        catalogue = self.data.catalogue
        with torch.inference_mode():
            item = _embedded(module, self.data.songs_loader(np.arange(catalogue.n_songs)))
            user = _embedded(module, self.data.users_loader(np.arange(catalogue.n_users)))
        module.train()
        value, kept = self.judge(item["vector"], user["vector"], user["boundary"])
        self.since += 1
        if value > self.value:
            self.value, self.kept, self.since = value, kept, 0
        trainer.should_stop = bool(self.patience) and self.since >= self.patience


def _embedded(module: Any, loader: Any) -> dict[str, FloatArray]:
    """What the module predicts of all batches, on its device; arrays."""
    found = [module.predict_step(module.transfer_batch_to_device(one, module.device, 0), 0) for one in loader]
    return {key: torch.cat([one[key] for one in found]).float().cpu().numpy() for key in found[0] if key != "id"}
