"""Mixed precision: the tasks train in bfloat16 nearly as in full precision; and where it is the default."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from configs.training import TrainerConfig
from training.fit import precision_of


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


@pytest.mark.parametrize(
    ("accelerator", "cuda", "bf16", "expected"),
    [
        ("auto", True, True, "bf16-mixed"),
        ("gpu", True, True, "bf16-mixed"),
        ("auto", True, False, "32-true"),
        ("cpu", True, True, "32-true"),
        ("auto", False, False, "32-true"),
    ],
)
def test_bfloat16_is_the_default_where_a_gpu_has_it(
    accelerator: str, cuda: bool, bf16: bool, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: bf16)
    assert precision_of(TrainerConfig(accelerator=accelerator)) == expected
    assert precision_of(TrainerConfig(accelerator=accelerator, precision="16-mixed")) == "16-mixed"
