"""Checkpoints that a kill cannot damage, a best one and a last one, and the seeding that makes resuming exact."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path
from typing import Any, cast

import lightning as L
import numpy as np
import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch.callbacks import Callback, ModelCheckpoint

from datamodules.batches import EpochBatches
from objectives.gather import sum_over_ranks

BEST, LAST = "best.ckpt", "last.ckpt"
LESS_IS_BETTER = ("val/bce",)


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint aside and renames it, so that `last.ckpt` is always whole; reads one where it is now."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        """Save under another name, then rename."""
        aside = Path(f"{path}.part")
        super().save_checkpoint(checkpoint, aside, storage_options)
        os.replace(aside, path)

    def load_checkpoint(self, path: Any, *how: Any, **options: Any) -> dict[str, Any]:
        """Load it; of a run folder that was moved, Lightning would forget which checkpoint is the best so far."""
        checkpoint = super().load_checkpoint(path, *how, **options)
        for state in checkpoint.get("callbacks", {}).values():
            if there := state.get("dirpath"):
                here = os.path.realpath(Path(path).parent)
                state |= {name: moved(value, there, here) for name, value in state.items()}
        return checkpoint


def moved(value: Any, there: str, here: str) -> Any:
    """A path below `there`, or what is told of such paths, as of paths below `here`; other values as they are."""
    if isinstance(value, dict):
        return {moved(name, there, here): of for name, of in value.items()}
    return here + value.removeprefix(there) if isinstance(value, str) and value.startswith(there) else value


class StepSeed(Callback):
    """Seeds torch from (seed, epoch, step, rank) at every step: dropout and views do not hang on when a run was killed.

    Step 0 of an epoch has the seed that the epoch's start has: whatever is drawn there may be drawn again.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Seed CPU and GPU generators."""
        self.on_train_batch_start(trainer, pl_module, None, 0)

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Seed CPU and GPU generators."""
        at = (self.seed, trainer.current_epoch, batch_idx, trainer.global_rank)
        torch.manual_seed(int(np.random.SeedSequence(at).generate_state(1, np.uint64)[0] >> 1))


class Progress(Callback):
    """Gives the batches the progress of training, and Lightning the number of batches that a resumed epoch has done."""

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """With another number of ranks than before, the batches done are others too.

        Lightning gives a loader its state while it makes it; ours has been made before, to count the steps of the
        learning rate's schedule, so that it is given its state here.
        """
        trainer.fit_loop._load_combined_loader_states()
        batches, progress = sampler(trainer), cast(Any, trainer.fit_loop.epoch_loop.batch_progress.current)
        if batches is None or batches.start[0] != trainer.current_epoch or not 0 < batches.start[1] < batches.n:
            return
        batches.set_epoch(trainer.current_epoch)
        shift = batches.steps_done() - progress.ready
        progress.ready, progress.started = progress.ready + shift, progress.started + shift
        progress.processed, progress.completed = progress.processed + shift, progress.completed + shift

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Record the rows seen, before a checkpoint is written (Lightning runs checkpoints after other callbacks)."""
        batches = sampler(trainer)
        if batches is None:
            return
        batches.seen = (trainer.current_epoch, batches.rows_after(batch_idx + 1))


class Stopped(SystemExit):
    """Training was ended by a signal, between two steps and with a checkpoint written."""


class StopOnSignal(Callback):
    """On SIGTERM (a preemption) all ranks write `last.ckpt` after the same step and leave.

    Ranks get a signal at different moments, in the middle of whatever they compute: the handler only takes a note, and
    they ask each other after every step. Lightning's own handler would gather within the signal, where another rank may
    be waiting for a gradient.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.asked = path, False

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Take the place of Lightning's handler, which it restores at the end."""
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, self._note)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Stop if a rank was asked to, but not after the last step of an epoch: its validation comes first."""
        asked = self.asked
        if trainer.world_size > 1:
            asked = bool(sum_over_ranks(torch.tensor(float(asked), device=pl_module.device)) > 0)
        if asked and batch_idx + 1 < trainer.num_training_batches:
            trainer.save_checkpoint(self.path, weights_only=False)  # told, or Lightning says that it was not
            raise Stopped(128 + signal.SIGTERM)

    def _note(self, *_: Any) -> None:
        self.asked = True


class StepCheckpoint(ModelCheckpoint):
    """Every so many steps, but for the last of an epoch: resumed from there, the epoch would miss its validation."""

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save unless this is the last step of an epoch."""
        if batch_idx + 1 < trainer.num_training_batches:
            super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)


def sampler(trainer: L.Trainer) -> EpochBatches | None:
    """The batches of the training data, if they are ours."""
    batches = getattr(trainer.train_dataloader, "sampler", None)
    return batches if isinstance(batches, EpochBatches) else None


def checkpoint_callbacks(folder: Path, monitor: str, steps: int = 0) -> list[Callback]:
    """`best.ckpt` by a validation metric, and `last.ckpt`, the one a run resumes from, after every epoch.

    The largest value is best, of LESS_IS_BETTER the smallest.
    `last.ckpt` is also written every so many `steps`, if that is not 0, and when a signal ends training.
    """
    common: dict[str, Any] = {"dirpath": folder, "enable_version_counter": False, "auto_insert_metric_name": False}
    mode = "min" if monitor in LESS_IS_BETTER else "max"
    best = ModelCheckpoint(filename="best", monitor=monitor, mode=mode, save_on_train_epoch_end=True, **common)
    last = ModelCheckpoint(filename="last", save_on_train_epoch_end=True, **common)
    often = StepCheckpoint(filename="last", save_on_train_epoch_end=False, every_n_train_steps=steps, **common)
    return [Progress(), StopOnSignal(folder / LAST), best, *([often] if steps else []), last]
