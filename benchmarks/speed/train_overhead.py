"""What Lightning, logging and data loading cost: steps of train.py beside the same steps in a bare PyTorch loop.

    OMP_NUM_THREADS=1 python -m benchmarks.speed.train_overhead data=runs/demo/catalogue features=runs/demo/features \\
        out=runs/train_overhead.json

For the song encoder and the towers, in turns: the trainer that train.py builds, with its callbacks and CSV log; and a
loop that draws the same batches, calls the same `training_step` with its logging switched off, clips and steps.
Written: steps a second, the median of the ratios, and the share of the bare loop that waits for data.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning as L
import numpy as np
import torch
from omegaconf import MISSING
from tqdm import tqdm

from benchmarks.measure import tell
from callbacks.audience_recall import AudienceRecall
from callbacks.boundary_margin import BoundaryMargin
from callbacks.correlation import FeatureCorrelation
from configs.load import command, load
from configs.options import LoggerConfig, at_least, opt
from configs.targeting import TargetingConfig
from configs.training import BoundaryConfig, I2IConfig, TrainerConfig
from inference.targeting import options_of
from training.fit import build_trainer
from training.parts import boundary_parts, i2i_parts

WARMUP = 3  # steps that are not timed
QUIET = ["logger.wandb=off", "trainer.progress=false", "trainer.accelerator=cpu", "trainer.epochs=1000"]
Parts = Callable[[], tuple[Any, Any, list[Any]]]  # new LightningModule, DataModule, callbacks


@dataclass
class OverheadConfig:
    """Options of this benchmark."""

    data: str = opt(MISSING, "catalogue folder")
    features: str | None = opt(None, "feature folder")
    rounds: int = opt(9, "rounds, in each of which both loops run")
    steps: int = opt(40, "timed steps a loop and round")
    i2i: list[str] = opt([], "options of train.py i2i")
    boundary: list[str] = opt([], "options of train.py boundary")
    out: str | None = opt(None, "JSON file to write")


def main(config: OverheadConfig) -> None:
    """Run the command (see the module's docstring)."""
    at_least(config, 1, "rounds", "steps")
    report = {
        task: side_by_side(parts, chosen.trainer, config.rounds, config.steps, task)
        for task, (chosen, parts) in tasks(config).items()
    }
    tell(config, {"threads": torch.get_num_threads(), **report})


def tasks(config: OverheadConfig) -> dict[str, tuple[Any, Parts]]:
    """Options of each task, and how its parts are made anew."""
    given = [f"data={config.data}", "out=unused", *QUIET]
    if config.features:
        given.append(f"features={config.features}")
    i2i = load(I2IConfig, [*given, *config.i2i])
    boundary = load(BoundaryConfig, [*given, *config.boundary])
    served = i2i.recall_mode, options_of(TargetingConfig())
    return {
        "i2i": (i2i, lambda: (*i2i_parts(i2i)[:2], [FeatureCorrelation(), AudienceRecall(20, 50, *served)])),
        "boundary": (boundary, lambda: (*boundary_parts(boundary)[:2], [BoundaryMargin(20, boundary.objective.alpha)])),
    }


def side_by_side(parts: Parts, options: TrainerConfig, rounds: int, steps: int, name: str) -> dict[str, float]:
    """Steps a second by the trainer and by the bare loop, medians over rounds of one beside the other."""
    ours, bare, waits = [], [], []
    with tempfile.TemporaryDirectory() as folder:
        for turn in tqdm(range(rounds), name):
            ours.append(1 / by_trainer(parts, options, Path(folder) / str(turn), WARMUP + steps))
            seconds, waited = by_loop(parts, options.clip_norm, WARMUP + steps)
            bare.append(1 / seconds)
            waits.append(waited / seconds)
    return {
        "steps_a_second": float(np.median(ours)),
        "steps_a_second_bare": float(np.median(bare)),
        "ours_over_bare": float(np.median(np.divide(ours, bare))),
        "share_of_waiting_for_data": float(np.median(waits)),
    }


class Clock(L.Callback):
    """When each training batch ended."""

    def __init__(self, steps: int) -> None:
        self.steps = steps
        self.ends: list[float] = []

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any, **__: Any) -> None:
        """Write the time down; enough is enough."""
        self.ends.append(time.perf_counter())
        trainer.should_stop = len(self.ends) >= self.steps


def by_trainer(parts: Parts, options: TrainerConfig, out: Path, steps: int) -> float:
    """Seconds a step of train.py, logging and all; ends of epochs, with validation, are longer and no median."""
    module, data, callbacks = parts()
    clock = Clock(steps)
    trainer = build_trainer("", out, options, LoggerConfig("off"), {}, 0, [*callbacks, clock], "train/loss")
    trainer.fit(module, data)
    return float(np.median(np.diff(clock.ends)[WARMUP - 1 :]))


def by_loop(parts: Parts, clip_norm: float, steps: int) -> tuple[float, float]:
    """Seconds a step, and of these in waiting for data, of the same work without Lightning."""
    module, data, _ = parts()
    data.prepare_data()
    data.setup("fit")
    module.log = module.log_dict = lambda *_, **__: None
    module.trainer = SimpleNamespace(estimated_stepping_batches=steps, datamodule=data, ckpt_path=None)
    module.on_fit_start()
    made = module.train().configure_optimizers()
    optimizer, schedule = made["optimizer"], made["lr_scheduler"]["scheduler"]
    seconds, waits = [], []
    batches = (batch for _ in count() for batch in data.train_dataloader())
    for index in range(steps):
        started = time.perf_counter()
        batch = next(batches)
        waits.append(time.perf_counter() - started)
        optimizer.zero_grad()
        module.training_step(batch, index).backward()
        torch.nn.utils.clip_grad_norm_(module.parameters(), clip_norm)
        optimizer.step()
        schedule.step()
        seconds.append(time.perf_counter() - started)
    return float(np.median(seconds[WARMUP:])), float(np.median(waits[WARMUP:]))


if __name__ == "__main__":
    command(main, OverheadConfig, __doc__)
