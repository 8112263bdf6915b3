"""Song pairs mined and verified by Spark: a self-join of histories within each user, the terms of `neighbours.py`.

What has one row a play stays in Spark; numbers a song or a user (listeners, weights) and the pairs found, at most
`top_k` a song, come to the driver. The result is that of `item_pairs.mining.mine`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from configs.data import PairsConfig
from data.arrays import IntArray
from data.item_pairs.mining import BOTH, EARLIER, choose_posterior, verified
from data.item_pairs.neighbours import Pairs, Terms, terms
from data.item_pairs.verification import draw, evidence_of_counts
from data.spark.parquet import pattern
from data.spark.plays import frame

DAY = 24 * 3600 * 1000


def mine(
    spark: Any,
    folder: Path,
    feedback: pl.DataFrame | None,
    shape: tuple[int, int],
    config: PairsConfig,
    seed: int,
) -> tuple[Pairs, dict[str, Any]]:
    """As `item_pairs.mining.mine`, of the plays in `folder`; posterior=split_users is not to be had.

    Raises:
        UserError: the evidence that was asked for is not in the data, or the check is not to be had.
    """
    plays = read_plays(spark, folder / "plays.parquet")
    dated = plays.selectExpr("avg(CAST(played_at IS NOT NULL AS INT))").first()[0]
    posterior = choose_posterior(config.posterior, feedback, dated or 0, shape[1])
    short, capped = cap_histories(plays, config.max_history, seed)
    pairs = similar_songs(spark, short, shape, config)
    evidence = []
    if posterior in ("later_plays", BOTH):
        earlier, later = windows(plays)
        evidence = [evidence_of_later_plays(spark, pairs, liked(earlier), liked(later), shape[1])]
    pairs, counts = verified(pairs, evidence, feedback, posterior, config)
    return pairs, counts | {"users_capped": capped}


def validation_pairs(spark: Any, folder: Path, validation: IntArray, shape: tuple[int, int], top_k: int) -> Pairs:
    """As `mining.validation_pairs`, of the tables in `folder`."""
    songs = frame(spark, pl.DataFrame({"song": pl.Series(validation, dtype=pl.Int32)}))
    cold = liked(read_plays(spark, folder / "cold_plays.parquet")).join(songs, "song").select("user", "song")
    warm = liked(read_plays(spark, folder / "plays.parquet")).select("user", "song")
    none_U = np.zeros(shape[0], dtype=np.int64)
    source, target = (terms("phi", number(heard, "song", shape[1]), none_U) for heard in (cold, warm))
    return best(spark, common(cold, warm), source, target, 0.0, top_k, 1)


def read_plays(spark: Any, path: Path) -> Any:
    """Columns user, song, strength, played_at (milliseconds) and the row number of a catalogue's table of plays."""
    types = "user INT, song INT, strength FLOAT, played_at TIMESTAMP_NTZ"  # of others Spark may not know the type
    plays = spark.read.schema(types).parquet(pattern(path))
    time = "unix_millis(CAST(played_at AS TIMESTAMP)) AS played_at"
    return plays.selectExpr("user", "song", "strength", time, "_metadata.row_index AS row")


def windows(plays: Any) -> tuple[Any, Any]:
    """As `mining.windows`; the day in which the later plays begin is found first, then the row."""
    from pyspark.sql import functions as F

    days = plays.groupBy(F.expr(f"floor(played_at / {DAY})").alias("day")).count().orderBy("day").toArrow()
    up_to = np.cumsum(days["count"].to_numpy())
    edge = min(int(up_to[-1] * EARLIER), up_to[-1] - 1)
    at = int(np.searchsorted(up_to, edge, "right"))
    day = days["day"][at].as_py()
    of_day = plays.filter(F.expr(f"floor(played_at / {DAY})") == day).orderBy("played_at", "row")
    first = of_day.offset(int(edge - (up_to[at - 1] if at else 0))).limit(1).first()
    later = F.expr(f"played_at > {first.played_at} OR (played_at = {first.played_at} AND row >= {first.row})")
    later = F.coalesce(later, F.lit(False))
    return plays.filter(~later), plays.filter(later)


def liked(plays: Any) -> Any:
    """Each (user, song) once, with the strongest signal and the latest time; dislikes are left out."""
    from pyspark.sql import functions as F

    of_pair = plays.filter("strength > 0").groupBy("user", "song")
    return of_pair.agg(F.max("strength").alias("strength"), F.max("played_at").alias("played_at"))


def cap_histories(plays: Any, most: int, seed: int) -> tuple[Any, int]:
    """As `verification.cap_histories`: (user, song) once each, and how many users left songs out."""
    from pyspark.sql import Window
    from pyspark.sql import functions as F

    songs = liked(plays)
    if not most:
        return songs.select("user", "song"), 0
    drawn = draw(F.col("user").cast("bigint"), F.col("song").cast("bigint"), seed)
    order = [F.desc("strength"), F.desc_nulls_last("played_at"), drawn, F.col("song")]
    ranked = songs.withColumn("rank", F.row_number().over(Window.partitionBy("user").orderBy(*order)))
    capped = ranked.filter(F.col("rank") == most + 1).count()
    return ranked.filter(F.col("rank") <= most).select("user", "song"), capped


def similar_songs(spark: Any, heard: Any, shape: tuple[int, int], config: PairsConfig) -> Pairs:
    """As `neighbours.neighbours` of (user, song) once each; a pair is counted once, and then seen from both sides."""

    # As many parts as Spark's settings say, however small the histories are: it is their products that are large.
    heard = heard.repartition(int(spark.conf.get("spark.sql.shuffle.partitions")), "user").cache()
    made_of = terms(config.similarity, number(heard, "song", shape[1]), number(heard, "user", shape[0]))
    weighed = heard
    if made_of.weight_U is not None:
        weight = pl.DataFrame({"user": np.arange(shape[0], dtype=np.int32), "weight": made_of.weight_U})
        weighed = heard.join(frame(spark, weight), "user")
    met = common(weighed, heard, "source < target")
    pairs = best(spark, met, made_of, made_of, config.shrinkage, config.top_k, config.min_common, both_ways=True)
    heard.unpersist()
    return pairs


def common(first: Any, second: Any, which: str = "source <> target") -> Any:
    """source, target, `both` (common listeners) and `total` (of their weights) of songs heard by the same user."""
    from pyspark.sql import functions as F

    met = first.withColumnRenamed("song", "source").join(second.withColumnRenamed("song", "target"), "user")
    total = F.sum("weight") if "weight" in first.columns else F.count("*").cast("double")
    return met.filter(which).groupBy("source", "target").agg(F.count("*").alias("both"), total.alias("total"))


def best(
    spark: Any,
    met: Any,
    source: Terms,
    target: Terms,
    shrinkage: float,
    top_k: int,
    min_common: int,
    both_ways: bool = False,
) -> Pairs:
    """The `top_k` most similar targets of every source, best first, of equal ones the lower number.

    `both_ways`: each pair was counted once, and is as similar seen from the other side.
    """
    from pyspark.sql import Window
    from pyspark.sql import functions as F

    met = met.filter(f"both >= {max(min_common, 1)}")
    for side, made_of in (("source", source), ("target", target)):
        number_S = np.arange(len(made_of.norm_S), dtype=np.int32)
        per_song = {side: number_S, f"c_{side}": made_of.chance_S, f"n_{side}": made_of.norm_S}
        met = met.join(F.broadcast(frame(spark, pl.DataFrame(per_song))), side)
    value = (
        f"({source.scale!r}D * total - c_source * c_target) / (n_source * n_target) * (both / (both + {shrinkage!r}D))"
    )
    found = met.selectExpr("source", "target", f"CAST({value} AS FLOAT) AS value").filter("value > 0")
    if both_ways:
        found = found.selectExpr("stack(2, source, target, value, target, source, value) AS (source, target, value)")
    rank = F.row_number().over(Window.partitionBy("source").orderBy(F.desc("value"), "target"))
    kept = found.withColumn("rank", rank).filter(f"rank <= {top_k}")
    table = pl.DataFrame(kept.toArrow()).sort("source", "rank")
    source_N, target_N = (table[name].to_numpy().astype(np.int64) for name in ("source", "target"))
    return Pairs(source_N, target_N, table["value"].to_numpy())


def evidence_of_later_plays(spark: Any, pairs: Pairs, before: Any, after: Any, n_songs: int) -> pl.DataFrame:
    """As `verification.evidence_of_listeners` of what users liked before and what they have taken up after."""
    from pyspark.sql import functions as F

    took = after.select("user", "song").join(before, ["user", "song"], "left_anti").withColumn("took", F.lit(1))
    active = took.select("user").distinct().cache()
    knew = before.select("user", "song").join(active, "user").withColumn("took", F.lit(0))
    asked = frame(spark, pairs.frame().select(pl.col("source", "target").cast(pl.Int32)))
    asked = asked.join(knew.select("user", F.col("song").alias("source")), "source")
    listens = knew.union(took.select(*knew.columns)).withColumnRenamed("song", "target")
    met = asked.join(listens, ["user", "target"]).groupBy("source", "target")
    met = met.agg(F.sum("took").alias("took"), F.sum(1 - F.col("took")).alias("knew")).toArrow()
    table = pl.DataFrame(met).with_columns(pl.col("source", "target").cast(pl.Int64))
    both = pairs.frame().join(table, on=["source", "target"], how="left", maintain_order="left").fill_null(0)
    knew_S, took_S = number(knew, "song", n_songs), number(took, "song", n_songs)
    # Who took a song up had not known it: all that knew it are settled.
    both_2N = both["took"].to_numpy(), both["knew"].to_numpy()
    return evidence_of_counts(pairs, both_2N, (knew_S, took_S, knew_S), active.count())


def number(heard: Any, column: str, n: int) -> IntArray:
    """How many rows each song or user has: (n,)."""
    found = heard.groupBy(column).count().toArrow()
    of_all = np.zeros(n, dtype=np.int64)
    of_all[found[column].to_numpy()] = found["count"].to_numpy()
    return of_all
