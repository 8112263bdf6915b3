"""clip_speed: that both sides of a comparison do the same work, and the command in small."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.speed import clip_speed, train_overhead
from benchmarks.speed.clip_speed import SpeedConfig
from configs.data import PrepareConfig, WorldConfig
from configs.errors import UserError
from configs.load import load
from configs.training import TrainerConfig
from data.catalogue import Catalogue
from datamodules.clip import ClipDataModule
from pipeline import prepare, world
from tests.benchmarks.small import WORLD

TINY = ["model.dim=16", "model.width=16", "model.layers=1", "model.crop_seconds=1", "model.crops=1", "batch_size=32"]
TINY += ["text.max_tokens=16", "trainer.accelerator=cpu", "model.dropout=0", "objective.freq_mask=0"]
TINY += ["objective.time_mask=0", "objective.unpaired=0"]


@pytest.fixture(scope="module")
def sounding(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A world of 120 songs with sound."""
    folder = tmp_path_factory.mktemp("speed") / "world"
    world.main(load(WorldConfig, [f"out={folder}", *WORLD]))
    return folder


@pytest.mark.slow
def test_the_command(sounding: Path, tmp_path: Path) -> None:
    given = [f"data={sounding}", f"out={tmp_path}/out", "rounds=1", "steps=3", "sizes=[20,60]"]
    clip_speed.main(load(SpeedConfig, [*given, f"clip={json.dumps(TINY)}", "embed=[]"]))
    report = json.loads((tmp_path / "out" / "results.json").read_text())
    assert report["step"]["ours_over_bare"] > 0.1 and 0 < report["step"]["share_of_waiting_for_data"] < 1
    assert min(report["reading"].values()) > 0
    assert [row["songs"] for row in report["embedding"]] == [20, 60] and report["embedding"][1]["peak_mb"] > 100
    with pytest.raises(UserError, match="at least 1"):
        clip_speed.main(load(SpeedConfig, [*given, "rounds=0"]))


def test_both_loops_train_the_same_model(sounding: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After as many steps from the same start the weights of the bare loop are those of train.py."""
    prepare.main(load(PrepareConfig, [f"source={sounding}", f"out={tmp_path}/data", "split.by=random"]))
    config = load(SpeedConfig, [f"data={sounding}", f"clip={json.dumps([*TINY, 'optim.warmup=0'])}"])
    trained = []
    real = clip_speed.clip_parts

    def kept(chosen: object) -> object:
        torch.manual_seed(0)
        module, data = real(chosen)  # type: ignore[arg-type]
        trained.append(module)
        return module, data

    monkeypatch.setattr(clip_speed, "clip_parts", kept)
    chosen = clip_speed.options(config, tmp_path / "data", tmp_path / "run", "trainer.epochs=1")
    steps = 3  # 120 songs, four fifths known: an epoch

    def both(parts: Any, options: TrainerConfig, *_: Any) -> dict[str, float]:
        train_overhead.by_trainer(parts, options, tmp_path / "run", steps + 5)
        train_overhead.by_loop(parts, options.clip_norm, steps)
        return {"steps_a_second": 1.0, "steps_a_second_bare": 1.0}

    monkeypatch.setattr(clip_speed, "side_by_side", both)
    monkeypatch.setattr(clip_speed, "options", lambda *_: chosen)
    assert clip_speed.step(config, tmp_path)["songs_a_second"] == 32
    ours, bare = (dict(module.named_parameters()) for module in trained)
    for name, weight in ours.items():
        torch.testing.assert_close(bare[name], weight, rtol=1e-3, atol=1e-5)


def test_generated_catalogues_can_be_embedded(tmp_path: Path) -> None:
    folder = clip_speed.generated(tmp_path, 7)
    assert Catalogue.read(folder).n_songs == 7
    data = ClipDataModule(folder, text_fields=["genres"], crop_seconds=5, crops=1)
    found = data.crops.fixed(np.arange(7))
    assert found["frames"].tolist() == [[250]] * 7 and found["logmel"].float().std() == pytest.approx(1, abs=0.02)


def test_a_command_that_fails_is_told() -> None:
    seconds, peak = clip_speed.measured([sys.executable, "-c", "x = b'x' * 10**8; import time; time.sleep(0.3)"])
    assert seconds > 0.3 and 90 < peak < 1000
    with pytest.raises(UserError, match="no such luck"):
        clip_speed.measured([sys.executable, "-c", "raise SystemExit('no such luck')"])
