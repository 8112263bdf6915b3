"""waves: the true chances against the outcomes of the world itself, and the command on small worlds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from benchmarks.measure import read_json
from benchmarks.quality import waves
from benchmarks.quality.waves import FIXED, WavesBenchmarkConfig, true_chances
from data.world import generate

SMALL: dict[str, Any] = {"songs": 200, "users": 200, "width": 60, "budget": 20, "waves": 4, "repeats": 1}


def test_true_chances_are_those_that_the_world_draws_from(tmp_path: Path) -> None:
    config = WavesBenchmarkConfig(songs=200, users=1000)
    generate(tmp_path, songs=200, users=1000, truth_users=1000, audio=False, seed=3)
    truth = pl.read_parquet(tmp_path / "truth.parquet")
    song, user = (truth[name].str.slice(1).cast(pl.Int64).to_numpy() for name in ("song_id", "user_id"))
    chance_2P = true_chances(config, 3, song, user)
    for chance_P, name in zip(chance_2P, ("favourited", "completed"), strict=True):
        happened_P = truth[name].to_numpy()
        for part in np.array_split(np.argsort(chance_P), 8):
            spread = np.sqrt((chance_P[part] * (1 - chance_P[part])).sum()) / len(part)
            assert happened_P[part].mean() == pytest.approx(chance_P[part].mean(), abs=4 * float(spread))


def test_the_command_on_small_worlds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = WavesBenchmarkConfig(out=str(tmp_path / "waves.json"), worlds=[1, 2], **SMALL)
    waves.main(config)
    rows = {row["way"]: row for row in read_json(tmp_path / "waves.json")}
    assert list(rows) == list(waves.ways())
    assert rows[FIXED]["exposures"] == rows["oracle of pairs"]["exposures"] == 20 * 20
    assert all(row["exposures"] <= 20 * 20 for row in rows.values())
    assert rows["oracle of pairs"]["favourites"] > rows["oracle of songs"]["favourites"] > rows[FIXED]["favourites"]
    assert rows["Thompson sampling"]["few"] == 0, "every song has its first exposures"
    said = capsys.readouterr().out
    assert said.count("\n| ") == 1 + len(rows) - ("| way" not in said) and "| fixed budget |" in said
