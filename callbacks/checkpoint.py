"""Checkpoints that a kill cannot damage, a best one and a last one, and the seeding that makes resuming exact."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch.callbacks import Callback, ModelCheckpoint

BEST, LAST = "best.ckpt", "last.ckpt"


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint aside and renames it, so that `last.ckpt` is always whole."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        """Save, then rename."""
        aside = Path(f"{path}.part")
        super().save_checkpoint(checkpoint, aside, storage_options)
        os.replace(aside, path)


class EpochSeed(Callback):
    """Seeds torch from (seed, epoch, rank) every epoch: dropout and views do not depend on when a run was killed."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Seed CPU and GPU generators."""
        torch.manual_seed((self.seed * 1_000_003 + trainer.current_epoch) * 1_009 + trainer.global_rank)


def checkpoint_callbacks(folder: Path, monitor: str) -> list[Callback]:
    """`best.ckpt` by a validation metric, and `last.ckpt` after every epoch (the one a run resumes from)."""
    common: dict[str, Any] = {
        "dirpath": folder,
        "enable_version_counter": False,
        "save_on_train_epoch_end": True,
        "auto_insert_metric_name": False,
    }
    best = ModelCheckpoint(filename="best", monitor=monitor, mode="max", save_top_k=1, **common)
    last = ModelCheckpoint(filename="last", monitor=None, save_top_k=1, **common)
    return [best, last]
