"""Mixed precision: the tasks train in bfloat16 nearly as in full precision; and where it is the default."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch

from configs.data import WorldConfig
from configs.load import load
from configs.training import ClipConfig, TrainerConfig
from pipeline import world
from tests.conftest import QUIET
from training import fit
from training.fit import attention, precision_of
from training.tasks import train_clip


def losses(run: Path) -> list[float]:
    with (run / "logs" / "metrics.csv").open() as file:
        found = [row.get("train/loss") or row.get("train/loss_step") for row in csv.DictReader(file)]
    return [float(value) for value in found if value]


def assert_alike(half: Path, full: Path) -> None:
    """Losses that are finite, not the same, and near."""
    one, other = losses(half), losses(full)
    assert len(one) == len(other) > 3 and np.isfinite(one).all() and one != other
    np.testing.assert_allclose(one, other, rtol=0.05)
    weights = torch.load(half / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    assert all(value.dtype != torch.bfloat16 and torch.isfinite(value).all() for value in weights.values())


@pytest.mark.parametrize("loss", ["bpr", "softmax"])
def test_the_song_encoder_trains_in_bfloat16(loss: str, train_i2i: Callable[..., Path], tmp_path: Path) -> None:
    options = [f"objective.pair_loss={loss}", "trainer.epochs=2"]
    full = train_i2i(tmp_path / "full", *options)
    half = train_i2i(tmp_path / "half", *options, "trainer.precision=bf16-mixed")
    assert_alike(half, full)


def test_the_towers_train_in_bfloat16(train_boundary: Callable[..., Path], tmp_path: Path) -> None:
    full = train_boundary(tmp_path / "full", "trainer.epochs=2")
    half = train_boundary(tmp_path / "half", "trainer.epochs=2", "trainer.precision=bf16-mixed")
    assert_alike(half, full)


def test_clip_trains_in_bfloat16_on_a_processor(prepare: Callable[..., Path], tmp_path: Path) -> None:
    size = ["songs=64", "users=60", "truth_users=10", "seconds=1.5", "workers=1"]
    world.main(load(WorldConfig, [f"out={tmp_path}/world", *size]))
    data = prepare(tmp_path / "world", tmp_path / "data")
    small = ["model.width=32", "model.layers=2", "model.heads=2", "model.dim=16", "model.crop_seconds=1"]
    still = ["model.dropout=0", "objective.freq_mask=0", "objective.time_mask=0", "batch_size=16", "trainer.epochs=2"]
    for precision in ("bf16-mixed", "32-true"):
        given = [f"data={data}", f"out={tmp_path}/{precision}", f"trainer.precision={precision}", *QUIET]
        train_clip(load(ClipConfig, [*given, *small, *still]))
    assert_alike(tmp_path / "bf16-mixed", tmp_path / "32-true")


@pytest.mark.parametrize(("precision", "fused"), [("bf16-mixed", False), ("32-true", True)])
def test_attention_is_not_fused_in_bfloat16_on_a_processor(precision: Any, fused: bool) -> None:
    trainer = L.Trainer(accelerator="cpu", precision=precision, logger=False, enable_checkpointing=False)
    assert torch.backends.cuda.flash_sdp_enabled()
    with attention(trainer):
        assert torch.backends.cuda.flash_sdp_enabled() is fused  # the switch is of CPUs, too
    assert torch.backends.cuda.flash_sdp_enabled()


@pytest.mark.parametrize(
    ("accelerator", "cuda", "bf16", "expected", "fast"),
    [
        ("auto", True, True, "bf16-mixed", "bf16-mixed"),
        ("gpu", True, True, "bf16-mixed", "bf16-mixed"),
        ("auto", True, False, "32-true", "32-true"),
        ("cpu", True, True, "32-true", "bf16-mixed"),
        ("cpu", True, False, "32-true", "32-true"),
        ("auto", False, True, "32-true", "bf16-mixed"),
        ("auto", False, False, "32-true", "32-true"),
    ],
)
def test_bfloat16_is_the_default_where_a_gpu_has_it(
    accelerator: str, cuda: bool, bf16: bool, expected: str, fast: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And, by "fast", where a processor has it."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: bf16)
    monkeypatch.setattr(fit, "has_bfloat16", lambda: bf16)
    assert precision_of(TrainerConfig(accelerator=accelerator)) == expected
    assert precision_of(TrainerConfig(accelerator=accelerator, precision="fast")) == fast
    assert precision_of(TrainerConfig(accelerator=accelerator, precision="16-mixed")) == "16-mixed"
