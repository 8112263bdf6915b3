"""Features of candidates by Apache Spark: what plays tell of them is found where the plays are, in parts of the users.

The driver holds the candidates, as it holds the lists that they come from, and scores them with the ranker itself. What
plays tell of a pair needs the plays of its user, and of all others only who first played a song when (`Overall`).

Shapes: C new songs, K cuts, P (song, user) pairs, F features, T places of a history.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import polars as pl

from data.arrays import AnyArray, IntArray
from data.spark.plays import frame
from inference.rank_parts import ALL, FLAGS, Asked, Overall, first_plays, told_of_pairs
from retrieval.candidates import Candidates
from retrieval.rank_features import OF_PLAYS, FeatureSource
from retrieval.rank_histories import Histories
from retrieval.ranking import Ranker
from retrieval.songs import Songs, Vectors

DAY = 86_400_000  # milliseconds
FIRST = "song INT, place INT, count LONG, last DOUBLE"
TOLD = "pair INT, feature ARRAY<FLOAT>, songs ARRAY<INT>, signals ARRAY<INT>"


@dataclass
class SparkFeatures(FeatureSource):
    """`FeatureSource` whose plays stay in Spark: `rows` are all of them, in `parts` by user."""

    rows: Any = None
    parts: int = 0
    n_users: int = 0

    def told(
        self, known: Vectors, songs: Songs, candidates: Candidates, length: int
    ) -> tuple[AnyArray, Histories | None]:
        """Features of candidates, and their histories of up to `length` songs; 0: none are asked for."""
        assert songs.facts is not None
        spark, n_songs = self.rows.sparkSession, len(known.song_SD)
        overall, place_C = self._overall(songs.facts.before_C, n_songs)
        facts = replace(songs.facts, before_C=overall.cut_K[place_C], content=None)
        about = Songs(songs.vector_CD, songs.similar, facts=facts)
        vectors, fields = np.asarray(known.song_SD), self.songs.only(facts)
        asked = Asked(about, vectors, fields, overall, self.new_days, self.memory_mb, self.n_users, length)
        columns = {"pair": np.arange(len(candidates)), "song": candidates.song_P, "user": candidates.user_P}
        pairs = frame(spark, pl.DataFrame(columns).cast(pl.Int32))
        shared = spark.sparkContext.broadcast(asked)
        try:
            both = self.rows.unionByName(pairs, allowMissingColumns=True).repartition(self.parts, "user")
            rows = both.mapInArrow(partial(told_of_pairs, shared=shared), TOLD).toArrow().sort_by("pair")
        finally:
            shared.destroy()
        feature_PF = self.without_plays(known, songs, candidates)
        feature_PF[:, [self.names.index(name) for name in OF_PLAYS]] = values(rows["feature"], len(OF_PLAYS))
        if not length:
            return feature_PF, None
        key_P = place_C[candidates.song_P] * self.n_users + candidates.user_P
        _, first, row_P = np.unique(key_P, return_index=True, return_inverse=True)
        order = np.argsort(row_P[np.sort(first)])  # histories come by pair, and go by cut, then by user
        song_RT, signal_RT = (values(rows[name], length)[order] for name in ("songs", "signals"))
        return feature_PF, Histories(song_RT, signal_RT.astype(np.int8), row_P)

    def _overall(self, before_C: AnyArray, n_songs: int) -> tuple[Overall, IntArray]:
        """What plays of all users tell, and the place of each song's cut; cuts with the same plays are one, the last.

        As `PlayLog.earlier` has it, all plays count for a song without a day, and where no play has a time.
        """
        cut_K = np.unique(np.append(before_C[np.isfinite(before_C)], np.inf))
        parts = self.rows.repartition(self.parts, "user")
        found = parts.mapInArrow(partial(first_plays, cut_K=cut_K, n_songs=n_songs), FIRST)
        table = pl.DataFrame(found.groupBy("song", "place").agg({"count": "sum", "last": "max"}).toArrow())
        table = table.rename({"sum(count)": "count", "max(last)": "last"}).sort("song", "place")
        of_all, of_songs = (table.filter(one) for one in (pl.col("song") == ALL, pl.col("song") != ALL))
        last_K, seen_K = np.maximum.accumulate(of_all["last"].to_numpy()), np.cumsum(of_all["count"].to_numpy())
        place_C = np.searchsorted(cut_K, np.where(np.isfinite(before_C), before_C, np.inf))
        place_C = np.searchsorted(seen_K, seen_K[place_C], side="right") - 1
        if last_K[-1] == -np.inf:
            place_C[:] = len(cut_K) - 1
        song, place, count = (of_songs[name].to_numpy() for name in ("song", "place", "count"))
        return Overall(cut_K, last_K, song, place, count), place_C


def values(lists: Any, width: int) -> AnyArray:
    """Lists of one length, or empty, as rows."""
    return np.asarray(lists.combine_chunks().flatten().to_numpy()).reshape(-1, width)


def played(plays: Any) -> Any:
    """Plays as features ask for them: days since 1970, flags 0 or 1, NULL where not told."""
    from pyspark.sql import functions as F

    day = F.unix_millis(F.col("played_at").cast("timestamp")) / F.lit(DAY)
    flags = [F.col(name).cast("float").alias(name) for name in FLAGS]
    return plays.select("user", "song", "strength", day.alias("day"), *flags)


def ranker_in_spark(ranker: Ranker, plays: Any, parts: int, n_users: int) -> Ranker:
    """The ranker with features from plays in Spark, which are read in so many parts of all users."""
    of = ranker.source
    given = of.log, of.songs, of.profile, of.codes, of.new_days, of.memory_mb
    return replace(ranker, source=SparkFeatures(*given, played(plays), parts, n_users))
