"""Run folders: a wrong task, changed options or a damaged file is one clear line."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from artifacts.runs import fingerprint, finish_run, is_finished, open_run, read_vocabulary, run_folder
from configs.errors import UserError
from configs.load import as_dict, dump
from configs.training import I2IConfig
from inference.vectors import restore
from lightning_modules.i2i import I2IModule


@pytest.fixture
def run(i2i_run: Path, tmp_path: Path) -> Path:
    """A copy that may be damaged."""
    return Path(shutil.copytree(i2i_run, tmp_path / "run"))


def complaint(folder: Path, task: str = "i2i") -> str:
    with pytest.raises(UserError) as caught:
        open_run(folder, task)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_whole_run(run: Path) -> None:
    found = open_run(run, "i2i")
    assert found.task == "i2i" and found.config["trainer"]["epochs"] == 3
    assert found.hparams["dense_dims"] == {"content": 12, "mood": 6}
    assert set(read_vocabulary(run)) == {"language", "genres", "tags"}
    assert len(found.fingerprint) == 16 and found.fingerprint == open_run(run, "i2i").fingerprint


def test_no_run_of_this_task(run: Path, tmp_path: Path, catalogue_folder: Path) -> None:
    message = complaint(run, "clip")
    assert "i2i run" in message and "clip run" in message and "train.py clip" in message
    with pytest.raises(UserError, match="not an earlier clip run folder"):
        is_finished(run, "clip", options())
    assert "folder not found" in complaint(tmp_path / "absent")
    assert "no manifest.json" in complaint(tmp_path)
    assert "catalogue folder, not a i2i run folder" in complaint(catalogue_folder)
    (run / "checkpoints" / "best.ckpt").unlink()
    assert "train.py i2i" in complaint(run)


@pytest.mark.parametrize("how", ["half", "empty", "text", "flipped", "something else", "list"])
def test_damaged_checkpoint(run: Path, how: str) -> None:
    path = run / "checkpoints" / "best.ckpt"
    whole = path.read_bytes()
    if how in ("something else", "list"):
        torch.save([1, 2, 3] if how == "list" else {"step": 3}, path)
    else:
        flipped = whole[:200] + b"\x00" * 400 + whole[600:]
        damaged = {"half": whole[: len(whole) // 2], "empty": b"", "text": b"not a checkpoint", "flipped": flipped}
        path.write_bytes(damaged[how])
    message = complaint(run)
    assert "best.ckpt" in message and "train the run again" in message


class Payload:
    """Would run code when unpickled."""

    def __reduce__(self) -> Any:
        return (open, ("owned.txt", "w"))


def test_a_checkpoint_that_carries_code_is_refused(run: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": {}, "hyper_parameters": Payload()}, run / "checkpoints" / "best.ckpt")
    assert "not a readable checkpoint" in complaint(run)
    assert not (tmp_path / "owned.txt").exists()


@pytest.mark.parametrize("text", ["{", "[1]", "a: [", None])
def test_damaged_manifest_or_config(run: Path, text: str | None) -> None:
    for name in ("manifest.json", "config.yaml"):
        whole = (run / name).read_text()
        (run / name).unlink()
        if text is not None:
            (run / name).write_text(text)
        assert name in complaint(run)
        if name == "config.yaml" and text is not None:
            with pytest.raises(UserError, match=r"config\.yaml"):
                is_finished(run, "i2i", options())
        (run / name).write_text(whole)
    assert open_run(run, "i2i")


@pytest.mark.parametrize("text", ["{", "{}", "[1]", None])
def test_damaged_vocabulary(run: Path, text: str | None) -> None:
    (run / "vocabulary.json").unlink()
    if text is not None:
        (run / "vocabulary.json").write_text(text)
    with pytest.raises(UserError, match=r"vocabulary\.json: cannot be read"):
        read_vocabulary(run)


def options(**changes: Any) -> dict[str, Any]:
    return as_dict(I2IConfig(data="d", out="o", **changes))


def test_finished_unfinished_and_changed(tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert not is_finished(run, "i2i", options()) and not run.exists()
    with run_folder(run, "i2i", dump(I2IConfig(data="d", out="o")), {"songs": {"tags": ["歌"]}}):
        pass
    assert not is_finished(run, "i2i", options()) and read_vocabulary(run) == {"tags": ["歌"]}
    finish_run(run, "i2i", {"val/recall@20": 0.5})
    assert is_finished(run, "i2i", options())
    assert json.loads((run / "manifest.json").read_text())["best"] == {"val/recall@20": 0.5}
    for key, value in (("out", "elsewhere"), ("logger", {"wandb": "off", "project": "x"})):
        assert is_finished(run, "i2i", options() | {key: value}), f"{key} may change"
    may = options()
    may["trainer"] |= {"devices": "8", "nodes": 2, "workers": 9, "progress": False}
    assert is_finished(run, "i2i", may)
    for change, words in (
        ({"seed": 1}, "seed: 0 → 1"),
        ({"data": "other"}, "data: d → other"),
        ({"trainer": may["trainer"] | {"epochs": 5}}, r"trainer\.epochs: 8 → 5"),
    ):
        with pytest.raises(UserError, match=words):
            is_finished(run, "i2i", options() | change)


def test_a_run_of_a_version_that_had_fewer_options(tmp_path: Path) -> None:
    """A run is still the same by options that it does not know, while they are off; on, they are named."""
    run, now = tmp_path / "run", options()
    with run_folder(run, "i2i", dump(I2IConfig(data="d", out="o")), {}):
        pass
    finish_run(run, "i2i", {})
    later = now | {"fresh": 0, "none": None, "model": now["model"] | {"sparser": False}}
    assert is_finished(run, "i2i", later)
    for changed, words in (({"fresh": 2}, "fresh: 0 → 2"), ({"model": now["model"] | {"sparser": True}}, "sparser")):
        with pytest.raises(UserError, match=words):
            is_finished(run, "i2i", later | changed)


@pytest.mark.parametrize("part", ["hparams", "weights"])
def test_a_checkpoint_of_another_version_is_one_line(run: Path, part: str) -> None:
    found = open_run(run, "i2i")
    assert not restore(I2IModule, found).training
    kept = getattr(found, part)
    changed = kept | {"of_later": torch.zeros(1)} if part == "weights" else kept.keys() - {"dim"}
    other = replace(found, **{part: {key: kept.get(key, torch.zeros(1)) for key in changed}})
    with pytest.raises(UserError, match="the checkpoint cannot be used here") as caught:
        restore(I2IModule, other)
    assert str(run) in str(caught.value) and "\n" not in str(caught.value)


def test_fingerprint_is_of_the_weights_alone() -> None:
    weights = {"a": torch.randn(3, 4), "b": torch.tensor(2), "c": torch.randn(4, 4).T, "d": torch.randn(2).bfloat16()}
    same = {name: weights[name].clone() for name in reversed(weights)}
    assert fingerprint(weights) == fingerprint(same)
    same["a"][0, 0] += 1e-6
    assert fingerprint(weights) != fingerprint(same)
