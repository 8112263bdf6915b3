"""Ranking with plays in Spark against plays on one machine: the same features, histories and lists. Skipped where
pyspark or Java is missing."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from configs.errors import UserError
from configs.load import load
from configs.ranking import RankConfig
from configs.targeting import AudienceSparkConfig
from data.catalogue import Catalogue
from inference.spark_audience import read_plays
from inference.spark_ranking import DAY, SparkFeatures, played
from retrieval.play_log import PlayLog
from retrieval.rank_features import OF_PLAYS
from tests.commands import run
from tests.retrieval.test_rank_features import DEPTH, source, with_facts
from tests.retrieval.test_targeting import NEW, USERS, world
from tests.spark_session import small_session
from training import ranking

pytest.importorskip("pyspark", reason="pyspark is not installed")
if not (os.environ.get("JAVA_HOME") or shutil.which("java")):
    pytest.skip("there is no Java here", allow_module_level=True)


@pytest.fixture(scope="module", autouse=True)
def spark() -> Iterator[Any]:
    """One small session for all tests, which `connect` finds."""
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    with small_session("local[2]", "OFF") as session:
        yield session


def written(log: PlayLog, folder: Path) -> Path:
    """A log as the plays of a catalogue, in no order."""
    columns = {"user": log.user_N, "song": log.song_N, "strength": log.strength_N.astype(np.float32)}
    plays = pl.DataFrame(columns).cast({"user": pl.Int32, "song": pl.Int32})
    when = pl.Series(log.day_N * DAY).fill_nan(None).cast(pl.Int64).cast(pl.Datetime("ms"))
    flags = {name: getattr(log, f"{name}_N") for name in ("completed", "favourited", "disliked")}
    told = {name: pl.Series(flag).fill_nan(None).cast(pl.Boolean) for name, flag in flags.items()}
    plays = plays.with_columns(when.alias("played_at"), **told).sample(fraction=1, shuffle=True, seed=0)
    plays.write_parquet(folder / "plays.parquet")
    return folder


@pytest.mark.parametrize(
    ("parts", "seed", "dated", "day_C"),
    [
        (1, 0, True, [np.nan, -30.0, 20.0, 50.0, 64.0, 1000.0]),
        (2, 1, True, [20.0, 20.5, 1000.0, 2000.0]),
        (5, 2, True, [np.nan]),
        (2, 3, False, [np.nan, 3.0]),
    ],
)
def test_features_and_histories_are_those_of_the_whole_log(
    parts: int, seed: int, dated: bool, day_C: list[float], tmp_path: Path
) -> None:
    """Songs that see no play, some, the same ones by another day, and all of them."""
    targeting, heard = world()
    of = source(targeting, heard, seed, dated)
    songs = with_facts(targeting, of, np.random.default_rng(seed).choice(day_C, len(NEW)))
    candidates = targeting.candidates(songs, DEPTH)
    expected, by_hand = of.told(targeting, songs, candidates, 5)
    assert isinstance(of.log, PlayLog)
    plays, _ = read_plays(AudienceSparkConfig(), Catalogue(written(of.log, tmp_path), {}), ranked=True)
    given = of.log, of.songs, of.profile, of.codes, of.new_days, of.memory_mb
    features = SparkFeatures(*given, rows=played(plays), parts=parts, n_users=USERS)
    found, histories = features.told(targeting, songs, candidates, 5)
    assert np.isfinite(expected[:, [of.names.index(name) for name in OF_PLAYS]]).any(axis=0).sum() >= 16
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)
    for name in ("song_RT", "signal_RT", "row_P"):
        np.testing.assert_array_equal(getattr(histories, name), getattr(by_hand, name))
    assert features.told(targeting, songs, candidates, 0)[1] is None


def test_plays_without_times_are_refused(tmp_path: Path) -> None:
    plays = pl.DataFrame({"user": [0], "song": [0], "strength": [1.0]})
    plays.cast({"user": pl.Int32, "song": pl.Int32, "strength": pl.Float32}).write_parquet(tmp_path / "plays.parquet")
    with pytest.raises(UserError, match=r"plays\.parquet has no column played_at of times, which rank= asks for"):
        read_plays(AudienceSparkConfig(), Catalogue(tmp_path, {}), ranked=True)
    assert read_plays(AudienceSparkConfig(), Catalogue(tmp_path, {}))[0].count() == 1


def trained(catalogue: Path, i2i: Path, boundary: Path, to: Path, model: str) -> list[str]:
    """The options that name a ranker and what it ranks for."""
    small = ["depth=15", "trees.min_leaf=5", "trees.rounds=40", "trees.parts=3", "network.parts=2", "network.epochs=1"]
    small += ["network.dim=8", "network.heads=2", "network.hidden=8", "network.history=6", f"model={model}"]
    of = [f"data={catalogue}", f"i2i={i2i}", f"boundary={boundary}"]
    ranking.train_rank(load(RankConfig, [*of, f"out={to / 'rank'}", *small]))
    run("index", f"run={i2i}", f"out={to / 'index'}")
    return [f"index={to / 'index'}", f"boundary={boundary}", f"rank={to / 'rank'}"]


@pytest.mark.parametrize("model", ["trees", "network"])
def test_the_command_ranks_alike(
    model: str, catalogue_folder: Path, i2i_run: Path, boundary_run: Path, tmp_path: Path
) -> None:
    """Lists, scores and reasons of a trained ranker, also under a cap and with draws."""
    options = ["mode=rank", *trained(catalogue_folder, i2i_run, boundary_run, tmp_path, model)]
    options += ["targeting.budget=10", "targeting.per_user_cap=3", "targeting.exploration=0.2"]
    run("audience", *options, f"out={tmp_path / 'local'}")
    run("audience", *options, f"out={tmp_path / 'spark'}", "engine=spark", "spark.partitions=3")
    found, expected = (pl.read_parquet(tmp_path / engine / "audience.parquet") for engine in ("spark", "local"))
    assert found.height > 20 and found["raised_by"].list.len().max() == 3
    assert_frame_equal(found, expected, abs_tol=1e-5)  # products of matrices of another shape


@pytest.mark.parametrize("model", ["trees", "network"])
def test_evaluation_has_the_same_figures(
    model: str, catalogue_folder: Path, i2i_run: Path, boundary_run: Path, tmp_path: Path
) -> None:
    """Those of a ranker and of its candidates, and rates, gate and reach by outcomes of users who were drawn."""
    options = trained(catalogue_folder, i2i_run, boundary_run, tmp_path, model)
    catalogue, rng = Catalogue.read(catalogue_folder), np.random.default_rng(0)
    new = catalogue.songs[catalogue.rows("cold")].select("song_id")
    truth = new.join(catalogue.users.select("user_id"), how="cross")
    drawn = {name: rng.random(truth.height) < share for name, share in (("completed", 0.5), ("favourited", 0.2))}
    truth.with_columns(**drawn).sample(fraction=0.5, seed=0).write_parquet(tmp_path / "truth.parquet")
    options += [f"data={catalogue_folder}", f"truth={tmp_path / 'truth.parquet'}", "budgets=[5,20]", "ease_songs=1"]
    run("evaluate", *options, f"out={tmp_path / 'local'}")
    run("evaluate", *options, f"out={tmp_path / 'spark'}", "engine=spark", "spark.partitions=3")
    found, expected = (json.loads((tmp_path / name / "metrics.json").read_text()) for name in ("spark", "local"))
    assert "FirstPlay, ranked" in {row["method"] for row in found["audience"]} and found["candidates"]
    assert found["outcomes"]["source"] == found["gate"]["source"] == "truth" and found["reach"].keys() == {
        "ungated",
        "gated",
    }
    assert found == expected
