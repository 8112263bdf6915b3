"""Audiences by Apache Spark, for users beyond one machine: `Targeting` over parts of the users, merged exactly.

Users are divided by a hash of their number. A task makes a `Targeting` of its part's plays and user vectors, and looks
in it for the users of all new songs, as many as are wanted in all. Of the lists of all parts Spark keeps each song's
best, ties to the lower user number as everywhere. So `SparkTargeting` is a `Targeting` whose lists are made elsewhere:
modes, unions, caps and exploration are its parent's.

A part's scores are those of the whole, to the last bit but for matrix products ("taste", "cat", "boundary"), which a
processor may sum in another order when a matrix has another shape. CAT takes two passes: its seed users are those of
all parts, and are clustered in between.

Shapes: C new songs, S songs, U users, N some users, P seed users of a song, K clusters, D vector size.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from scipy import sparse

from configs.errors import UserError
from configs.targeting import AudienceSparkConfig, TargetingConfig
from data.arrays import AnyArray, IntArray
from data.catalogue import Catalogue
from data.spark.parquet import pattern, uri
from data.spark.plays import connect, frame, gathered
from inference.song_index import SongIndex
from inference.spark_ranking import ranker_in_spark
from inference.targeting import options_of
from inference.user_parts import (
    Reach,
    Search,
    Shared,
    counted,
    listened,
    moments,
    named_songs,
    named_users,
    no_search,
    packed,
)
from inference.vectors import Boundary
from retrieval.audience import Audience, ranked
from retrieval.listening import Listening
from retrieval.ranking import Ranker
from retrieval.songs import Songs
from retrieval.targeting import Targeting

PLAYS = "user INT, song INT, strength FLOAT"
TOLD = "completed BOOLEAN, favourited BOOLEAN, disliked BOOLEAN"  # what a ranker asks further, beside played_at
HEARD = "user INT, song ARRAY<INT>, strength ARRAY<FLOAT>"
COUNTED = "song INT, listeners LONG, low INT, high INT"
USERS = "user INT, vector ARRAY<FLOAT>, boundary FLOAT"
NAMED = "list INT, song INT, user INT, score FLOAT"
MOMENT = "part INT, moment ARRAY<DOUBLE>"
RECOMMENDED = "user INT, song INT, rank INT, margin FLOAT"
NO_PACKAGE = ("No module named", "Can't get attribute", "PYTHON_VERSION_MISMATCH", "Cannot run program")
ROWS = 100_000  # users whose vectors are written at a time


@dataclass
class SparkListening(Listening):
    """Listening that stays in Spark: `plays`, and `rows`: of each user their songs with the strongest signals (HEARD).

    `known_US` has the songs, but no user; `listeners_S` says how many listened to each.
    """

    plays: Any = None
    rows: Any = None
    users: int = 0
    parts: int = 0
    listeners_S: Any = None

    @cached_property
    def songs_U(self) -> IntArray:
        """How many songs each user listened to."""
        songs_U = np.zeros(self.users, dtype=np.int64)
        rows = self.rows.selectExpr("user", "size(song) AS songs").toArrow()
        songs_U[rows["user"].to_numpy()] = rows["songs"].to_numpy()
        return songs_U

    @property
    def n_users(self) -> int:
        """How many users there are."""
        return self.users

    @property
    def spark(self) -> Any:
        """The session."""
        return self.rows.sparkSession

    def heard(self, users_N: IntArray) -> sparse.csr_matrix:
        """What some users, ascending, listened to, (N, S), with sorted indices; it comes into this process."""
        from pyspark.sql import functions as F

        asked = frame(self.spark, pl.DataFrame({"user": pl.Series(users_N, dtype=pl.Int32)}))
        return listened(self.rows.join(F.broadcast(asked), "user").toArrow(), users_N, self.known_US.shape[1])

    def moments(self, song_SD: AnyArray) -> AnyArray:
        """Σ u uᵀ over the tastes u of all users, (D, D)."""
        sent = self.spark.sparkContext.broadcast(np.asarray(song_SD))
        try:
            found = self.rows.mapInArrow(partial(moments, song_SD=sent), MOMENT).toArrow().sort_by("part")
        finally:
            sent.destroy()
        dim = song_SD.shape[1]
        return np.asarray(found["moment"].combine_chunks().flatten().to_numpy()).reshape(-1, dim, dim).sum(axis=0)


def read_plays(config: AudienceSparkConfig, catalogue: Catalogue, ranked: bool = False) -> tuple[Any, int]:
    """Plays as Spark reads them, flags NULL where there are none, and how many parts their users are divided into.

    Raises:
        UserError: Spark does not start, or cannot read them; or, if they are asked to be `ranked`, they have no times.
    """
    spark = connect(config.master)
    from pyspark.errors import PySparkException  # it is there now

    path = config.plays or pattern(catalogue.folder / "plays.parquet")
    try:
        when = dict(spark.read.parquet(path).dtypes).get("played_at", "") if ranked else "timestamp_ntz"
        plays = spark.read.schema(f"{PLAYS}, {TOLD}, played_at {when or 'string'}").parquet(path)
    except PySparkException as error:
        raise UserError(f"plays cannot be read from {path} ({str(error).splitlines()[0]})") from None
    if not when.startswith("timestamp"):
        raise UserError(f"{path} has no column played_at of times, which rank= asks for, as the catalogue's plays have")
    return plays, config.partitions or int(spark.conf.get("spark.sql.shuffle.partitions"))


def plays_of(plays: Any, songs: IntArray) -> pl.DataFrame:
    """Plays (song, user) of some songs, in this process."""
    if not len(songs):
        return pl.DataFrame(schema={"song": pl.Int32, "user": pl.Int32})
    from pyspark.sql import functions as F

    asked = frame(plays.sparkSession, pl.DataFrame({"song": pl.Series(songs, dtype=pl.Int32)}))
    return pl.DataFrame(plays.join(F.broadcast(asked), "song").select("song", "user").distinct().toArrow())


def listening_in_spark(plays: Any, parts: int, catalogue: Catalogue) -> SparkListening:
    """The listening of a catalogue's users, as `listening_matrix`, divided into parts.

    Raises:
        UserError: there is no play, or it is of other users or songs than the catalogue's, or of a held-out song; or
            workers have no Python with this package.
    """
    from pyspark.sql import functions as F

    wrong = "NOT coalesce(user >= 0 AND song >= 0, false)"
    liked = plays.filter("strength > 0").selectExpr(
        f"IF({wrong}, -1, user) AS user", f"IF({wrong}, 0, song) AS song", "strength"
    )
    rows = liked.repartition(parts, "user").mapInArrow(packed, HEARD).cache()
    of_songs = rows.mapInArrow(counted, COUNTED).groupBy("song")
    counts = of_songs.agg(F.sum("listeners").alias("listeners"), F.min("low").alias("low"), F.max("high").alias("high"))
    with package_on_workers():
        table = pl.DataFrame(counts.toArrow())
    if table.is_empty() or int(table["low"].min()) < 0:
        raise UserError("spark.plays= has no plays: columns user and song (row numbers of the catalogue), strength")
    last_user, last_song = table["high"].max(), table["song"].max()
    if last_user >= catalogue.n_users or last_song >= catalogue.n_songs:
        raise UserError(
            f"spark.plays= is of another catalogue: user {last_user}, song {last_song}, where {catalogue.folder} has "
            f"{catalogue.n_users} users and {catalogue.n_songs} songs"
        )
    listeners_S = np.zeros(catalogue.n_songs, dtype=np.int64)
    listeners_S[table["song"].to_numpy()] = table["listeners"].to_numpy()
    if (listeners_S[catalogue.rows("cold")] > 0).any():
        raise UserError("spark.plays= has plays of held-out songs: give those of plays.parquet of the catalogue")
    none_US = sparse.csr_matrix((0, catalogue.n_songs), dtype=np.float32)
    of = {"plays": plays, "rows": rows, "users": catalogue.n_users, "parts": parts, "listeners_S": listeners_S}
    return SparkListening(none_US, **of)


@contextmanager
def package_on_workers() -> Iterator[None]:
    """Run the first thing that workers do in Python.

    Raises:
        UserError: they have another Python or none, or one without this package, or with another version of it.
    """
    from py4j.protocol import Py4JJavaError
    from pyspark.errors import PySparkException

    try:
        yield
    except (PySparkException, Py4JJavaError) as error:
        said = [line.strip() for line in str(error).splitlines() if any(words in line for words in NO_PACKAGE)]
        if not said:
            raise
        raise UserError(
            f"Spark's workers need the Python of this environment, at the same path or sent along ({said[-1]}): "
            "docs/scaling.md, Audiences"
        ) from None


@dataclass
class SparkTargeting(Targeting):
    """`Targeting` whose lists are found in Spark; `rows` are the listening and, with a boundary, users' vectors.

    An `allowed` is a `Reach` here: who may be reached is decided where users are.
    """

    rows: Any = None

    def allowed(self, songs: Songs, gate: bool, margin: float) -> Any:
        """Who may be reached; None: everybody."""
        return Reach(gate, margin) if gate or songs.excluded else None

    def listeners(self, songs: Songs, budget: int, allowed: Any = None) -> Audience:
        """I2I2U: the listeners of similar songs."""
        return self._lists(songs, Search("i2i2u", budget, allowed))[0]

    def seeded(self, songs: Songs, budget: int, allowed: Any = None) -> tuple[Audience, AnyArray]:
        """`listeners` and `seed_users` in one pass."""
        first = Search("i2i2u", min(self.options.seed_users, self.listening.n_users))
        seeds, listened = self._lists(songs, first, Search("i2i2u", budget, allowed))
        return listened, seeds.users_CB

    def near_taste(self, songs: Songs, budget: int, allowed: Any = None) -> Audience:
        """Users whose mean direction is nearest to the song."""
        return self._lists(songs, Search("taste", budget, allowed))[0]

    def above_boundary(self, songs: Songs, budget: int, margin: float = 0.0) -> Audience:
        """The users of each song whose own boundary it clears the furthest."""
        return self._lists(songs, Search("boundary", budget, Reach(True, margin)))[0]

    def near_clusters(
        self, songs: Songs, budget: int, allowed: Any = None, seeds_CP: AnyArray | None = None
    ) -> Audience:
        """CAT: the seed users of all parts are clustered here, then all users are compared with the centres."""
        seeds_CP = self.seed_users(songs) if seeds_CP is None else seeds_CP
        users = np.unique(np.maximum(seeds_CP, 0))
        few = Targeting(Listening(self.listening.heard(users)), self.song_SD, no_search, self.options)
        few.popularity_S = self.popularity_S
        places_CP = np.where(seeds_CP >= 0, np.searchsorted(users, seeds_CP), -1)
        parts = [centres for _, *centres in few.centres(songs, places_CP)]
        most = max(centre_CKD.shape[1] for centre_CKD, _ in parts)
        # what fills up is the last centre again: no score changes
        widened = [one[:, np.minimum(np.arange(most), one.shape[1] - 1)] for one, _ in parts]
        centres = np.concatenate(widened), np.concatenate([any_C for _, any_C in parts])
        return self._lists(replace(songs, centres=centres), Search("cat", budget, allowed))[0]

    def recommend(self, songs: Songs, k: int, margin: float, aside: Path) -> pl.LazyFrame:
        """The songs of each user that clear their boundary furthest (user, song, rank, margin), by user and rank.

        As `songs_of_users`, but written to `aside`, since it is of all users.
        """
        with self._sent(songs, vectors=False) as shared:
            found = self.rows.mapInArrow(partial(named_songs, shared=shared, k=k, margin=margin), RECOMMENDED)
            found.orderBy("user", "rank").write.parquet(uri(aside / "songs"))
        types = {"user": pl.Int64, "song": pl.Int64, "rank": pl.Int64, "margin": pl.Float32}
        return gathered(aside / "songs", types)

    def _lists(self, songs: Songs, *searches: Search) -> list[Audience]:
        """Lists of users of each song, of all parts."""
        from pyspark.sql import Window
        from pyspark.sql import functions as F

        best = Window.partitionBy("list", "song").orderBy(F.desc("score"), "user")
        with self._sent(songs, vectors=any(one.mode in ("taste", "cat") for one in searches)) as shared:
            found = self.rows.mapInArrow(partial(named_users, shared=shared, searches=list(searches)), NAMED)
            found = found.withColumn("rank", F.row_number().over(best))
            rows = found.filter(F.col("rank") <= max(one.budget for one in searches)).toArrow()
        at, song, user, score = (rows[name].to_numpy() for name in ("list", "song", "user", "score"))
        of = [(at == place, search.budget) for place, search in enumerate(searches)]
        return [ranked(song[mine], user[mine].astype(np.int64), score[mine], len(songs), k) for mine, k in of]

    @contextmanager
    def _sent(self, songs: Songs, vectors: bool) -> Iterator[Any]:
        """A broadcast of what tasks need, songs' vectors only where users' tastes are asked for."""
        song_SD = np.asarray(self.song_SD) if vectors else np.zeros((len(self.song_SD), 0), dtype=np.float32)
        shared = Shared(songs, song_SD, self.popularity_S, self.options)
        sent = self.rows.sparkSession.sparkContext.broadcast(shared)
        try:
            yield sent
        finally:
            sent.destroy()


def targeting_in_spark(
    index: SongIndex,
    listening: SparkListening,
    config: TargetingConfig,
    boundary: Boundary | None,
    aside: Path,
    ranker: Ranker | None = None,
) -> SparkTargeting:
    """Targeting on the index's songs; users' vectors are written to `aside`, which all workers must see."""
    rows = listening.rows
    if boundary is not None:
        write_users(boundary, aside / "users")
        vectors = listening.spark.read.schema(USERS).parquet(pattern(aside / "users"))
        rows = rows.unionByName(vectors, allowMissingColumns=True).repartition(listening.parts, "user").cache()
    targeting = SparkTargeting(listening, index.vectors, index.similar, options_of(config), rows=rows)
    if boundary is not None:
        targeting.user_UD, targeting.boundary_U = boundary.user_UD, boundary.boundary_U
    if ranker is not None:
        targeting.ranker = ranker_in_spark(ranker, listening.plays, listening.parts, listening.n_users)
    return targeting


def unbounded(targeting: Targeting) -> Targeting:
    """The same where every user's boundary is 0."""
    assert targeting.boundary_U is not None
    without = replace(targeting, boundary_U=np.zeros_like(targeting.boundary_U))
    if isinstance(without, SparkTargeting):
        zero = "CASE WHEN boundary IS NOT NULL THEN CAST(0 AS FLOAT) END AS boundary"
        without.rows = without.rows.selectExpr("user", "song", "strength", "vector", zero)
    return without


def unweighted(targeting: Targeting) -> Targeting:
    """The same where every signal counts as 1, and every user as much."""
    options = replace(targeting.options, activity_power=0.0)
    if isinstance(targeting, SparkTargeting):
        rows = targeting.rows.filter("song IS NOT NULL")
        once = "array_repeat(CAST(1 AS FLOAT), size(song)) AS strength"
        return replace(targeting, rows=rows.selectExpr("user", "song", once), options=options)
    heard_US = targeting.listening.known_US.astype(bool).astype(np.float32)
    return replace(targeting, listening=Listening(heard_US), options=options)


def write_users(boundary: Boundary, folder: Path) -> None:
    """Write users' vectors and boundaries as Parquet."""
    folder.mkdir()
    for at in range(0, len(boundary.user_UD), ROWS):
        part = slice(at, at + ROWS)
        vectors, scores = boundary.user_UD[part], boundary.boundary_U[part]
        user = np.arange(at, at + len(vectors), dtype=np.int32)
        columns = {"user": user, "vector": vectors, "boundary": scores}
        pl.DataFrame(columns).cast({"vector": pl.List(pl.Float32)}).write_parquet(folder / f"part-{at:012}.parquet")
