"""clip_speed: the command in small (that both of its loops do the same work: test_train_overhead)."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks.speed import clip_speed
from benchmarks.speed.clip_speed import SpeedConfig
from configs.errors import UserError
from configs.load import load
from data.catalogue import Catalogue
from datamodules.clip import ClipDataModule
from tests.benchmarks.small import listed

TINY = ["model.dim=16", "model.width=16", "model.layers=1", "model.crop_seconds=1", "model.crops=1", "batch_size=32"]
TINY += ["text.max_tokens=16", "trainer.accelerator=cpu"]


@pytest.mark.slow
def test_the_command(sounding: Path, tmp_path: Path) -> None:
    given = [f"data={sounding}", f"out={tmp_path}/out", "rounds=1", "steps=3", "sizes=[20,60]"]
    clip_speed.main(load(SpeedConfig, [*given, f"clip={listed(TINY)}", "embed=[]"]))
    report = json.loads((tmp_path / "out" / "results.json").read_text())
    assert report["step"]["ours_over_bare"] > 0.1 and 0 < report["step"]["share_of_waiting_for_data"] < 1
    assert report["step"]["songs_a_second"] > 0 and min(report["reading"].values()) > 0
    assert [row["songs"] for row in report["embedding"]] == [20, 60] and report["embedding"][1]["peak_mb"] > 100
    with pytest.raises(UserError, match="at least 1"):
        clip_speed.main(load(SpeedConfig, [*given, "rounds=0"]))


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
