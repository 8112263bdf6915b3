"""Audiences on Spark against `Targeting` on one machine: the same lists. Skipped where pyspark or Java is missing."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal
from scipy import sparse

from configs.errors import UserError
from configs.targeting import AudienceSparkConfig, TargetingConfig
from data.catalogue import Catalogue
from data.spark.parquet import pattern
from inference import spark_audience, user_parts
from inference.audience import warmed
from inference.filters import FirstPlays
from inference.song_index import SongIndex
from inference.spark_audience import SparkTargeting, listening_in_spark, plays_of, read_plays, targeting_in_spark
from inference.targeting import targeting_of
from inference.vectors import Boundary
from retrieval.allocation import Exploration
from retrieval.audience import Excluded
from retrieval.index import build_index
from retrieval.listening import Listening
from retrieval.songs import Songs
from retrieval.targeting import Mode, Targeting
from tests.commands import run
from tests.inference.test_filters import first_plays
from tests.spark_session import small_session

pytest.importorskip("pyspark", reason="pyspark is not installed")
if not (os.environ.get("JAVA_HOME") or shutil.which("java")):
    pytest.skip("there is no Java here", allow_module_level=True)

USERS, SONGS, NEW = 60, 40, np.arange(30, 40)
OPTIONS = TargetingConfig(
    neighbours=8, activity_power=0.5, seed_users=9, clusters=3, song_weight=2.0, songs_per_user=3, memory_mb=64.0
)  # fmt: skip
PAIRS = np.unique(np.random.default_rng(5).integers(0, (10, USERS), (80, 2)), axis=0).T
EXCLUDED = Excluded(np.array([3, 20, 21, 22]), *PAIRS)


@pytest.fixture(scope="module", autouse=True)
def spark() -> Iterator[Any]:
    """One small session for all tests, which `connect` finds; a task may fail twice."""
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    with small_session("local[2, 3]", "OFF") as session:
        yield session


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory: pytest.TempPathFactory) -> Catalogue:
    """Forty songs, the last ten of them new; every third user's plays are those of the one before them, so that lists
    have ties; users 7 and 59 have no play; plays are repeated, weaker or disliked."""
    folder = tmp_path_factory.mktemp("catalogue a,b [1]")
    rng = np.random.default_rng(0)
    heard = np.where(rng.random((USERS, NEW[0])) < 0.2, rng.integers(1, 4, (USERS, NEW[0])), 0)
    heard[1::3] = heard[::3]
    heard[[7, 59]] = 0
    user, song = np.nonzero(heard)
    again = rng.permutation(len(user))[:100]
    columns = {"user": np.r_[user, user[again]], "song": np.r_[song, song[again]]}
    strength = np.r_[heard[user, song], rng.integers(-1, 1, 50), np.ones(50)].astype(np.float32)
    plays = pl.DataFrame(columns | {"strength": strength}).cast({"user": pl.Int32, "song": pl.Int32})
    disliked = {"user": [7, 7], "song": [1, 2], "strength": [-1.0, -1.0]}
    plays = pl.concat([plays, pl.DataFrame(disliked, plays.schema)]).sample(fraction=1, shuffle=True, seed=0)
    plays.write_parquet(folder / "plays.parquet")
    found = Catalogue(folder, {})
    split = ["warm"] * int(NEW[0]) + ["cold_test"] * len(NEW)
    found.songs = pl.DataFrame({"song_id": [f"s{song}" for song in range(SONGS)], "split": split})
    found.users = pl.DataFrame({"user_id": [f"u{user}" for user in range(USERS)]})
    return found


def index() -> SongIndex:
    vectors = np.random.default_rng(0).standard_normal((SONGS, 6)).astype(np.float32)
    known = np.arange(NEW[0])
    return SongIndex({}, build_index(vectors[known]), known, vectors)


def boundary() -> Boundary:
    """Whole numbers, so that margins tie and are exact in any order of summation."""
    rng = np.random.default_rng(2)
    made = [rng.integers(-2, 3, shape).astype(np.float32) for shape in ((len(NEW), 3), (USERS, 3), USERS)]
    return Boundary(None, *made)  # type: ignore[arg-type]  # there is no run


def local(catalogue: Catalogue, options: TargetingConfig = OPTIONS, bounded: bool = True) -> Targeting:
    table = pl.read_parquet(catalogue.folder / "plays.parquet", glob=False).filter(pl.col("strength") > 0)
    heard = np.zeros((USERS, SONGS), dtype=np.float32)
    np.maximum.at(heard, (table["user"].to_numpy(), table["song"].to_numpy()), table["strength"].to_numpy())
    return targeting_of(index(), Listening(sparse.csr_matrix(heard)), options, boundary() if bounded else None)


def in_spark(
    catalogue: Catalogue, parts: int, aside: Path, options: TargetingConfig = OPTIONS, bounded: bool = True
) -> SparkTargeting:
    plays, n = read_plays(AudienceSparkConfig(partitions=parts), catalogue)
    listening = listening_in_spark(plays, n, catalogue)
    return targeting_in_spark(index(), listening, options, boundary() if bounded else None, aside)


def asked(targeting: Targeting, excluded: Excluded = EXCLUDED, bounded: bool = True) -> Songs:
    return targeting.songs(targeting.song_SD[NEW], NEW, boundary().item_CD if bounded else None, excluded)


def assert_same(targeting: SparkTargeting, expected: Targeting, mode: Mode, *how: Any) -> None:
    """The same users in the same order, with the same scores, drawn alike."""
    (one, songs), (other, beside) = ((which, asked(which)) for which in (targeting, expected))
    found, by_hand = one.audience(songs, mode, *how), other.audience(beside, mode, *how)
    np.testing.assert_array_equal(found.users_CB, by_hand.users_CB)
    assert found.scores_CB.dtype == by_hand.scores_CB.dtype
    np.testing.assert_array_equal(found.scores_CB, by_hand.scores_CB)
    for name in ("explored_CB", "propensity_CB"):
        assert np.array_equal(getattr(found, name), getattr(by_hand, name)), name
    assert (found.users_CB >= 0).sum() > 30


@pytest.mark.parametrize("parts", [1, 2, 5])
def test_the_same_lists(parts: int, catalogue: Catalogue, tmp_path: Path) -> None:
    """Every mode, gated or not, short lists and such as hold everybody, with caps and with draws."""
    targeting, expected = in_spark(catalogue, parts, tmp_path), local(catalogue)
    np.testing.assert_array_equal(targeting.popularity_S, expected.popularity_S)
    draws = Exploration(0.3, 4, np.arange(len(NEW)))
    modes: tuple[Mode, ...] = ("i2i2u", "taste", "cat", "union", "boundary")
    for mode in modes:
        how = (USERS,) if parts == 1 else (7, True, 1.0) if parts == 2 else (5, True, 0.0, 3, draws)
        assert_same(targeting, expected, mode, *how)
    songs, beside = asked(targeting), asked(expected)
    users_CB = np.r_[:10].reshape(10, 1) * np.r_[1:6] - 1
    np.testing.assert_array_equal(targeting.reasons(users_CB, songs), expected.reasons(users_CB, beside))
    found = targeting.recommend(songs, 3, 0.5, tmp_path).collect()
    by_hand = expected.songs_of_users(boundary().item_CD, 3, 0.5, songs.excluded)
    user, rank = np.nonzero(by_hand.users_CB >= 0)
    rows = {"user": user, "song": by_hand.users_CB[user, rank], "rank": rank + 1}
    assert_frame_equal(found, pl.DataFrame(rows | {"margin": by_hand.scores_CB[user, rank]}))


@pytest.mark.parametrize("mode", ["i2i2u", "taste", "cat"])
def test_lists_have_ties_and_all_of_them_are_in_order(mode: Mode, catalogue: Catalogue) -> None:
    """What the test above compares is no accident of distinct scores."""
    scores = local(catalogue).audience(asked(local(catalogue)), mode, 20).scores_CB
    assert ((np.diff(scores) == 0) & (scores[:, 1:] > -np.inf)).any(axis=1).sum() > 5


def test_a_task_that_dies_is_done_again(catalogue: Catalogue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pyspark import TaskContext, cloudpickle

    def dying(batches: Any, shared: Any, searches: list[Any]) -> Iterator[Any]:
        """Dies after its list, the first time."""
        for at, rows in enumerate(user_parts.named_users(batches, shared, searches)):
            yield rows
            task: Any = TaskContext.get()
            if at == 0 and task.attemptNumber() == 0:
                (tmp_path / f"died-{task.partitionId()}").touch()
                raise RuntimeError("killed")

    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    targeting, expected = in_spark(catalogue, 2, tmp_path), local(catalogue)
    with monkeypatch.context() as patch:
        patch.setattr(spark_audience, "named_users", dying)
        assert_same(targeting, expected, "cat", 6, True)
    assert len(list(tmp_path.glob("died-*"))) == 2


def test_parts_without_a_user_and_songs_without_an_audience(catalogue: Catalogue, tmp_path: Path) -> None:
    """More parts than users, everybody excluded but one, and songs whose similar ones nobody has heard."""
    few = Catalogue(tmp_path, {})
    few.songs, few.users = catalogue.songs, catalogue.users
    plays = pl.read_parquet(catalogue.folder / "plays.parquet", glob=False).filter(pl.col("user").is_in([4, 5, 9]))
    plays.write_parquet(tmp_path / "plays.parquet")
    excluded, options = Excluded(np.setdiff1d(np.arange(USERS), [5])), replace(OPTIONS, neighbours=1)
    targeting, expected = in_spark(few, 7, tmp_path, options, False), local(few, options, False)
    modes: tuple[Mode, ...] = ("i2i2u", "union")
    for mode in modes:
        found, by_hand = (one.audience(asked(one, excluded, False), mode, 3) for one in (targeting, expected))
        np.testing.assert_array_equal(found.users_CB, by_hand.users_CB)
        assert set(found.users_CB.ravel()) == {-1, 5} and (found.users_CB < 0).all(axis=1).any()


def test_songs_warm_up_alike(catalogue: Catalogue, tmp_path: Path) -> None:
    """By plays of those who have heard something and of those who have not; the sums go over all users' tastes."""
    strength_CU = sparse.csr_matrix(([3.0, 1.0, 2.0, 1.0], ([0, 0, 2, 3], [4, 5, 59, 11])), (len(NEW), USERS))
    first = FirstPlays(strength_CU.astype(np.float32), np.zeros(0, dtype=int), np.zeros(0, dtype=int), "")
    expected = warmed(index(), NEW, local(catalogue).listening, first, 5.0).vectors
    for parts in (1, 5):
        plays, n = read_plays(AudienceSparkConfig(partitions=parts), catalogue)
        found = warmed(index(), NEW, listening_in_spark(plays, n, catalogue), first, 5.0).vectors
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    moved = np.flatnonzero((expected != index().vectors).any(axis=1))
    assert moved.tolist() == [30, 33], "song 32 was played by a user of whom nothing is known"


def test_plays_of_another_catalogue_are_refused(catalogue: Catalogue, tmp_path: Path) -> None:
    def refused(plays: dict[str, list[Any]], said: str) -> None:
        table, path = pl.DataFrame(plays).cast({"user": pl.Int32, "song": pl.Int32}), tmp_path / f"{said[:9]}.parquet"
        table.with_columns(strength=pl.lit(1.0, pl.Float32)).write_parquet(path)
        given, parts = read_plays(AudienceSparkConfig(plays=pattern(path)), catalogue)
        with pytest.raises(UserError, match=said):
            listening_in_spark(given, parts, catalogue)

    refused({"user": [0, USERS], "song": [0, 1]}, f"user {USERS}, song 1, where .* has {USERS} users and {SONGS} songs")
    refused({"user": [0], "song": [35]}, "plays of held-out songs")
    refused({"user": [], "song": []}, "has no plays")
    with pytest.raises(UserError, match=r"plays cannot be read from .*nowhere"):
        read_plays(AudienceSparkConfig(plays=pattern(tmp_path / "nowhere")), catalogue)


@pytest.mark.parametrize(("python", "said"), [("nowhere", "Cannot run program"), ("bare", "No module named")])
def test_workers_without_the_package_are_one_line(
    python: str, said: str, spark: Any, catalogue: Catalogue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No Python where this process has its own, or one without anything installed."""
    (tmp_path / "bare").write_text(f'#!/bin/sh\nexec {sys.executable} -S "$@"\n')
    (tmp_path / "bare").chmod(0o755)
    monkeypatch.setattr(spark.sparkContext, "pythonExec", str(tmp_path / python))
    plays, parts = read_plays(AudienceSparkConfig(), catalogue)
    with pytest.raises(UserError, match=rf"workers need the Python of this environment, .*{said}.*docs/scaling"):
        listening_in_spark(plays, parts, catalogue)


def test_listeners_of_the_long_tail(catalogue: Catalogue) -> None:
    """Who has played a song of the pool, also who disliked it."""
    plays, _ = read_plays(AudienceSparkConfig(), catalogue)
    table = pl.read_parquet(catalogue.folder / "plays.parquet", glob=False)
    expected = table.filter(pl.col("song").is_in([1, 5])).select("song", "user").unique()
    found = plays_of(plays, np.array([1, 5]))
    assert_frame_equal(found.sort("song", "user"), expected.sort("song", "user"))
    assert (1, 7) in found.rows() and plays_of(plays, np.array([], dtype=int)).is_empty()


@pytest.mark.parametrize("warm", [False, True])
def test_the_command_writes_the_same_tables(
    warm: bool, catalogue_folder: Path, i2i_run: Path, boundary_run: Path, tmp_path: Path
) -> None:
    """From trained models: audiences of new songs and of the long tail, gated, of some users without those excluded;
    and where some new songs have been played."""
    run("index", f"run={i2i_run}", f"out={tmp_path / 'index'}")
    pl.DataFrame({"user_id": ["u1", "u2"]}).write_parquet(tmp_path / "users.parquet")
    options = ["mode=union", "gate=true", "long_tail=20", f"index={tmp_path / 'index'}", f"boundary={boundary_run}"]
    options += [f"exclude={tmp_path / 'users.parquet'}", "targeting.per_user_cap=3", "targeting.exploration=0.2"]
    options += ["users_where=age >= 22"]
    if warm:
        options += [f"plays={first_plays(Catalogue.read(catalogue_folder), tmp_path / 'first')}", "split=cold"]
    run("audience", *options, f"out={tmp_path / 'local'}")
    run("audience", *options, f"out={tmp_path / 'spark'}", "engine=spark", "spark.partitions=3")
    for name in ("audience", "similar", "recommendations"):
        found, expected = (pl.read_parquet(tmp_path / engine / f"{name}.parquet") for engine in ("spark", "local"))
        assert found.height > 20
        assert_frame_equal(found, expected, abs_tol=1e-6)  # products of matrices of another shape
    found, expected = (json.loads((tmp_path / engine / "manifest.json").read_text()) for engine in ("spark", "local"))
    assert found.pop("options") != expected.pop("options") and found == expected
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"index", "local", "spark", "users.parquet", *(["first"] if warm else [])}


def test_evaluation_has_the_same_figures(
    catalogue_folder: Path, i2i_run: Path, boundary_run: Path, tmp_path: Path
) -> None:
    """All of them but ridge → EASE, which is left out."""
    run("index", f"run={i2i_run}", f"out={tmp_path / 'index'}")
    index = tmp_path / "index"
    given = [f"data={catalogue_folder}", f"index={index}", f"boundary={boundary_run}", "budgets=[5,20]", "ease_songs=1"]
    given += [f"compare={{again: {index}}}", "targeting.activity_power=0.5"]
    for engine, more in (("local", []), ("spark", ["spark.partitions=3"])):
        run("evaluate", *given, f"engine={engine}", *more, f"out={tmp_path / engine}")
    found, expected = (json.loads((tmp_path / name / "metrics.json").read_text()) for name in ("spark", "local"))
    assert found == expected
    assert {"most active users", "content kNN", "FirstPlay U2I, no boundary"} <= {
        row["method"] for row in found["audience"]
    }
