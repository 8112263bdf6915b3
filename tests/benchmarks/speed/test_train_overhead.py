"""Both loops of train_overhead and clip_speed do the same work (what these write: test_speeds, test_clip_speed)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.speed import clip_speed, train_overhead
from benchmarks.speed.train_overhead import OverheadConfig, by_loop, by_trainer
from configs.load import load
from configs.training import TrainerConfig
from tests.benchmarks.small import I2I, MODEL, listed
from training.parts import clip_parts

STILL = ["trainer.epochs=1", "optim.warmup=0", "model.dropout=0"]  # nothing is drawn but batches


def assert_same(parts: Callable[[], Any], options: TrainerConfig, out: Path) -> None:
    """After an epoch from the same start the weights of the bare loop are those of train.py."""
    trained = []

    def kept() -> Any:
        torch.manual_seed(0)
        trained.append(parts())
        return trained[-1]

    start = {name: value.detach().clone() for name, value in kept()[0].named_parameters()}
    data = trained.pop()[1]
    data.prepare_data()
    data.setup("fit")
    steps = len(data.train_dataloader())
    by_trainer(kept, options, out, steps + 5)
    by_loop(kept, options.clip_norm, steps)
    ours, bare = (dict(module.named_parameters()) for module, *_ in trained)
    assert steps >= 3 and any((ours[name] - start[name]).abs().max() > 1e-3 for name in start)
    for name, weight in ours.items():
        torch.testing.assert_close(bare[name], weight, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("task", ["i2i", "boundary"])
def test_both_loops_train_the_same_model(task: str, catalogue_folder: Path, tmp_path: Path) -> None:
    slow = [*STILL, "optim.lr=1e-3"]
    i2i, boundary = (
        [*I2I, "objective.bcl_weight=0", "objective.users=80", "model.input_dropout=0", "batch_size=256", *slow],
        [*MODEL, *slow],
    )
    given = [f"data={catalogue_folder}", f"i2i={listed(i2i)}", f"boundary={listed(boundary)}"]
    chosen, parts = train_overhead.tasks(load(OverheadConfig, given))[task]
    assert_same(parts, chosen.trainer, tmp_path / "run")


def test_both_loops_train_the_same_clip(sounding: Path, prepare: Callable[..., Path], tmp_path: Path) -> None:
    data = prepare(sounding, tmp_path / "data", "split.by=random")
    tiny = ["model.dim=16", "model.width=16", "model.layers=1", "model.crop_seconds=1", "model.crops=1", *STILL]
    tiny += ["batch_size=32", "text.max_tokens=16", "objective.freq_mask=0", "objective.time_mask=0"]
    config = load(clip_speed.SpeedConfig, [f"data={sounding}", f"clip={listed([*tiny, 'objective.unpaired=0'])}"])
    chosen = clip_speed.options(config, data, tmp_path / "run")
    assert_same(lambda: (*clip_parts(chosen), []), chosen.trainer, tmp_path / "run")
