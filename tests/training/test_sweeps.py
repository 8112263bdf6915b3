"""The sweeps of configs/sweeps: W&B takes them, and what its agent would start trains and logs what they ask for."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import wandb
import yaml
from wandb.sdk.launch.sweeps.utils import create_sweep_command, create_sweep_command_args
from wandb.sdk.lib.config_util import save_config_file_from_dict

import train
from configs.data import PrepareConfig, WorldConfig
from configs.embedding import EmbedConfig
from configs.load import load
from configs.training import BoundaryConfig, ClipConfig, I2IConfig
from pipeline import embed, prepare, world
from tests.offline_wandb import runs_in

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # written for an earlier pydantic
    import sweeps

ROOT = Path(__file__).parents[2]
TASKS = {"clip": ClipConfig, "i2i": I2IConfig, "boundary": BoundaryConfig}
FILES = sorted((ROOT / "configs" / "sweeps").glob("*.yaml"))
SMALL = ["trainer.accelerator=cpu", "trainer.epochs=1", "trainer.workers=0", "batch_size=32", "model.dim=8"]
SMALL_OF = {
    "clip": ["model.width=16", "model.heads=2", "model.layers=1", "model.crop_seconds=0.5", "model.crops=1",
             "text.frozen=true", "text.max_tokens=16"],
    "i2i": ["model.hidden=16", "model.field_dim=8", "bcl_batch_size=16", "objective.negatives=16"],
    "boundary": ["model.hidden=16", "model.field_dim=8", "model.history=5"],
}  # fmt: skip


def sweep_of(task: str) -> dict[str, Any]:
    return yaml.safe_load((ROOT / "configs" / "sweeps" / f"{task}.yaml").read_text("utf-8"))


def choice(sweep: dict[str, Any], seed: int) -> dict[str, Any]:
    """What W&B's engine would have the agent try: {option: {"value": value}}."""
    np.random.seed(seed)
    run = sweeps.next_run(sweep | {"method": "random"}, [])
    return {key: {"value": np.asarray(one["value"]).item()} for key, one in run.config.items()}


def command_of(sweep: dict[str, Any], chosen: dict[str, Any]) -> list[str]:
    """The agent's command line: its macros filled in, as `wandb agent` does."""
    args = create_sweep_command_args({"args": chosen})
    filled = {"env": [], "interpreter": [sys.executable], "program": [sweep["program"]], **args}
    line: list[str] = []
    for part in create_sweep_command(list(sweep["command"])):
        whole = part.startswith("${") and part.endswith("}")
        line += filled[part[2:-1]] if whole else [part]
    return line


@pytest.mark.parametrize("task", TASKS)
def test_wandb_takes_it(task: str) -> None:
    assert [path.stem for path in FILES] == sorted(TASKS)
    sweep = sweep_of(task)
    assert sweeps.schema_violations_from_proposed_config(sweep) == []
    assert sweeps.schema_violations_from_proposed_config(sweep | {"method": "guess"}), "else this test could not fail"
    assert sweep["early_terminate"]["type"] == "hyperband" and sweep["metric"]["goal"] == "maximize"


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("seed", range(3))
def test_every_choice_is_a_set_of_options(task: str, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two trials have two folders; what the sweep chose is what is trained with."""
    for name in ("DATA", "FEATURES"):
        monkeypatch.setenv(name, f"my/{name.lower()}")
    monkeypatch.setenv("WANDB_RUN_ID", f"trial{seed}")
    sweep = sweep_of(task)
    chosen = choice(sweep, seed)
    _, program, named, *arguments = command_of(sweep, chosen)
    assert (program, named) == ("train.py", task) and set(chosen) == set(sweep["parameters"])
    file = ROOT / arguments[arguments.index("--config") + 1]
    config: Any = load(TASKS[task], [one for one in arguments if "=" in one], file)
    assert (config.out, config.data) == (f"runs/sweeps/{task}/trial{seed}", "my/data")
    assert config.logger.wandb == "online"
    for key, one in chosen.items():
        group, name = key.split(".")
        assert getattr(getattr(config, group), name) == one["value"]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A catalogue with sound, and features of its words."""
    at = tmp_path_factory.mktemp("sweep")
    few = ["songs=90", "users=60", "seconds=1", "truth_users=60", "workers=1"]
    world.main(load(WorldConfig, [f"out={at}/world", *few]))
    options = [f"source={at}/world", f"out={at}/catalogue", "split.cutoff=2026-05-01", "workers=0"]
    prepare.main(load(PrepareConfig, options))
    words = [f"data={at}/catalogue", f"out={at}/features", "text.fields=[genres,tags]", "text.max_tokens=8"]
    embed.main(load(EmbedConfig, words))
    return {"DATA": f"{at}/catalogue", "FEATURES": f"{at}/features"}


def start(command: list[str], ranks: int) -> None:
    """In this process if one is enough, for speed; Lightning starts the second one by the same command."""
    if ranks == 1:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", command[1:])
            train.main()
        wandb.teardown()
    else:
        ended = subprocess.run(command, env=os.environ, capture_output=True, text=True, timeout=280)
        assert ended.returncode == 0, ended.stderr[-3000:]


TRIALS = [("clip", 1), ("boundary", 1), pytest.param("i2i", 2, marks=pytest.mark.slow)]


@pytest.mark.parametrize(("task", "ranks"), TRIALS)
def test_a_trial_trains_and_logs_what_the_sweep_asks_for(
    task: str, ranks: int, inputs: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the agent starts it, but offline and small; one process, or two."""
    sweep, trial = sweep_of(task), "abc123de"
    chosen = choice(sweep, 0)
    save_config_file_from_dict(str(tmp_path / "chosen.yaml"), chosen)
    by_agent = {"WANDB_SWEEP_ID": "sweep123", "WANDB_SWEEP_PARAM_PATH": str(tmp_path / "chosen.yaml")}
    for name, value in {**inputs, **by_agent, "WANDB_RUN_ID": trial, "PYTHONPATH": str(ROOT)}.items():
        monkeypatch.setenv(name, value)
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    (tmp_path / "train.py").symlink_to(ROOT / "train.py")
    monkeypatch.chdir(tmp_path)
    wandb.teardown()  # what it knows of the environment
    small = [*SMALL, *SMALL_OF[task], f"trainer.devices={ranks}", "logger.wandb=offline"]
    start(command_of(sweep, chosen) + [one for one in small if one.partition("=")[0] not in chosen], ranks)
    out = tmp_path / "runs" / "sweeps" / task / trial
    (one,) = runs_in(out)
    assert one.id == trial and one.job == f"train {task}"
    assert len(list(tmp_path.rglob("*.wandb"))) == len(list(tmp_path.rglob("*.csv"))) == 1, "rank 0 alone tells"
    ((_, figure),) = one.values(sweep["metric"]["name"])
    best = json.loads((out / "manifest.json").read_text())["best"]
    assert list(best) == [sweep["metric"]["name"]], "the figure that chooses the checkpoint"
    assert 0 <= figure <= 1 and one.config["trainer"]["devices"] == str(ranks)
    for key, value in chosen.items():
        group, name = key.split(".")
        assert one.config[group][name] == value["value"]
