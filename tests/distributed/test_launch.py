"""The cluster's launch files on this machine: two "machines" that meet, a rank that is killed, a preempted job."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.conftest import i2i_options

ROOT = Path(__file__).parents[2]
SRUN = '#!/bin/sh\nexec "$@"\n'
SCONTROL = '#!/bin/sh\nif [ "$1" = show ]; then echo localhost; echo other; else echo "$@" >> "$REQUEUED"; fi\n'
# trains like train.py; one rank is killed in a step of an epoch, once, and has told how many numbers it held
TRAIN = """
import os, runpy, signal
from pathlib import Path
from lightning_modules.{module} import {name} as Module
real, fate = Module.training_step, Path({fate!r})
def step(module, batch, index):
    if (module.current_epoch, index, module.global_rank) == {when} and fate.exists():
        held = [getattr(one, "to_local", lambda one=one: one)().numel() for one in module.parameters()]
        fate.with_name("held").write_text(f"{{sum(held)}} {{sum(one.numel() for one in module.parameters())}}")
        fate.unlink()
        os.kill(os.getpid(), signal.SIGKILL)
    return real(module, batch, index)
Module.training_step = step
runpy.run_path({train!r}, run_name="__main__")
"""


def killing_train(folder: Path, module: str, name: str, when: tuple[int, int, int]) -> None:
    """A train.py in the folder, of which one rank is killed: `when` is its epoch, step and rank."""
    fate, train = folder / "fate", str(ROOT / "train.py")
    fate.touch()
    code = TRAIN.format(module=module, name=name, when=when, fate=str(fate), train=train)
    (folder / "train.py").write_text(code)


def environment(**more: Any) -> dict[str, str]:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    given = {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "PATH": path, "PORT": str(free_port())}
    return os.environ | given | {name: str(value) for name, value in more.items()}


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("localhost", 0))
        return int(one.getsockname()[1])


def launch(script: str, arguments: list[str], where: Path = ROOT, **more: Any) -> subprocess.Popen[str]:
    argv = ["bash", str(ROOT / "configs" / "cluster" / script), *arguments]
    pipe = subprocess.PIPE
    return subprocess.Popen(argv, cwd=where, env=environment(**more), stdout=pipe, stderr=pipe, text=True)


def ended(process: subprocess.Popen[str]) -> str:
    try:
        out, error = process.communicate(timeout=240)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    assert process.returncode == 0, error[-3000:]
    return out


def weights(run: Path) -> dict[str, torch.Tensor]:
    return torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]


def assert_same_weights(one: Path, other: Path) -> None:
    torch.testing.assert_close(weights(one), weights(other), rtol=0, atol=0)


@pytest.fixture(scope="module")
def undisturbed(catalogue_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two ranks on one machine, which nobody disturbs."""
    out = tmp_path_factory.mktemp("undisturbed") / "run"
    ended(launch("torchrun.sh", ["i2i", *i2i_options(catalogue_folder, out)], RANKS=2))
    return out


def test_two_machines_meet_and_train_as_one(undisturbed: Path, catalogue_folder: Path, tmp_path: Path) -> None:
    given = {"NODES": 2, "RANKS": 1, "PORT": free_port(), "JOB": "both"}
    arguments = ["i2i", *i2i_options(catalogue_folder, tmp_path / "run")]
    machines = [launch("torchrun.sh", arguments, **given) for _ in range(2)]
    result = [ended(machine) for machine in machines]
    assert sum("best val/audience" in one for one in result) == 1, "rank 0 alone has something to say"
    assert_same_weights(tmp_path / "run", undisturbed)


@pytest.mark.parametrize("rank", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_a_killed_rank_takes_the_others_back_to_the_last_checkpoint(
    rank: int, undisturbed: Path, catalogue_folder: Path, tmp_path: Path
) -> None:
    """kill -9 in the middle of an epoch: nobody hangs, all start again, and nothing shows in the end."""
    killing_train(tmp_path, "i2i", "I2IModule", (1, 2, rank))
    arguments = ["i2i", *i2i_options(catalogue_folder, tmp_path / "run"), "trainer.checkpoint_steps=2"]
    ended(launch("torchrun.sh", arguments, where=tmp_path, RANKS=2, RESTARTS=1))
    assert not (tmp_path / "fate").exists(), "it was killed"
    assert_same_weights(tmp_path / "run", undisturbed)


def test_a_preempted_job_goes_back_into_the_queue_and_on(
    undisturbed: Path, catalogue_folder: Path, tmp_path: Path
) -> None:
    """SLURM's signal while two ranks train; then the job's next turn."""
    (tmp_path / "bin").mkdir()
    for program, text in {tmp_path / "bin/srun": SRUN, tmp_path / "bin/scontrol": SCONTROL}.items():
        program.write_text(text)
        program.chmod(0o755)
    slurm: dict[str, Any] = {"SLURM_JOB_NODELIST": "n[0-1]", "SLURM_NNODES": 1, "SLURM_GPUS_ON_NODE": 2}
    slurm |= {"SLURM_JOB_ID": 7, "REQUEUED": tmp_path / "requeued"}
    slurm["PATH"] = f"{tmp_path}/bin:{environment()['PATH']}"
    out = tmp_path / "run"
    arguments = ["i2i", *i2i_options(catalogue_folder, out), "trainer.progress=false"]
    job = launch("slurm.sh", arguments, **slurm)
    until(lambda: (out / "checkpoints" / "last.ckpt").exists(), job)
    job.send_signal(signal.SIGTERM)
    result = ended(job)
    assert "stopping, to go on later" in result and (tmp_path / "requeued").read_text() == "requeue 7\n"
    if "already finished" not in ended(launch("slurm.sh", arguments, **slurm)):
        assert "stopped by a signal at step" in result
    assert_same_weights(out, undisturbed)


def until(condition: Any, job: subprocess.Popen[str]) -> None:
    """Wait for something that the job does."""
    for _ in range(1200):
        if condition():
            return
        assert job.poll() is None, job.communicate()[1][-3000:]
        time.sleep(0.1)
    raise AssertionError("waited in vain")
