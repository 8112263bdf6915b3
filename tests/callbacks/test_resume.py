"""Kill a training run at any moment: run again, it ends with the very weights of a run that nobody disturbed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from callbacks.checkpoint import BEST, LAST, StepSeed
from callbacks.correlation import FeatureCorrelation
from configs.errors import UserError
from lightning_modules.i2i import I2IModule
from tests.conftest import i2i_options

ROOT = Path(__file__).parents[2]


class Killed(BaseException):
    """Stands for a SIGKILL: nothing catches it."""


def states(run: Path, name: str = LAST) -> dict[str, Any]:
    return torch.load(run / "checkpoints" / name, weights_only=True)


def assert_same(one: Any, other: Any, where: str = "") -> None:
    """Bit by bit, through dicts and lists."""
    assert type(one) is type(other), where
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other), where
    elif isinstance(one, dict):
        assert one.keys() == other.keys(), where
        for key in one:
            assert_same(one[key], other[key], f"{where}.{key}")
    elif isinstance(one, list | tuple):
        assert len(one) == len(other), where
        for i, (a, b) in enumerate(zip(one, other, strict=True)):
            assert_same(a, b, f"{where}[{i}]")
    else:
        assert one == other, where


def assert_same_run(run: Path, undisturbed: Path) -> None:
    for name in (LAST, BEST):
        got, expected = states(run, name), states(undisturbed, name)
        for part in ("state_dict", "optimizer_states", "lr_schedulers", "epoch", "global_step"):
            assert_same(got[part], expected[part], f"{name}:{part}")
    assert (run / "manifest.json").read_text() == (undisturbed / "manifest.json").read_text()
    assert not list(run.rglob("*.part*")), "half-written files are left"


def kill_when(
    patch: pytest.MonkeyPatch, owner: Any, name: str, condition: Callable[..., bool], error: type = Killed
) -> None:
    """Raise an error on entering `owner.name` where the condition on its arguments holds."""
    real = getattr(owner, name)

    def wrapped(*arguments: Any, **options: Any) -> Any:
        if condition(*arguments):
            raise error
        return real(*arguments, **options)

    patch.setattr(owner, name, wrapped)


MOMENTS: dict[str, tuple[Any, str, Callable[..., bool]]] = {
    "start of epoch 1": (StepSeed, "on_train_epoch_start", lambda _, trainer, __: trainer.current_epoch == 1),
    "middle of epoch 1, with workers": (I2IModule, "training_step", lambda m, _, i: m.current_epoch == 1 and i == 3),
    "middle of epoch 0": (I2IModule, "training_step", lambda m, _, i: m.current_epoch == 0 and i == 3),
    "validation of epoch 2": (I2IModule, "validation_step", lambda m, *_: m.current_epoch == 2),
    "between writing and renaming last.ckpt": (
        os,
        "replace",
        lambda source, target: str(target).endswith(LAST) and torch.load(source, weights_only=True)["epoch"] == 1,
    ),
    "before the manifest says finished": ("training.fit", "finish_run", lambda *_: True),
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_killed_and_resumed_ends_with_the_same_weights(
    moment: str, i2i_run: Path, train_i2i: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner, name, condition = MOMENTS[moment]
    owner = sys.modules[owner] if isinstance(owner, str) else owner
    out = tmp_path / "i2i"
    # Workers prefetch: asked too early, they would bring the batches of epoch 0.
    options = ["trainer.workers=1"] if "workers" in moment else []
    with monkeypatch.context() as patch, pytest.raises(Killed):
        kill_when(patch, owner, name, condition)
        train_i2i(out, *options)
    torch.manual_seed(99)  # what happened in the process meanwhile does not matter
    train_i2i(out, *options)
    assert_same_run(out, i2i_run)


@pytest.mark.parametrize("moment", ["validation of epoch 2", "before the manifest says finished"])
def test_a_killed_run_may_be_moved(
    moment: str, train_i2i: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its best checkpoint stays the best: here that of the first epoch, after which it learns nothing good."""
    monkeypatch.setattr(I2IModule, "on_validation_epoch_end", worse_and_worse, raising=False)
    undisturbed = train_i2i(tmp_path / "undisturbed")
    assert states(undisturbed, BEST)["epoch"] == 0
    owner, name, condition = MOMENTS[moment]
    owner = sys.modules[owner] if isinstance(owner, str) else owner
    with monkeypatch.context() as patch, pytest.raises(Killed):
        kill_when(patch, owner, name, condition)
        train_i2i(tmp_path / "there")
    (tmp_path / "there").rename(tmp_path / "here")
    train_i2i(tmp_path / "here")
    assert_same_run(tmp_path / "here", undisturbed)


def worse_and_worse(module: I2IModule) -> None:
    """The figure that chooses the best checkpoint falls from epoch to epoch."""
    module.trainer.callback_metrics["val/audience"] = torch.tensor(-float(module.current_epoch))


@pytest.mark.parametrize("workers", [0, 1])
def test_with_checkpoints_within_an_epoch_no_step_is_done_twice(
    workers: int, i2i_run: Path, train_i2i: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed within epoch 1, some steps after a checkpoint (every third step, counted over the epochs)."""
    out, steps = tmp_path / "i2i", states(i2i_run)["global_step"] // 3
    options = ["trainer.checkpoint_steps=3", f"trainer.workers={workers}"]
    done: list[tuple[int, int]] = []
    real = I2IModule.training_step

    def step(module: I2IModule, batch: Any, index: int) -> Any:
        if len(done) == steps + 3:
            raise Killed
        done.append((module.current_epoch, index))
        return real(module, batch, index)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(I2IModule, "training_step", step)
        train_i2i(out, *options)
    written = states(out)
    first = written["global_step"]
    assert first % 3 == 0 and steps < first < steps + 3, "in the middle of epoch 1"
    before, done[:] = done[:first], []
    torch.manual_seed(99)
    with monkeypatch.context() as patch:
        patch.setattr(I2IModule, "training_step", lambda *given: done.append(given[0].current_epoch) or real(*given))
        train_i2i(out, *options)
    assert len(before) + len(done) == 3 * steps and done[0] == 1, "it went on where the checkpoint was"
    assert_same_run(out, i2i_run)


@pytest.mark.parametrize("moment", ["validation", "epoch end"])
def test_a_checkpoint_at_the_last_step_of_an_epoch_skips_no_validation(
    moment: str, i2i_run: Path, train_i2i: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, steps = tmp_path / "i2i", states(i2i_run)["global_step"] // 3
    with monkeypatch.context() as patch, pytest.raises(Killed):
        if moment == "validation":
            kill_when(patch, I2IModule, "validation_step", lambda module, *_: module.current_epoch == 1)
        else:
            kill_when(patch, FeatureCorrelation, "on_train_epoch_start", lambda _, t, __: t.current_epoch == 2)
        train_i2i(out, f"trainer.checkpoint_steps={steps}")
    train_i2i(out, f"trainer.checkpoint_steps={steps}")
    assert_same_run(out, i2i_run)


STOPPED = """
import os, sys
from configs.load import load
from configs.training import I2IConfig
from lightning_modules.i2i import I2IModule
from training.tasks import train_i2i
real = I2IModule.training_step
def step(module, batch, index):
    if (module.current_epoch, index) == (1, 2):
        os.kill(os.getpid(), int(sys.argv[1]))
    return real(module, batch, index)
I2IModule.training_step = step
train_i2i(load(I2IConfig, sys.argv[2:]))
"""


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGKILL])
def test_a_signal_to_a_run_in_another_process(
    sent: int, i2i_run: Path, catalogue_folder: Path, train_i2i: Callable[..., Path], tmp_path: Path
) -> None:
    """In the middle of epoch 1. On SIGTERM the step is finished and written; then all is as if nothing had happened."""
    out, steps = tmp_path / "i2i", states(i2i_run)["global_step"] // 3
    argv = [sys.executable, "-c", STOPPED, str(int(sent)), *i2i_options(catalogue_folder, out)]
    ended = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True)
    stopped = sent == signal.SIGTERM
    assert ended.returncode == (128 + sent if stopped else -sent), ended.stderr[-2000:]
    assert (f"stopped by a signal at step {steps + 3}; run the same command again" in ended.stdout) == stopped
    assert states(out)["global_step"] == steps + 3 * stopped
    train_i2i(out)
    assert_same_run(out, i2i_run)


def test_what_is_resumed_has_residuals_and_histories(i2i_run: Path) -> None:
    """Or else the tests above would say nothing of them."""
    options, state = yaml.safe_load((i2i_run / "config.yaml").read_text()), states(i2i_run)["state_dict"]
    assert options["objective"]["listening_weight"] > 0 and options["model"]["residual"] is True
    assert (state["residual.weight"][1:] != 0).any() and (state["residual.weight"][0] == 0).all()
    assert (state["model.item_bias.weight"] != 0).any() and float(state["logit_scale"].exp()) != pytest.approx(10)


def test_two_runs_are_the_same_and_another_seed_is_not(
    i2i_run: Path, train_i2i: Callable[..., Path], tmp_path: Path
) -> None:
    assert_same_run(train_i2i(tmp_path / "again"), i2i_run)
    other = train_i2i(tmp_path / "other", "seed=1")
    key = "model.skip.weight"
    assert not torch.equal(states(other)["state_dict"][key], states(i2i_run)["state_dict"][key])


def test_a_finished_run_is_left_alone(i2i_run: Path, train_i2i: Callable[..., Path], capsys: Any) -> None:
    before = {path: path.stat().st_mtime_ns for path in i2i_run.rglob("*")}
    train_i2i(i2i_run)
    assert "already finished" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in i2i_run.rglob("*")} == before


def test_a_run_with_other_options_is_not_continued(i2i_run: Path, train_i2i: Callable[..., Path]) -> None:
    with pytest.raises(UserError, match=r"other options \(optim\.lr: 0\.01 → 0\.5"):
        train_i2i(i2i_run, "optim.lr=0.5")


def test_bad_data_leaves_no_run_folder(train_i2i: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(UserError):
        train_i2i(tmp_path / "out", f"data={tmp_path / 'absent'}")
    with pytest.raises(UserError, match="fields"):
        train_i2i(tmp_path / "out", "fields.use=[clip_audio]")
    assert not (tmp_path / "out").exists()
