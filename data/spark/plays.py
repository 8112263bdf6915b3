"""Check, index and split plays with Spark, by the same SQL rules as `play_rules.py` and `play_tables.py`.

Spark reads the log and writes Parquet into a folder beside the catalogue, which all workers must see; the catalogue's
tables are assembled from there, a row group at a time.
"""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from polars.selectors import by_name

from configs.errors import UserError
from data.arrays import IntArray
from data.contract.columns import PAIR
from data.contract.play_rules import REPEATED, ROW_RULES, USED, Plays
from data.contract.row_rules import Rejected, other_forms
from data.play_tables import STRENGTH
from data.spark.parquet import ORDER, pattern, quoted, read_log, uri
from data.split import WARM, Split

SETTINGS = {
    "spark.ui.showConsoleProgress": "false",
    "spark.log.level": "ERROR",
    "spark.sql.caseSensitive": "true",
    "spark.sql.session.timeZone": "UTC",
    "spark.sql.legacy.parquet.nanosAsLong": "true",
    "spark.sql.parquet.outputTimestampType": "TIMESTAMP_MICROS",
}


SCHEDULER = "org.apache.spark.scheduler.TaskSchedulerImpl"  # its warnings: that no worker has room for a job


def connect(master: str | None) -> Any:
    """Get the active Spark session, or start one on `master` (None: from spark-submit or Spark's settings).

    Raises:
        UserError: pyspark or Java is missing, or Spark does not start.
    """
    try:
        from py4j.protocol import Py4JJavaError
        from pyspark.errors import PySparkException
        from pyspark.sql import SparkSession
    except ImportError:
        raise UserError("engine=spark needs pyspark: pip install -e '.[spark]'; and Java 17 or newer") from None
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)  # of the workers; else whatever python3 they find
    builder = SparkSession.builder.appName("firstplay")
    for key, value in SETTINGS.items():
        builder = builder.config(key, value)
    try:
        session = (builder.master(master) if master else builder).getOrCreate()
    except (PySparkException, Py4JJavaError, OSError, RuntimeError) as error:
        java = getattr(error, "java_exception", None)
        reason = str(java.getMessage() if java else error).strip().splitlines()[0]
        raise UserError(
            f"Spark does not start ({reason}): Java 17 or newer must be on PATH or at JAVA_HOME, and spark.master right"
        ) from None
    jvm: Any = session.sparkContext._jvm
    log4j = jvm.org.apache.logging.log4j
    log4j.core.config.Configurator.setLevel(SCHEDULER, log4j.Level.WARN)  # or it would wait for room without a word
    return session


def check_plays(
    spark: Any,
    files: list[str],
    aside: Path,
    plays: list[pl.LazyFrame],
    songs: pl.DataFrame,
    users: pl.DataFrame | None,
    rejected: Rejected,
    repeats: str = "rows",
) -> Plays:
    """Select valid plays as `play_rules.usable_plays`, from `files` with the schema of `plays`; written to `aside`."""
    from pyspark.sql import Window
    from pyspark.sql import functions as F

    schema = plays[0].collect_schema()
    log = as_in_songs(spark, read_log(spark, files, schema, aside), songs)
    marked = known(spark, log, songs, users)
    rule = F.expr("CASE " + " ".join(f"WHEN {sql} THEN '{key}'" for key, sql, *_ in ROW_RULES) + " END")
    marked = marked.withColumn("_key", rule).drop("_song", "_user", "_released_at")
    alike = comparable(log, USED if repeats == "plays" else schema)
    again = F.row_number().over(Window.partitionBy(*alike).orderBy(*ORDER)) > 1
    usable = marked.filter("_key IS NULL").withColumn("_key", F.when(again, REPEATED[0]))
    what = {key: (text, show) for key, _, text, show in ROW_RULES} | {REPEATED[0]: (REPEATED[1], PAIR)}
    for bad in (marked, usable):
        name_rejected(bad.filter("_key IS NOT NULL"), what, rejected)
    before = F.lag("played_at").over(Window.partitionBy("user_id").orderBy(*ORDER))
    kept = usable.filter("_key IS NULL").drop("_key").withColumn("_back", F.expr("played_at") < before)
    kept.withColumn("played_at", F.unix_millis("played_at")).write.parquet(uri(aside / "checked"))
    checked = spark.read.parquet(pattern(aside / "checked"))
    dated = f"CASE WHEN played_at IS NOT NULL THEN struct({', '.join(USED)}) END"
    odd = checked.selectExpr(
        "count(*) AS kept", "count_if(played_at IS NULL) AS undated", "count_if(_back) AS back",
        "count(*) - count(DISTINCT user_id, song_id) AS repeats",
        f"count(played_at) - count(DISTINCT {dated}) AS twice",
    ).first().asDict()  # fmt: skip
    return Plays(log.count(), [gathered(aside / "checked", schema)] if odd["kept"] else [], Counter(odd))


def as_in_songs(spark: Any, log: Any, songs: pl.DataFrame) -> Any:
    """Write song ids in the Unicode form in which `songs` has them."""
    from pyspark.sql import functions as F

    if not (forms := other_forms(songs["song_id"])):
        return log
    table = frame(spark, pl.DataFrame({"song_id": list(forms), "_song": list(forms.values())}))
    joined = log.join(F.broadcast(table), "song_id", "left")
    return joined.withColumn("song_id", F.coalesce("_song", "song_id")).select(*map(quoted, log.columns))


def comparable(log: Any, names: Iterable[str]) -> list[Any]:
    """Convert columns to types that Spark can partition by: those with maps, at any depth, to JSON."""
    from pyspark.sql import functions as F

    kinds = dict(log.dtypes)
    columns = {name: F.col(quoted(name)) for name in names}
    options = {"ignoreNullFields": "false"}
    return [F.to_json(F.struct(x), options) if "map<" in kinds[name] else x for name, x in columns.items()]


def known(spark: Any, log: Any, songs: pl.DataFrame, users: pl.DataFrame | None) -> Any:
    """Join the columns that the rules need: `_song`, `_released_at` and `_user`."""
    from pyspark.sql import functions as F

    of_song = frame(spark, songs.select("song_id", _released_at="released_at", _song=pl.lit(True)))
    log = log.join(F.broadcast(of_song), "song_id", "left")
    if users is None:
        return log.withColumn("_user", F.lit(True))
    return log.join(frame(spark, users.select("user_id", _user=pl.lit(True))), "user_id", "left")


def name_rejected(bad: Any, what: dict[str, tuple[str, list[str]]], rejected: Rejected) -> None:
    """Add the count of rows by `_key`, and the first five of each as examples, to `rejected`."""
    from pyspark.sql import Window
    from pyspark.sql import functions as F

    shown = F.lit(None)
    for key, (_, show) in what.items():
        name = F.concat_ws(" / ", *(F.coalesce(column, F.lit("null")) for column in show))
        shown = F.when(F.col("_key") == key, name).otherwise(shown)
    names = bad.groupBy("_key", shown.alias("name")).agg(F.count("*").alias("n"), F.min(F.struct(*ORDER)).alias("at"))
    of_key = Window.partitionBy("_key")
    names = names.withColumn("count", F.sum("n").over(of_key))
    names = names.withColumn("rank", F.row_number().over(of_key.orderBy("at"))).filter("rank <= 5")
    ranked = {(row["_key"], row["rank"]): row for row in names.collect()}
    for key, (text, _) in what.items():
        rows = [ranked[key, rank] for rank in range(1, 6) if (key, rank) in ranked]
        if rows:
            rejected[key] = {"count": rows[0]["count"], "examples": [row["name"] for row in rows], "what": text}


def write_plays(
    spark: Any, part: pl.LazyFrame, songs: pl.DataFrame, users: pl.DataFrame, split: Split, folder: Path, aside: Path
) -> tuple[IntArray, int]:
    """Write the tables as `play_tables.write_plays`, from what `check_plays` wrote to `aside` (`part`: its view)."""
    from pyspark.sql import functions as F

    of_song = songs.select(
        "song_id", song=pl.int_range(pl.len(), dtype=pl.Int32), _warm=pl.Series(split.of_song == WARM)
    )
    of_user = users.select("user_id", user=pl.int_range(pl.len(), dtype=pl.Int32))
    plays = spark.read.parquet(pattern(aside / "checked")).join(F.broadcast(frame(spark, of_song)), "song_id")
    plays = plays.join(frame(spark, of_user), "user_id").withColumn("strength", F.expr(f"CAST({STRENGTH} AS FLOAT)"))
    before = split.plays_before
    cutoff = int(np.datetime64(before, "ms").astype(np.int64)) if before else 2**62
    late = F.coalesce(F.col("played_at") >= cutoff, F.lit(False))
    types = {name: dtype for name, dtype in part.collect_schema().items() if name not in PAIR}
    types |= {"song": pl.Int32(), "user": pl.Int32(), "strength": pl.Float32()}
    tables = {"plays": plays.filter(F.col("_warm") & ~late), "cold_plays": plays.filter(~F.col("_warm"))}
    for name, table in tables.items():
        table.orderBy("user", "played_at", "song", *ORDER).select(*map(quoted, types)).write.parquet(uri(aside / name))
        gathered(aside / name, types).sink_parquet(folder / f"{name}.parquet")
    heard = spark.read.parquet(pattern(aside / "plays")).groupBy("song")
    heard = heard.agg(F.sum(F.coalesce("play_count", F.lit(1))).alias("count")).toArrow()
    popularity_S = np.zeros(songs.height, dtype=np.int64)
    popularity_S[heard["song"].to_numpy()] = heard["count"].to_numpy()
    return popularity_S, plays.filter(F.col("_warm") & late).count()


def gathered(folder: Path, types: dict[str, Any]) -> pl.LazyFrame:
    """Scan the Parquet files that Spark has written, in order, with the given types."""
    empty = pl.LazyFrame(schema=types)
    files = sorted(folder.glob("part-*.parquet"))
    return (
        pl.scan_parquet(files, glob=False).select(by_name(name).cast(dtype) for name, dtype in types.items())
        if files
        else empty
    )


def frame(spark: Any, table: pl.DataFrame) -> Any:
    """Convert a polars table to Spark."""
    return spark.createDataFrame(table.to_arrow(compat_level=pl.CompatLevel.oldest()))
