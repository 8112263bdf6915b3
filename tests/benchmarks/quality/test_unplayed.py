"""unplayed: whose plays are taken, the effective rank against closed forms, and the command on a tiny world."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from benchmarks.measure import read_json
from benchmarks.quality import unplayed
from benchmarks.quality.item_cold.encoders import effective_rank
from benchmarks.quality.item_cold.measure import TO_USERS
from benchmarks.quality.unplayed import NONE, VIEWS, UnplayedConfig, take_plays_away
from tests.benchmarks.small import I2I

SONGS = 4000
OTHER = "anchored"


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset of many songs, each with two plays."""
    folder = tmp_path_factory.mktemp("many")
    ids = [f"s{number}" for number in range(SONGS)]
    pl.DataFrame({"song_id": ids}).write_parquet(folder / "songs.parquet")
    plays = {"user_id": [f"u{number % 7}" for number in range(2 * SONGS)], "song_id": ids * 2}
    pl.DataFrame(plays).write_parquet(folder / "plays.parquet")
    return folder


def test_the_stated_share_of_the_known_songs_loses_all_plays_and_no_new_song_any(many: Path, tmp_path: Path) -> None:
    splits, silent = [], []
    for share in (0.0, 0.5, 0.95, 1.0):
        out = tmp_path / f"{share}"
        out.mkdir()
        take_plays_away(many, out, share, seed=3)
        songs, plays = (pl.read_parquet(out / f"{name}.parquet") for name in ("songs", "plays"))
        assert songs["song_id"].to_list() == pl.read_parquet(many / "songs.parquet")["song_id"].to_list()
        counts = dict(songs["split"].value_counts().iter_rows())
        assert counts["cold_val"] == counts["cold_test"] == SONGS / 10
        left = dict(plays["song_id"].value_counts().iter_rows())
        assert set(left.values()) <= {2}, "all plays of a song or none"
        new, known = (set(songs.filter((pl.col("split") == "warm") == warm)["song_id"]) for warm in (False, True))
        assert new <= left.keys()
        splits.append(songs["split"].to_list())
        silent.append(known - left.keys())
        assert len(silent[-1]) / len(known) == pytest.approx(share, abs=0.03 * (0 < share < 1))
    assert all(split == splits[0] for split in splits), "the new songs are the same for every share"
    assert silent[0] < silent[1] < silent[2] < silent[3]


def test_the_effective_rank_against_closed_forms() -> None:
    rng, songs, width = np.random.default_rng(0), 400, 24
    for directions in (1, 2, 7, 24):
        left, _ = np.linalg.qr(np.column_stack([np.ones(songs), rng.normal(size=(songs, directions))]))
        right, _ = np.linalg.qr(rng.normal(size=(width, directions)))
        equal = left[:, 1:] @ right.T  # without means, of equal variance in each direction
        assert effective_rank(equal) == pytest.approx(directions)
        assert effective_rank(5 * equal + rng.normal(size=width)) == pytest.approx(directions), "whatever mean"
    share = np.array([0.9, 0.1])
    left, _ = np.linalg.qr(np.column_stack([np.ones(songs), rng.normal(size=(songs, 2))]))
    assert effective_rank(left[:, 1:] * np.sqrt(share)) == pytest.approx(0.9**-0.9 * 0.1**-0.1)


def test_the_command_on_a_tiny_world(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = {NONE: ["objective.bcl_weight=0 model.dropout=0"], OTHER: VIEWS[OTHER][:1]}
    monkeypatch.setattr(unplayed, "METHODS", settings)
    small: dict[str, Any] = {"seeds": 1, "shares": [0.5], "teachers": ["phi"], "text": []}
    i2i = [*I2I, "trainer.epochs=1", "trainer.progress=false"]
    config = UnplayedConfig(data=str(dataset), out=str(tmp_path / "unplayed.json"), i2i=i2i, **small)
    unplayed.main(config)
    rows = read_json(tmp_path / "unplayed.json")
    assert [(row["teacher"], row["share"], row["method"]) for row in rows] == [("phi", 0.5, NONE), ("phi", 0.5, OTHER)]
    for row in rows:
        assert 1 <= row["effective_rank"] <= 8 and 0 <= row[TO_USERS] <= 1
    assert "| phi | 50% | anchored |" in capsys.readouterr().out

    def again(*_: Any) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr(unplayed, "train_i2i", again)
    unplayed.main(config)
    assert read_json(tmp_path / "unplayed.json") == rows
