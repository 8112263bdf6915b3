"""embed_again: the command in small."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest

from benchmarks.speed import embed_again
from configs.data import PrepareConfig
from configs.errors import UserError
from configs.load import load
from configs.training import ClipConfig
from data.preparation import prepare
from tests.benchmarks.speed.test_clip_speed import TINY
from training.tasks import train_clip


def test_the_command(sounding: Path, tmp_path: Path) -> None:
    prepare(load(PrepareConfig, [f"source={sounding}", f"out={tmp_path}/catalogue", "split.by=random"]))
    quiet = ["trainer.epochs=1", "trainer.progress=false", "logger.wandb=off"]
    train_clip(load(ClipConfig, [f"data={tmp_path}/catalogue", f"out={tmp_path}/clip", *TINY, *quiet]))
    days = pl.read_parquet(sounding / "songs.parquet")["released_at"].cast(pl.Date).sort()
    given = [f"data={sounding}", f"clip={tmp_path}/clip", f"out={tmp_path}/again.json", "rounds=1"]
    asked = [*given, f"yesterday={days[100]}", f"today={days[110]}"]
    embed_again.main(load(embed_again.EmbedAgainConfig, asked))
    report = json.loads((tmp_path / "again.json").read_text())
    before = [int((days < days[at]).sum()) for at in (100, 110)]
    assert report["songs"] == before[1] and report["new_songs"] == before[1] - before[0] > 0
    assert report["ratio"]["least"] == report["ratio"]["most"] > 0 and len(report["seconds"]) == 2
    with pytest.raises(UserError, match="rounds=0"):
        embed_again.main(load(embed_again.EmbedAgainConfig, [*asked, "rounds=0"]))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["again.json", "catalogue", "catalogue_audio", "clip"]
