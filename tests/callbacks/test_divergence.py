"""A training that diverges ends in one line on all ranks, and its run keeps what was good."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from configs.errors import UserError
from lightning_modules.i2i import I2IModule
from tests.callbacks.test_resume import states
from tests.conftest import i2i_options
from tests.distributed.test_launch import launch

LOST = r"training diverged at step \d+ \(.* is NaN or infinite\): lower optim\.lr=1e\+06, or raise optim\.warmup"


def test_a_learning_rate_beyond_all_reason_is_one_line(
    train_i2i: Callable[..., Path], train_boundary: Callable[..., Path], tmp_path: Path
) -> None:
    for train in (train_i2i, train_boundary):
        with pytest.raises(UserError, match=LOST):
            train(tmp_path / "run", "optim.lr=1e6")
    assert not os.listdir(tmp_path), "no checkpoint, no run"


@pytest.mark.parametrize("what", ["the loss", "a validation vector", "a weight"])
def test_the_run_keeps_its_last_good_checkpoint(
    what: str, train_i2i: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lost in epoch 1: in the loss of its step 2, in its validation, or in its weights when all else is well."""
    train, validate = I2IModule.training_step, I2IModule.validation_step

    def step(module: I2IModule, batch: Any, index: int) -> Any:
        loss = train(module, batch, index)
        return loss * torch.inf if (module.current_epoch, index, what) == (1, 2, "the loss") else loss

    def vectors(module: I2IModule, batch: Any, index: int, dataloader_idx: int = 0) -> Any:
        found = validate(module, batch, index, dataloader_idx)
        if module.current_epoch == 1 and what == "a weight":
            module.logit_scale.data.fill_(torch.nan)  # of the loss alone
        lost = module.current_epoch == 1 and what == "a validation vector"
        return found | {"vector": found["vector"] * torch.nan} if lost else found

    monkeypatch.setattr(I2IModule, "training_step", step)
    monkeypatch.setattr(I2IModule, "validation_step", vectors)
    out = tmp_path / "i2i"
    with pytest.raises(UserError, match=f"diverged at step .*{what} is NaN"):
        train_i2i(out, "trainer.checkpoint_steps=1")
    kept = states(out)
    assert all(value.isfinite().all() for value in kept["state_dict"].values())
    assert all(value.isfinite().all() for value in states(out, "best.ckpt")["state_dict"].values())
    monkeypatch.undo()
    train_i2i(out, "trainer.checkpoint_steps=1")
    assert states(out)["epoch"] == 2, "it goes on from there"


def test_all_ranks_stop(catalogue_folder: Path, tmp_path: Path) -> None:
    options = [*i2i_options(catalogue_folder, tmp_path / "out"), "optim.lr=1e6"]
    process = launch("torchrun.sh", ["i2i", *options], RANKS=2, RESTARTS=0)
    errors = process.communicate(timeout=240)[1]
    said = [line for line in errors.splitlines() if line.startswith("error: training diverged at step ")]
    assert process.returncode and len(said) == 2 and said[0] == said[1], errors[-3000:]
