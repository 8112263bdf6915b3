"""engine=spark against engine=local: the same catalogue from the same log. Skipped where pyspark or Java is missing."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import datetime, time, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from polars.testing import assert_frame_equal

from benchmarks.speed.public_sets import PublicSetsConfig, log_of, write_recbole
from configs.data import PairsConfig
from configs.errors import UserError
from data.contract.dataset import plays_files, read_dataset
from data.contract.play_rules import usable_plays
from data.item_pairs import mining as positives
from data.spark import pairs as spark_pairs
from data.spark import plays as spark_plays
from data.spark.parquet import int96_in, read_log
from tests.spark_session import small_session

pytest.importorskip("pyspark", reason="pyspark is not installed")
if not (os.environ.get("JAVA_HOME") or shutil.which("java")):
    pytest.skip("there is no Java here", allow_module_level=True)

MINE: dict[str, Any] = {
    "similarity": "phi", "shrinkage": 0.0, "top_k": 8, "min_common": 1, "max_history": 0, "posterior": "later_plays",
    "drop_above": 0.5, "prior_outcomes": 1.0, "keep_unobserved": True,
}  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def spark() -> Iterator[Any]:
    """One small session for all tests, which `connect` finds."""
    with small_session("local[2]") as session:
        yield session


def in_two_unicode_forms(source: Path) -> None:
    """Give song ids an accent, composed in songs, apart in every other row elsewhere."""
    for name in ("songs", "plays", "tags", "i2i_feedback"):
        if (source / f"{name}.parquet").exists():
            table, ids = pl.read_parquet(source / f"{name}.parquet", glob=False), pl.col("^.*song_id$")
            accented = pl.when(pl.int_range(pl.len()) % 2 == 0).then(ids + "\u00e9").otherwise(ids + "e\u0301")
            accented = ids + "\u00e9" if name == "songs" else accented
            table.with_columns(accented).write_parquet(source / f"{name}.parquet")


@pytest.mark.parametrize("times", [True, False])
def test_the_same_catalogue(
    times: bool,
    prepare: Callable[..., Path],
    dirty: Callable[..., Path],
    same_catalogue: Callable[..., dict[str, Any]],
    tmp_path: Path,
) -> None:
    """Rejected rows and their names, notes, histories, popularity, strengths, pairs: all of a dirty log.

    Once split by time, with a table of users, times of another unit and zone, a folder of files; once without these.
    """
    source = dirty(tmp_path / ("a b=c é [1]" if times else "source"), users_table=times, times=times)
    if times:
        in_two_unicode_forms(source)
        plays = pl.read_parquet(source / "plays.parquet", glob=False).with_columns(
            pl.col("played_at").cast(pl.Datetime("ns")).dt.replace_time_zone("Asia/Shanghai"),
            pl.col("play_count").cast(pl.Int16),
        )
        (source / "plays.parquet").unlink()
        for number, part in enumerate(plays.iter_slices(4000)):
            part.write_parquet(source / "plays" / f"part={number}" / "a b.parquet", mkdir=True)
    options = ["pairs.min_common=1", "pairs.top_k=20", "pairs.max_history=15"]
    options += [] if times else ["split.by=random"]
    local = prepare(source, tmp_path / "local", *options)
    manifest = same_catalogue(local, prepare(source, tmp_path / "by=spark 2", *options, "engine=spark"))
    assert manifest["pairs"]["users_capped"] > 0 and len(manifest["rejected"]) >= 6
    assert (manifest["counts"]["warm_plays_after_cutoff_left_out"] > 0) == times
    assert manifest["pairs"]["posterior"] == ("later_plays" if times else "none")


def test_the_same_catalogue_of_odd_files(
    prepare: Callable[..., Path],
    dirty: Callable[..., Path],
    mixed: Callable[[Path, Path, Path], None],
    same_catalogue: Callable[..., dict[str, Any]],
    tmp_path: Path,
) -> None:
    """Types that differ among files, rows that differ in nested columns alone, names that are none in SQL."""
    mixed(dirty(tmp_path / "log"), tmp_path / "plain", tmp_path / "mixed")
    options = ["pairs.min_common=1", "pairs.top_k=20"]
    local = prepare(tmp_path / "plain", tmp_path / "local", *options)
    found = prepare(tmp_path / "mixed", tmp_path / "spark", *options, "engine=spark")
    manifest = same_catalogue(local, found)
    assert any("_metadata left out" in note for note in manifest["notes"])
    odd = {"nested", "Device `x`, [1]", "DEVICE", "*", "^.*$", "n.u", "context", "a.map"}
    assert odd < set(manifest["ignored_columns"]["plays"])


def test_the_same_catalogue_of_files_of_many_programs(
    prepare: Callable[..., Path],
    dirty: Callable[..., Path],
    same_catalogue: Callable[..., dict[str, Any]],
    spark: Any,
    tmp_path: Path,
) -> None:
    """Ids as pandas, hashes and databases have them, blank ones, times of Hive, columns that do not go together."""
    source = dirty(tmp_path / "source")
    ids = pl.col("user_id", "song_id").str.slice(1)
    for name in ("songs", "users", "tags"):
        table = pl.read_parquet(source / f"{name}.parquet")
        table.with_columns(pl.col("^(user|song)_id$").str.slice(1)).write_parquet(source / f"{name}.parquet")
    plays = pl.read_parquet(source / "plays.parquet").with_columns(ids).drop("nested")
    (source / "plays.parquet").unlink()
    number = pl.col("user_id", "song_id").cast(pl.Int64)
    blank = pl.when(pl.col("user_id") == "3").then(pl.lit("\u00a0 ")).otherwise("user_id").alias("user_id")
    changes: list[list[Any]] = [
        [number.cast(pl.Float64).fill_null(float("nan")), pl.lit([[]]).alias("mood"), pl.lit(0).alias("Unnamed: 0")],
        [number.cast(pl.UInt64), pl.struct(x="play_count").alias("how"), pl.col("play_count").cast(pl.Float64)],
        [number.cast(pl.Decimal(38, 0)), pl.struct(x="play_count", y="device").alias("how"), pl.lit(b"a").alias("raw")],
        [blank, pl.lit([["calm"]]).alias("mood"), pl.lit("a").alias("raw"), pl.int_range(pl.len()).alias("played_by")],
    ]
    for file, (part, change) in enumerate(zip(plays.iter_slices(2500), changes, strict=True)):
        made = part.with_columns(pl.col("played_at").cast(pl.Datetime("ns"))).with_columns(change)
        path = source / "plays" / f"{file}.parquet"
        path.parent.mkdir(exist_ok=True)
        table = made.to_arrow(compat_level=pl.CompatLevel.oldest())
        pq.write_table(table, path, use_deprecated_int96_timestamps=file % 2 == 1)
    part.head(300).with_columns(played_by=pl.lit(-1)).write_parquet(source / "plays" / "again.parquet")
    options = ["pairs.min_common=1", "pairs.top_k=20"]
    local = prepare(source, tmp_path / "local", *options)
    manifest = same_catalogue(local, prepare(source, tmp_path / "spark", *options, "engine=spark"))
    assert any("rows are equal to another, time and all" in note for note in manifest["notes"])
    once = partial(spark_plays.check_plays, spark, plays_files(source, None), tmp_path, repeats="plays")
    one, other = (read_dataset(source, check=check) for check in (once, partial(usable_plays, repeats="plays")))
    assert one.rejected == other.rejected and one.notes == other.notes and one.plays.height == other.plays.height
    assert sum("left out" in note for note in manifest["notes"]) == 3, "how, raw and pandas' index"
    assert manifest["rejected"]["plays_without_id"]["count"] > 30
    assert manifest["ignored_columns"]["plays"] == ["device", "mood", "played_by"]
    assert int96_in(str(source / "plays" / "1.parquet")) == ("played_at",)


WHEN = [datetime(2026, 1, 2, 3, 4, 5, n) for n in range(6)]
NANOSECONDS = pa.timestamp("ns")
CLOCK: list[Any] = [time(0), time(23, 59, 59, 999_000), time(1, 2, 3), time(1, 2, 3), time(12), None]
HALVES = np.array([0.1, -1.5, 6e-8, 65504, np.inf, 0], np.float16)  # 6e-8 is subnormal
BESIDE = pa.struct([("a", NANOSECONDS), ("b", pa.float16())])
UNUSED = {  # columns in one file; in two, of which the second has INT96 for times
    "nothing": [[None] * 6],
    "empty lists": [[[]] * 6],
    "empty lists, then lists": [[[]] * 6, [["calm"]] * 6],
    "a struct with nothing": [[{"a": None, "b": 1}] * 6],
    "times": [pa.array(WHEN, NANOSECONDS)] * 2,
    "times of a zone": [pa.array(WHEN, pa.timestamp("ns", "UTC"))] * 2,
    "times in lists": [pa.array([[one] for one in WHEN], pa.list_(NANOSECONDS))] * 2,
    "times of day": [pa.array(CLOCK, pa.time64("us"))] * 2,
    "times of day in other units": [pa.array(CLOCK, pa.time32("ms")), pa.array(CLOCK, pa.time64("us"))],
    "times of day in structs in lists": [pa.array([[{"a": one}] for one in CLOCK])] * 2,
    "16 bits": [pa.array(HALVES)] * 2,
    "16 bits in lists": [pa.array([[one, None] for one in HALVES], pa.list_(pa.float16()))] * 2,
    "16 bits beside times": [pa.array([{"a": one, "b": HALVES[0]} for one in WHEN], BESIDE)] * 2,
    "times in structs": [pa.array([{"a": one} for one in WHEN[:5]] + [None], pa.struct([("a", NANOSECONDS)]))] * 2,
}


@pytest.mark.parametrize("name", UNUSED)
def test_columns_that_are_not_used_are_as_polars_reads_them(name: str, spark: Any, tmp_path: Path) -> None:
    for folder in ("plays", "aside"):
        (tmp_path / folder).mkdir()
    pl.DataFrame({"song_id": ["a", "b"]}).write_parquet(tmp_path / "songs.parquet")
    for file, values in enumerate(UNUSED[name]):
        ids = {"user_id": [f"{file}-{n}" for n in range(6)], "song_id": ["a", "b"] * 3, "mood": values}
        options = {"use_deprecated_int96_timestamps": file == 1}
        pq.write_table(pa.table(ids), tmp_path / "plays" / f"{file}.parquet", **options)
    files = plays_files(tmp_path, None)
    one = read_dataset(tmp_path)
    other = read_dataset(tmp_path, check=partial(spark_plays.check_plays, spark, files, tmp_path / "aside"))
    assert one.notes == other.notes and one.ignored_columns == other.ignored_columns == {"plays": ["mood"]}
    assert_frame_equal(*(found.plays.sort("user_id") for found in (one, other)))


def test_plays_of_a_catalogue_with_columns_that_spark_does_not_know(spark: Any, folder: Path, tmp_path: Path) -> None:
    """Such as times of day, which the catalogue keeps."""
    path, half = tmp_path / "plays.parquet", pl.lit([0.1], pl.List(pl.Float16))
    pl.read_parquet(folder / "plays.parquet").with_columns(clock=pl.lit(time(1, 2)), half=half).write_parquet(path)
    found, wanted = (spark_pairs.read_plays(spark, at).toArrow() for at in (path, folder / "plays.parquet"))
    assert found.num_rows == 4000 and found.equals(wanted)


def test_a_hidden_file_is_refused() -> None:
    """Spark would leave it out without a word."""
    with pytest.raises(UserError, match=r"_new\.parquet: Spark reads no file whose name begins with"):
        read_log(None, ["plays/a.parquet", "plays/_new.parquet"], pl.Schema(), Path())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Plays of 120 users, 50 songs, in the form of a catalogue, a third of the times alike."""
    rng = np.random.default_rng(1)
    n, start = 4000, datetime(2026, 1, 1)
    days = rng.integers(0, 60, n)
    plays = pl.DataFrame(
        {
            "user": (rng.random(n) ** 2 * 120).astype(np.int32),
            "song": (rng.random(n) ** 2 * 50).astype(np.int32),
            "strength": rng.choice([-1.0, 1.0, 2.0, 3.0], n),
            "played_at": [start + timedelta(days=int(d)) if d else None for d in days],
        },
        schema={"user": pl.Int32, "song": pl.Int32, "strength": pl.Float32, "played_at": pl.Datetime("ms")},
    ).sort("user", "played_at", "song")
    at = tmp_path_factory.mktemp("catalogue")
    plays.write_parquet(at / "plays.parquet", row_group_size=500)
    return at


FEEDBACK = pl.DataFrame(
    {
        "source": [0, 1, 2, 3],
        "target": [1, 0, 3, 4],
        "plays": [90, 90, 50, 9],
        "completes": [9, 80, 0, 4],
        "favourites": [0, 50, 0, 4],
    }
)


@pytest.mark.parametrize(
    "options",
    [
        {"similarity": "phi", "max_history": 15},
        {"similarity": "iuf", "min_common": 3, "posterior": "none"},
        {"similarity": "cosine", "shrinkage": 5.0, "posterior": "feedback"},
        {"similarity": "cosine", "min_common": 2, "posterior": "feedback_and_later_plays"},
        {"similarity": "bm25", "max_history": 10, "posterior": "none"},
    ],
    ids=lambda one: f"{one['similarity']}-{one.get('posterior', 'later_plays')}",
)
def test_the_same_pairs(options: dict[str, Any], spark: Any, folder: Path) -> None:
    asked, seed = PairsConfig(**MINE | options), len(options)
    local, expected = positives.mine(pl.scan_parquet(folder / "plays.parquet"), FEEDBACK, (120, 50), asked, seed)
    found, evidence = spark_pairs.mine(spark, folder, FEEDBACK, (120, 50), asked, seed)
    assert evidence == expected and len(found) > 100
    if asked.posterior == "later_plays":
        assert evidence["dropped"] > 0 and evidence["users_capped"] > 0
    if options["similarity"] in ("phi", "cosine"):  # of whole numbers: not even a rounding differs
        assert_frame_equal(found.frame(), local.frame())
        return
    both = local.frame().join(found.frame(), on=["source", "target"], how="inner")
    assert both.height > 0.98 * len(local), "up to ties in the last place"
    np.testing.assert_allclose(both["similarity"], both["similarity_right"], rtol=1e-6)


def test_what_is_not_to_be_had(spark: Any, folder: Path, prepare: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no i2i_feedback"):
        spark_pairs.mine(spark, folder, None, (120, 50), PairsConfig(posterior="feedback"), 0)
    with pytest.raises(UserError, match="memory_gb= is for engine=local"):
        prepare(tmp_path, tmp_path / "out", "engine=spark", "memory_gb=1")


def test_public_data_sets(
    prepare: Callable[..., Path], same_catalogue: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    """They are written as a dataset folder first, whose log Spark reads."""
    config = PublicSetsConfig(plays=2000, users=60, songs=100, dim=4)
    write_recbole(tmp_path, log_of(config), config)
    local = prepare(tmp_path, tmp_path / "local", "format=recbole")
    same_catalogue(local, prepare(tmp_path, tmp_path / "spark", "format=recbole", "engine=spark"))


@pytest.mark.parametrize("missing", ["pyspark", "java"])
def test_missing_pyspark_or_java_is_one_line(missing: str, tmp_path: Path, dataset: Path) -> None:
    """In a process of its own: without the package, and with a JAVA_HOME where no Java is."""
    hide = "import sys; sys.modules['pyspark'] = None; sys.modules['pyspark.errors'] = None; " * (missing == "pyspark")
    code = f"{hide}from data.spark.plays import connect; from configs.load import command"
    code += "; from configs.data import PrepareConfig; command(lambda c: connect(c.spark.master), PrepareConfig, '', "
    code += f"['source={dataset}', 'out={tmp_path}/out', 'engine=spark', 'spark.master=local[1]'])"
    away = os.environ | {"JAVA_HOME": str(tmp_path)} if missing == "java" else os.environ
    done = subprocess.run([sys.executable, "-c", code], env=away, capture_output=True, text=True)
    error = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert done.returncode == 2 and len(error) == 1, done.stderr
    says = {"pyspark": "pip install -e '.[spark]'", "java": "Java 17 or newer must be on PATH"}
    assert says[missing] in error[0]
    assert says["pyspark"] in (Path(__file__).parents[3] / "docs" / "data.md").read_text("utf-8"), "one advice"
    assert "Traceback" not in done.stderr


def test_connect_takes_the_session_there_is(spark: Any) -> None:
    assert spark_plays.connect("local[1]") is spark
