"""train_overhead: both loops do the same work, and what the command writes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from benchmarks.speed import train_overhead
from benchmarks.speed.train_overhead import OverheadConfig, by_loop, by_trainer
from configs.errors import UserError
from configs.load import load

SMALL = ["batch_size=64", "fields.block=4", "model.field_dim=8", "model.hidden=16", "model.dim=8", "model.dropout=0"]
I2I = [*SMALL, "bcl_batch_size=32", "objective.negatives=32", "objective.bcl_weight=0"]


def config(data: Path, *options: str) -> OverheadConfig:
    still = ["trainer.epochs=1", "optim.warmup=0"]  # no dropout, no views: nothing is drawn but the batches
    given = [f"data={data}", f"i2i={json.dumps([*I2I, *still])}", f"boundary={json.dumps([*SMALL, *still])}"]
    return load(OverheadConfig, [*given, *options])


@pytest.mark.parametrize("task", ["i2i", "boundary"])
def test_both_loops_train_the_same_model(task: str, catalogue_folder: Path, tmp_path: Path) -> None:
    """After an epoch from the same start the weights of the bare loop are those of train.py."""
    chosen, parts = train_overhead.tasks(config(catalogue_folder))[task]
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


def test_the_command(catalogue_folder: Path, tmp_path: Path) -> None:
    train_overhead.main(config(catalogue_folder, "rounds=1", "steps=3", f"out={tmp_path}/r.json"))
    report = json.loads((tmp_path / "r.json").read_text())
    for task in ("i2i", "boundary"):
        assert report[task]["ours_over_bare"] > 0.05 and 0 < report[task]["share_of_waiting_for_data"] < 1
    with pytest.raises(UserError, match="at least 1"):
        train_overhead.main(config(catalogue_folder, "rounds=0"))
