"""train_overhead: both loops do the same work (what the command writes: test_speeds)."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from benchmarks.speed import train_overhead
from benchmarks.speed.train_overhead import OverheadConfig, by_loop, by_trainer
from configs.load import load
from tests.benchmarks.small import I2I, MODEL, listed


@pytest.mark.parametrize("task", ["i2i", "boundary"])
def test_both_loops_train_the_same_model(task: str, catalogue_folder: Path, tmp_path: Path) -> None:
    """After an epoch from the same start the weights of the bare loop are those of train.py."""
    still = ["model.dropout=0", "trainer.epochs=1", "optim.warmup=0", "optim.lr=1e-3"]  # nothing is drawn but batches
    i2i, boundary = listed([*I2I, "objective.bcl_weight=0", "objective.users=80", *still]), listed([*MODEL, *still])
    config = load(OverheadConfig, [f"data={catalogue_folder}", f"i2i={i2i}", f"boundary={boundary}"])
    chosen, parts = train_overhead.tasks(config)[task]
    trained = []

    def kept() -> object:
        torch.manual_seed(0)
        trained.append(parts())
        return trained[-1]

    torch.manual_seed(0)
    start = {name: value.clone() for name, value in parts()[0].named_parameters()}
    steps = len(parts()[1].train_dataloader())
    by_trainer(kept, chosen.trainer, tmp_path / "run", steps + 5)  # type: ignore[arg-type]
    by_loop(kept, chosen.trainer.clip_norm, steps)  # type: ignore[arg-type]
    ours, bare = (dict(module.named_parameters()) for module, _, _ in trained)
    assert steps > 3 and any((ours[name] - start[name]).abs().max() > 1e-3 for name in start)
    for name, weight in ours.items():
        torch.testing.assert_close(bare[name], weight, rtol=1e-3, atol=1e-5)
