"""Check, index and split plays with Spark, by the same SQL rules as `play_rules.py` and `play_tables.py`.

Spark reads the log and writes Parquet into a folder beside the catalogue, which all workers must see; the catalogue's
tables are assembled from there, a row group at a time.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow.parquet as pq
from polars.selectors import by_name

from configs.errors import UserError
from data.arrays import IntArray
from data.contract.columns import PAIR
from data.contract.play_files import types_in
from data.contract.play_rules import REPEATED, ROW_RULES, USED, Plays
from data.contract.row_rules import Rejected, other_forms
from data.play_tables import STRENGTH
from data.split import WARM, Split

ORDER = ("_file", "_row")  # position of a row in the log
TIMES = (pl.Datetime("ms"), pl.Datetime("us"))
KINDS = {pl.String: "string", pl.Boolean: "boolean", pl.Int64: "bigint", pl.Float64: "double"}
KINDS |= dict.fromkeys(TIMES, "timestamp")
SETTINGS = {
    "spark.ui.showConsoleProgress": "false",
    "spark.log.level": "ERROR",
    "spark.sql.caseSensitive": "true",
    "spark.sql.session.timeZone": "UTC",
    "spark.sql.legacy.parquet.nanosAsLong": "true",
    "spark.sql.parquet.outputTimestampType": "TIMESTAMP_MICROS",
}


def connect(master: str | None) -> Any:
    """Get the active Spark session, or start one on `master` (None: from spark-submit or Spark's settings).

    Raises:
        UserError: pyspark or Java is missing, or Spark does not start.
    """
    try:
        from pyspark.errors import PySparkException
        from pyspark.sql import SparkSession
    except ImportError:
        raise UserError("engine=spark needs pyspark: pip install -e '.[spark]'; and Java 17 or newer") from None
    builder = SparkSession.builder.appName("firstplay")
    for key, value in SETTINGS.items():
        builder = builder.config(key, value)
    try:
        return (builder.master(master) if master else builder).getOrCreate()
    except (PySparkException, OSError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(
            f"Spark does not start ({reason}): Java 17 or newer must be on PATH or at JAVA_HOME, and spark.master right"
        ) from None


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
    log = as_in_songs(spark, read_log(spark, files, schema), songs)
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


def read_log(spark: Any, files: list[str], schema: pl.Schema) -> Any:
    """Read the log with the contract's types (times in UTC) and the position of each row.

    Raises:
        UserError: a file is hidden: Spark would leave it out without a word.
    """
    if passed_over := next((file for file in files if Path(file).name.startswith((".", "_"))), None):
        raise UserError(f"{passed_over}: Spark reads no file whose name begins with '.' or '_': rename it")
    alike: dict[Any, list[str]] = {}
    for file in files:
        alike.setdefault((tuple(types_in(file).items()), int96_in(file)), []).append(file)
    logs = [read_alike(spark, group, pl.Schema(types), schema) for (types, _), group in alike.items()]
    return reduce(lambda log, more: log.unionByName(more), logs)


def int96_in(file: str) -> tuple[str, ...]:
    """Columns of times that Spark and Hive have written; to polars their type is that of any nanoseconds."""
    schema = pq.ParquetFile(file).schema
    return tuple(column.path for column in map(schema.column, range(len(schema))) if column.physical_type == "INT96")


def read_alike(spark: Any, files: list[str], types: pl.Schema, schema: pl.Schema) -> Any:
    """Read, as `read_log`, files that all have the schema `types`."""
    from pyspark.sql import functions as F

    log = spark.read.option("mergeSchema", "true").parquet(*(pattern(Path(file)) for file in files))
    kinds = dict(log.dtypes)
    columns = []
    for name, dtype in schema.items():
        present = types.get(name, pl.Null) != pl.Null
        column = F.col(quoted(name)) if present else F.lit(None)
        if dtype == types.get(name, pl.Null) and name not in PAIR:
            column = alike_at_depth(column, dtype, log.schema[name].dataType if present else None)
        if dtype in TIMES and kinds.get(name) == "bigint":  # nanoseconds, floored as polars does
            column = F.timestamp_micros(F.expr("({0} - pmod({0}, 1000)) div 1000".format(quoted(name))))
        if kinds.get(name) in ("double", "float") and dtype in (pl.String, pl.Int64):  # integers, as pandas has them
            column = F.when(~F.isnan(column), column.cast("bigint"))
        if dtype in KINDS:
            column = column.cast(KINDS[dtype])
        if name in PAIR:  # (?U): white space as Unicode has it, as for polars
            column = F.when(column.rlike("(?U)\\S"), column)
        if dtype == pl.Datetime("ms"):
            column = F.timestamp_millis(F.unix_millis(column))
        columns.append(column.alias(name))
    place = log.metadataColumn("_metadata")  # not F.col: a file may have a column of that name
    return log.select(*columns, place.getField("file_path").alias("_file"), place.getField("row_index").alias("_row"))


def alike_at_depth(column: Any, dtype: Any, kind: Any) -> Any:
    """A column of one type (polars `dtype`, Spark `kind`), as any file with it has it, also within lists and structs.

    Nanoseconds are integers, though Spark reads INT96 as times; and nothing is text: no column of Spark's own type for
    it is read by polars.
    """
    from pyspark.sql import functions as F
    from pyspark.sql import types as T

    if dtype == pl.Null:
        return F.lit(None).cast("string")
    if isinstance(dtype, pl.Datetime) and isinstance(kind, T.TimestampNTZType | T.TimestampType):
        column = column.cast("timestamp")
        return F.unix_micros(column) * 1000 if dtype.time_unit == "ns" else column
    if isinstance(dtype, pl.List) and isinstance(kind, T.ArrayType):
        return F.transform(column, lambda one: alike_at_depth(one, dtype.inner, kind.elementType))
    if isinstance(dtype, pl.Struct) and isinstance(kind, T.StructType):
        parts = [
            alike_at_depth(column.getField(part.name), part.dtype, kind[part.name].dataType).alias(part.name)
            for part in dtype.fields
        ]
        return F.when(column.isNotNull(), F.struct(*parts))
    return column


def as_in_songs(spark: Any, log: Any, songs: pl.DataFrame) -> Any:
    """Write song ids in the Unicode form in which `songs` has them."""
    from pyspark.sql import functions as F

    if not (forms := other_forms(songs["song_id"])):
        return log
    table = frame(spark, pl.DataFrame({"song_id": list(forms), "_song": list(forms.values())}))
    joined = log.join(F.broadcast(table), "song_id", "left")
    return joined.withColumn("song_id", F.coalesce("_song", "song_id")).select(*map(quoted, log.columns))


def quoted(name: str) -> str:
    """Quote a column's name for Spark SQL."""
    return "`" + name.replace("`", "``") + "`"


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


def uri(path: Path) -> str:
    """URI of a local path, whatever Spark's default file system is; unescaped, since Hadoop does not decode it."""
    return f"file://{path.resolve()}"


def pattern(path: Path) -> str:
    """URI for reading, with the path's own glob characters escaped."""
    return re.sub(r"([\[\]{}*?\\])", r"\\\1", uri(path))
