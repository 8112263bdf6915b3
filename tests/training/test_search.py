"""`search=N`: trials are kept through kills and a larger N, and the best one is what the run folder serves."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import wandb
import yaml

import train
from artifacts.runs import finish_run, is_finished, open_run, run_folder
from callbacks.divergence import DivergenceError
from configs.errors import UserError
from configs.load import as_dict, dump, given, load
from configs.search import FIRST
from configs.training import BoundaryConfig, I2IConfig
from inference.vectors import encode_songs
from tests.conftest import i2i_options
from tests.offline_wandb import OfflineRun, runs_in
from training.search import search

TASKS: dict[str, type] = {"i2i": I2IConfig, "boundary": BoundaryConfig}
MONITORS = {"i2i": "val/audience", "boundary": "val/bce"}
Search = Callable[..., Path]


@pytest.fixture
def pretend(catalogue_folder: Path, tmp_path: Path) -> Search:
    """`pretend([figures], "search=2", …)` searches with a training that does nothing but reach the figures.

    A figure may be an exception, which that trial raises.
    """

    def run(figures: list[Any], *argv: str, task: str = "i2i") -> Path:
        config: Any = load(TASKS[task], [f"data={catalogue_folder}", f"out={tmp_path}/out", "logger.wandb=off", *argv])

        def train(trial: Any) -> None:
            folder = Path(trial.out)
            if is_finished(folder, task, as_dict(trial)):
                return
            with run_folder(folder, task, dump(trial), {"songs": {}}):
                for name in ("checkpoints/best.ckpt", "logs/metrics.csv"):
                    (folder / name).parent.mkdir(exist_ok=True)
                    (folder / name).write_text(folder.name)
                figure = figures[int(folder.name)]
                if isinstance(figure, BaseException):
                    raise figure
                finish_run(folder, task, {MONITORS[task]: figure})

        search(task, config, given(TASKS[task], argv), train)
        return Path(config.out)

    return run


def served(out: Path) -> str:
    """The trial whose weights a run folder has."""
    manifest = json.loads((out / "manifest.json").read_text())
    trial, best = json.loads((out / "search.json").read_text())["best"], (out / "checkpoints/best.ckpt").read_text()
    assert manifest["finished"] and manifest == json.loads((out / "search" / best / "manifest.json").read_text())
    options, of_trial = (yaml.safe_load((at / "config.yaml").read_text()) for at in (out, out / "search" / best))
    assert options["out"] == str(out) and options["logger"]["group"] == ""
    assert of_trial == options | {"out": f"{out}/search/{best}", "logger": options["logger"] | {"group": out.name}}
    assert trial == best == (out / "logs" / "metrics.csv").read_text()
    return best


def written(out: Path) -> dict[str, int]:
    """When each file of the trials was written."""
    return {str(path.relative_to(out)): path.stat().st_mtime_ns for path in (out / "search").rglob("*")}


@pytest.mark.parametrize(("task", "best"), [("i2i", "001"), ("boundary", "002")])
def test_the_best_trial_is_served(task: str, best: str, pretend: Search, capsys: pytest.CaptureFixture[str]) -> None:
    """The largest `val/audience`, the least `val/bce`; of equals the first."""
    out = pretend([0.2, 0.3, 0.1, 0.3, 0.1], "search=5", task=task)
    assert served(out) == best
    found = json.loads((out / "search.json").read_text())
    assert [row["value"] for row in found["trials"]] == [0.2, 0.3, 0.1, 0.3, 0.1]
    assert found["trials"][0]["options"] == {} and "optim.lr" in found["trials"][1]["options"]
    lines = capsys.readouterr().out.splitlines()
    table = lines[next(at for at, line in enumerate(lines) if line.startswith("trial")) :]
    order = ["001", "003", "000", "002", "004"] if task == "i2i" else ["002", "004", "000", "001", "003"]
    assert [line[:3] for line in table[1:6]] == order and MONITORS[task] in table[0]
    assert (
        table[1 + order.index("000")].endswith("as given")
        and f"optim.lr={FIRST[task]['optim.lr']}" in table[1 + order.index("001")]
    )


def test_a_killed_search_goes_on(pretend: Search, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        pretend([0.1, KeyboardInterrupt(), 0.3], "search=3")
    out = tmp_path / "out"
    before = written(out)
    with pytest.raises(UserError, match=r"has no best\.ckpt yet"):
        open_run(out, "i2i")
    with pytest.raises(UserError, match=r"holds a run with other options \(.*search: 3 → 0\)"):
        is_finished(out, "i2i", as_dict(load(I2IConfig, [], out / "search/000/config.yaml")) | {"out": str(out)})
    pretend([0.9, 0.2, 0.3], "search=3")
    assert served(out) == "002"
    kept = {name: at for name, at in before.items() if "000/" in name}
    assert len(kept) > 4 and kept.items() <= written(out).items(), "the first trial was not trained again"


def test_a_larger_search_keeps_its_trials(pretend: Search, capsys: pytest.CaptureFixture[str]) -> None:
    out = pretend([0.1, 0.2], "search=2")
    before, rows = written(out), json.loads((out / "search.json").read_text())["trials"]
    assert served(out) == "001"
    pretend([0.0] * 2, "search=2")
    assert "search already finished" in capsys.readouterr().out
    pretend([0.9, 0.9, 0.3, 0.2], "search=4")
    assert served(out) == "002"
    after = written(out)
    kept = {name: at for name, at in before.items() if "/" in name}
    assert len(kept) > 8 and kept.items() <= after.items()
    assert json.loads((out / "search.json").read_text())["trials"][:2] == rows


def test_finished_trials_may_be_removed(pretend: Search) -> None:
    out = pretend([0.1, 0.2], "search=2")
    shutil.rmtree(out / "search")
    pretend([0.9, 0.9, 0.15], "search=3")
    assert (out / "checkpoints/best.ckpt").read_text() == "001"
    assert [row["value"] for row in json.loads((out / "search.json").read_text())["trials"]] == [0.1, 0.2, 0.15]


@pytest.mark.parametrize("name", ["vocabulary.json", "best.ckpt", "config.yaml", "manifest.json", "search.json"])
def test_killed_while_the_best_is_taken(name: str, pretend: Search, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before any of its files; what a larger search had served until then is replaced whole at the next try."""
    out, replace = pretend([0.2, 0.1], "search=2"), os.replace

    def killed(source: Any, target: Any) -> None:
        if Path(target) in (out / name, out / "checkpoints" / name):
            raise KeyboardInterrupt
        replace(source, target)

    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        pretend([0.2, 0.1, 0.3], "search=3")
    monkeypatch.undo()
    pretend([0.2, 0.1, 0.3], "search=3")
    assert served(out) == "002" and not list(out.glob("**/*.part"))


def test_a_trial_that_diverges_is_left_out(pretend: Search, capsys: pytest.CaptureFixture[str]) -> None:
    lost = DivergenceError("lost at step 7")
    assert served(pretend([0.1, lost, 0.2], "search=3")) == "002"
    said = capsys.readouterr().out
    assert "001: lost at step 7" in said and "is the best of 3" in said


def test_all_trials_diverge(pretend: Search) -> None:
    with pytest.raises(UserError, match="every trial diverged"):
        pretend([DivergenceError("lost")] * 2, "search=2")


def test_any_other_error_ends_the_search(pretend: Search) -> None:
    with pytest.raises(UserError, match="no such field"):
        pretend([0.1, UserError("no such field"), 0.2], "search=3")


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["search=3", "objective.history=9"], r"holds another search \(objective.history: 40 → 9\)"),
        (["search=3", "seed=1"], r"holds another search \(seed: 0 → 1\)"),
        (["search=3", "optim.lr=2e-3"], r"holds another search \(searched options: optim.lr, .* → optim.weight_decay"),
        (["search=2"], "holds a search of 3 trials, and search=2 is fewer"),
    ],
)
def test_another_search_is_refused(argv: list[str], said: str, pretend: Search) -> None:
    out = pretend([0.1, 0.2, 0.3], "search=3")
    before = written(out)
    with pytest.raises(UserError, match=said):
        pretend([0.1, 0.2, 0.3], *argv)
    assert written(out) == before and served(out) == "002"


def test_an_out_that_is_something_else(pretend: Search, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = tmp_path / "out"
    config: Any = load(I2IConfig, ["data=d", f"out={plain}"])
    with run_folder(plain, "i2i", dump(config), {}):
        pass
    with pytest.raises(UserError, match="holds a run that is no search: choose another out="):
        pretend([0.1], "search=1")
    (plain / "manifest.json").unlink()
    with pytest.raises(UserError, match="is not an earlier i2i run"):
        pretend([0.1], "search=1")
    monkeypatch.setenv("WANDB_RUN_ID", "abc")
    with pytest.raises(UserError, match="WANDB_RUN_ID is set"):
        pretend([0.1], "search=1", "logger.wandb=offline")


# ------------------------------------------------------------------------------------------------------- real training


@pytest.fixture(scope="module")
def found(catalogue_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A search of three real trainings, tracked offline."""
    at = tmp_path_factory.mktemp("search")
    argv = [*i2i_options(catalogue_folder, at / "mine"), "search=3", "logger.wandb=offline"]
    train.train("i2i", load(I2IConfig, argv), given(I2IConfig, argv))
    wandb.teardown()
    return at / "mine"


def test_the_run_is_the_best_trial(found: Path, catalogue_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """To the commands that take a run it is one like any other; its own options make no other training."""
    result = json.loads((found / "search.json").read_text())
    values = {row["trial"]: row["value"] for row in result["trials"]}
    assert len(set(values.values())) > 1 and values[result["best"]] == max(values.values())
    run, trial = open_run(found, "i2i"), open_run(found / "search" / result["best"], "i2i")
    assert run.fingerprint == trial.fingerprint and run.config["search"] == 0
    assert encode_songs(found, str(catalogue_folder), None)[0].fingerprint == run.fingerprint
    train.train("i2i", load(I2IConfig, [], found / "config.yaml"))
    assert "already finished" in capsys.readouterr().out
    with pytest.raises(UserError, match="holds a run with other options"):
        train.train("i2i", load(I2IConfig, ["optim.lr=0.5"], found / "config.yaml"))


def test_all_of_it_is_told_to_wandb(found: Path) -> None:
    (search,) = runs_in(found.parent)
    trials = [one for name in ("000", "001", "002") for one in runs_in(found / "search" / name)]
    assert [(one.name, one.group) for one in trials] == [(f"mine-{n:03}", "mine") for n in range(3)]
    assert len({one.id for one in (search, *trials)}) == 4 and search.job == "search i2i"
    columns, rows = OfflineRun(search.folder).table("trials")
    assert columns == ["trial", "val/audience", "options"] and len(rows) == 3
    result = json.loads((found / "search.json").read_text())
    assert [row[1] for row in rows] == sorted((one["value"] for one in result["trials"]), reverse=True)
    best = [max(value for _, value in one.values("val/audience")) for one in trials]
    assert best == pytest.approx([row["value"] for row in result["trials"]])
    assert any("mine" in name for name in search.made)
