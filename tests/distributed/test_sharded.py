"""`trainer.strategy=fsdp`: weights divided among two ranks train like whole ones, also when a rank is killed."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from configs.data import PrepareConfig, WorldConfig
from configs.load import load
from pipeline import prepare, world
from tests.distributed.test_launch import ended, killing_train, launch, weights


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A catalogue with short recordings."""
    at = tmp_path_factory.mktemp("recordings")
    small = ["songs=64", "users=60", "truth_users=10", "seconds=1.5", "workers=1"]
    world.main(load(WorldConfig, [f"out={at}/world", *small]))
    prepare.main(load(PrepareConfig, [f"source={at}/world", f"out={at}/catalogue", "workers=0"]))
    return at / "catalogue"


def test_a_sharded_training_is_the_whole_one(recordings: Path, tmp_path: Path) -> None:
    """Our Transformer with the loss that has both parameters of its own; a rank is killed on the way."""
    options = [
        "clip", f"data={recordings}", "batch_size=12", "model.width=16", "model.layers=2", "model.heads=2",
        "model.dim=8", "model.dropout=0", "model.crop_seconds=1", "model.recompute=true",
        "objective.loss=siglip", "objective.freq_mask=0", "objective.time_mask=0",
        "trainer.epochs=1", "trainer.accelerator=cpu", "trainer.progress=false", "trainer.checkpoint_steps=1",
        "logger.wandb=off",
    ]  # fmt: skip
    whole, sharded = tmp_path / "whole", tmp_path / "sharded"
    ended(launch("torchrun.sh", [*options, f"out={whole}"], RANKS=2))
    killing_train(tmp_path, "clip", "ClipModule", (0, 2, 1))
    arguments = [*options, f"out={sharded}", "trainer.strategy=fsdp"]
    ended(launch("torchrun.sh", arguments, where=tmp_path, RANKS=2, RESTARTS=1))
    own, every = map(int, (tmp_path / "held").read_text().split())
    assert own < 0.6 * every, "a rank holds about half of the numbers"
    found, expected = weights(sharded), weights(whole)
    assert {"model.log_scale", "model.bias"} < found.keys()
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=2e-5)
