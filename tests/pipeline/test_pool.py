"""Which songs get an audience: new ones, since a date, and the long tail with all that follows from it."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from scipy import sparse

from configs.errors import UserError
from configs.load import load
from configs.schema import AudienceConfig, IndexConfig, TargetingConfig
from datamodules.catalogue import Catalogue
from pipeline import audience, index
from pipeline.exclusions import Exclusions
from pipeline.index import SongIndex
from pipeline.pool import songs_in_pool, without_listeners
from pipeline.similar import find_similar
from retrieval.index import build_index


def pool(catalogue: Catalogue, *options: str) -> np.ndarray:
    return songs_in_pool(load(AudienceConfig, ["out=o", *options]), catalogue)


def test_new_songs_since_a_date_and_the_long_tail(catalogue: Catalogue) -> None:
    cold = catalogue.rows("cold")
    assert pool(catalogue, "split=cold").tolist() == cold.tolist()
    released = catalogue.songs["released_at"].to_list()
    day = sorted(released)[-4]
    expected = [row for row in cold if released[row] >= day]
    assert pool(catalogue, "split=cold", f"since={day:%Y-%m-%d}").tolist() == expected and len(expected) == 4
    plays = catalogue.songs["popularity"].to_list()
    warm = catalogue.rows("warm")
    least = sorted(plays[row] for row in warm)[5]
    tail = {int(row) for row in warm if plays[row] <= least}
    found = pool(catalogue, "split=cold_test", f"long_tail={least}")
    assert set(found.tolist()) == tail | set(catalogue.rows("cold_test").tolist()) and 6 <= len(tail) < 20
    assert (np.diff(found) > 0).all()
    for wrong in ("since=2026-13-01", "since=yesterday", f"since={datetime(2090, 1, 1):%Y-%m-%d}"):
        with pytest.raises(UserError, match="since="):
            pool(catalogue, wrong)


def test_listeners_of_a_known_song_are_left_out(catalogue: Catalogue) -> None:
    songs = pool(catalogue, "split=cold_test", "long_tail=15")
    given = Exclusions(catalogue.n_users, np.array([3]), np.array([0, 2]), np.array([5, 7]))
    for before in (None, given):
        found = without_listeners(before, catalogue, songs)
        assert found is not None and (np.diff(found.song) >= 0).all()
        allowed = found.allowed(slice(0, len(songs)))
        for row, song in enumerate(songs):
            heard = set(catalogue.plays.filter(pl.col("song") == int(song))["user"].to_list())
            also = {3} | {user for at, user in ((0, 5), (2, 7)) if at == row} if before else set()
            assert set(np.flatnonzero(~allowed[row]).tolist()) == heard | also
    assert without_listeners(None, catalogue, catalogue.rows("cold")) is None


def test_a_known_song_is_not_its_own_neighbour() -> None:
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(12, 3)).astype(np.float32)
    known = np.array([0, 2, 3, 5, 6, 7, 9])
    listening = sparse.csr_matrix((rng.random((20, 12)) < 0.4).astype(np.float32))
    one, songs = SongIndex({}, build_index(vectors[known]), known, vectors), np.array([2, 4, 9])
    for neighbours in (3, 30):
        found = find_similar(one, songs, listening, TargetingConfig(neighbours=neighbours))
        for row, song in enumerate(songs):
            others = [other for other in known if other != song]
            best = sorted(others, key=lambda other: -float(vectors[song] @ vectors[other]))[:neighbours]
            assert found.positions_CK[row][: len(best)].tolist() == best
            assert (found.positions_CK[row][len(best) :] == -1).all() and found.positions_CK.shape[1] == neighbours
    alone = find_similar(one, songs[1:2], listening, TargetingConfig(neighbours=3))
    found = find_similar(one, songs, listening, TargetingConfig(neighbours=3))
    np.testing.assert_array_equal(alone.positions_CK[0], found.positions_CK[1])


@pytest.mark.parametrize("mode", ["i2i2u", "cat", "union", "taste"])
def test_the_command_reaches_the_long_tail_beside_the_new(
    i2i_run: Path, catalogue: Catalogue, tmp_path: Path, mode: str, capsys: pytest.CaptureFixture[str]
) -> None:
    index.main(load(IndexConfig, [f"run={i2i_run}", f"out={tmp_path}/index"]))
    tables: dict[str, Any] = {}
    for name, options in (("new", []), ("both", ["long_tail=15"])):
        given = [f"index={tmp_path}/index", f"out={tmp_path}/{name}", f"mode={mode}", "split=cold", *options]
        audience.main(load(AudienceConfig, [*given, "targeting.budget=20"]))
        tables[name] = pl.read_parquet(tmp_path / name / "audience.parquet")
    tail = catalogue.songs.filter((pl.col("split") == "warm") & (pl.col("popularity") <= 15))["song_id"]
    cold = catalogue.songs.filter(pl.col("split") != "warm")["song_id"]
    both = tables["both"]
    assert len(tail) and set(both["song_id"]) == set(cold) | set(tail)
    if mode in ("i2i2u", "taste"):  # the starts of CAT's clusters are drawn for all songs together
        of_new = both.filter(pl.col("song_id").is_in(cold.implode()))
        assert of_new.drop("score").equals(tables["new"].drop("score"))
    heard = catalogue.plays.select(
        song_id=catalogue.songs["song_id"].gather(catalogue.plays["song"]),
        user_id=catalogue.users["user_id"].gather(catalogue.plays["user"]),
    )
    assert both.join(heard, on=["song_id", "user_id"], how="inner").is_empty()
    similar = pl.read_parquet(tmp_path / "both" / "similar.parquet")
    assert similar.filter(pl.col("song_id") == pl.col("similar_song_id")).is_empty()
    assert f"{len(cold) + len(tail)} songs, " in capsys.readouterr().out
