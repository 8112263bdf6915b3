"""Options of what trained models are used for: index, audience, evaluation, tags, probe."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

from configs.errors import UserError
from configs.options import (
    CATALOGUE,
    FEATURES,
    INDEX,
    MARGINS,
    REQUIRED,
    CommandLoggerConfig,
    SparkConfig,
    a_date,
    above,
    at_least,
    opt,
)

PROMPTS = ["{}", "{} music", "a {} song"]


@dataclass
class IndexConfig:
    run: str = opt(REQUIRED, "run folder of train.py i2i", "i2i run")
    out: str = opt(REQUIRED, "index folder to write")
    data: str | None = opt(None, "catalogue folder (default: the one the run was trained on)", CATALOGUE)
    features: str | None = opt(None, "feature folder (default: the one the run was trained on)", FEATURES)
    index: str = opt("auto", "FAISS factory string: Flat (exact), IVF,Flat (2√N lists), IVF4096,PQ64 …; auto: by size")
    engine: Literal["faiss", "milvus"] = opt(
        "faiss", "where the index is; milvus has Flat, IVF,Flat, IVF,SQ8 and HNSW32"
    )
    uri: str | None = opt(None, "engine=milvus: http://… of a server (default: milvus-lite in the index folder)")
    collection: str = opt("songs", "engine=milvus with uri=: alias of the newest collection, and how their names begin")
    recall: float = opt(0.95, "share of the exact 100 most similar songs that an approximate index must find")
    update: bool = opt(False, "add, replace and remove songs of the index folder that is there (same encoder)")
    seed: int = opt(0, "seed of the samples that an approximate index is learned from and tuned on")
    logger: CommandLoggerConfig = field(default_factory=CommandLoggerConfig)

    def __post_init__(self) -> None:
        if self.uri and self.engine != "milvus":
            raise UserError(f"uri={self.uri} is an option of engine=milvus")
        check_milvus(self)


@dataclass
class MarginsConfig:
    run: str = opt(REQUIRED, "run folder of train.py boundary", "boundary run")
    out: str = opt(REQUIRED, "margins folder to write")
    data: str | None = opt(None, "catalogue folder (default: the one the run was trained on)", CATALOGUE)
    features: str | None = opt(None, "feature folder (default: the one the run was trained on)", FEATURES)
    index: str = opt("auto", "Flat (exact), IVF,Flat (2√N lists), IVF,SQ8 or HNSW32; auto: by the number of users")
    uri: str | None = opt(None, "http://… of a Milvus server (default: milvus-lite in the margins folder)")
    collection: str = opt("users", "with uri=: alias of the newest collection, and how their names begin")
    recall: float = opt(0.95, "share of the exact 100 users of a song that an approximate index must find")
    seed: int = opt(0, "seed of the songs that an approximate index is tuned on")
    logger: CommandLoggerConfig = field(default_factory=CommandLoggerConfig)

    def __post_init__(self) -> None:
        check_milvus(self)


def check_milvus(config: IndexConfig | MarginsConfig) -> None:
    """Refuse a recall out of range, a password that would be written down, and names that Milvus does not take."""
    if not 0 < config.recall <= 1:
        raise UserError(f"recall={config.recall:g} must be above 0 and at most 1")
    if "@" in (config.uri or ""):
        raise UserError("uri= is written down: give the password, or user:password, as MILVUS_TOKEN=… (environment)")
    if not (config.collection.isascii() and config.collection.isidentifier()):
        raise UserError(f"collection={config.collection!r}: letters, digits and _ alone, a letter first")


@dataclass
class TargetingConfig:
    neighbours: int = opt(100, "similar songs looked up for a new song")
    budget: int = opt(100, "users per new song")
    activity_power: float = opt(0.0, "a user's score is divided by (the user's distinct songs + 1) to this power")
    popularity_power: float = opt(0.5, "a known song weighs 1 / (its distinct listeners + 1) to this power")
    similarity_power: float = opt(1.0, "a similar song weighs its similarity, scaled to (0, 1], to this power")
    seed_users: int = opt(300, "CAT: first users by I2I2U, the audience whose tastes are clustered")
    clusters: int = opt(0, "CAT: clusters of an audience (0: one for every 25 users, from 2 to 16)")
    song_weight: float = opt(0.0, "CAT: weight of the new song itself beside a cluster's centre (0: centres alone)")
    seed: int = opt(0, "seed of CAT's k-means starts and of what exploration draws")
    union: Literal["cat", "taste"] = opt("cat", "mode=union: the mode that is merged with i2i2u")
    margin: float = opt(0.0, "the gate: how far a song must clear a user's boundary (above 0: fewer, below 0: more)")
    warm_up: float = opt(5.0, "number of first plays at which listeners and content weigh equally in a song's vector")
    users_index: str = opt("Flat", "mode=boundary: search of users (Flat: exact; IVF,Flat: a FAISS index of lists)")
    songs_per_user: int = opt(20, "with boundary=: songs listed for a user in recommendations.parquet")
    per_user_cap: int = opt(0, "new songs a user may be named for in audience.parquet, over all of them (0: no limit)")
    exploration: float = opt(0.0, "share of a song's budget that goes to users drawn at random among its next ones")
    memory_mb: float = opt(1024.0, "working memory for scores; new songs are scored so many at a time as fit in it")

    def __post_init__(self) -> None:
        """Refuse an audience of nobody, and numbers out of range."""
        sizes = ("neighbours", "budget", "seed_users", "songs_per_user")
        at_least(self, 1, *(f"targeting.{name}" for name in sizes))
        at_least(self, 0, *(f"targeting.{name}" for name in ("per_user_cap", "seed", "clusters", "song_weight")))
        if not 0 <= self.exploration <= 1:
            raise UserError(f"targeting.exploration={self.exploration:g}: must be from 0 to 1")
        if 0 < self.exploration * self.budget < 0.5:
            raise UserError(
                f"targeting.exploration={self.exploration:g} of targeting.budget={self.budget} is no user: give at "
                f"least {0.5 / self.budget:g}, or a larger budget"
            )
        above(self, 0, "targeting.warm_up", "targeting.memory_mb")
        above(self, -math.inf, "targeting.margin")


@dataclass
class AudienceSparkConfig(SparkConfig):
    plays: str | None = opt(
        None,
        "engine=spark: plays as Parquet (user, song, strength; with rank= also played_at and flags) wherever Spark "
        "reads, e.g. s3a://… (default: the catalogue's)",
    )
    partitions: int = opt(
        0, "engine=spark: parts of the users, each in one worker's memory (0: spark.sql.shuffle.partitions)"
    )


@dataclass
class AudienceConfig:
    mode: Literal["i2i2u", "taste", "cat", "union", "boundary", "rank"] = opt(
        "i2i2u",
        "i2i2u: listeners of similar songs; taste: users whose mean song vector is nearest to the song; cat: users "
        "near clusters of the i2i2u audience; union: i2i2u and cat (targeting.union) merged by rank; boundary: users "
        "whose boundary the song exceeds; rank: candidates of i2i2u, taste, cat and boundary, as a learned ranker "
        "orders them",
    )
    out: str = opt(REQUIRED, "audience folder to write")
    index: str = opt(REQUIRED, "index folder: similar songs come from it", INDEX)
    boundary: str | None = opt(None, "run folder of train.py boundary (for mode=boundary, gate=true)", "boundary run")
    margins: str | None = opt(
        None, "margins folder of the same boundary run: mode=boundary looks its users up in Milvus", MARGINS
    )
    rank: str | None = opt(None, "run folder of train.py rank (for mode=rank)", "rank run")
    gate: bool = opt(False, "keep only users whose boundary the song clears (mode=boundary does anyway)")
    exclude: str | None = opt(
        None,
        "Parquet file of user_id [, song_id]: users who must not be reached, or not with that song",
        "file; wanted: a Parquet table with user_id [, song_id]",
    )
    users_where: str | None = opt(
        None, 'condition on users: only such are reached, e.g. country in ["CN", "JP"] and age >= 18'
    )
    plays: str | None = opt(
        None,
        "Parquet file of first plays of new songs (like plays.parquet): they warm up, their listeners are left out",
        "file; wanted: a Parquet table with user_id, song_id",
    )
    split: Literal["cold", "cold_test", "cold_val"] = opt("cold_test", "which new songs; cold: all of them")
    since: str | None = opt(None, "YYYY-MM-DD: of these only the ones released on or after it")
    long_tail: int | None = opt(
        None,
        "also include known songs with at most this many training plays; users who have played them are left out",
    )
    where: str | None = opt(
        None, 'condition on known songs: only such are similar songs, e.g. language == "zh" and "rock" in genres'
    )
    engine: Literal["local", "spark"] = opt(
        "local", "what looks for users: this machine, or Apache Spark over parts of the users"
    )
    spark: AudienceSparkConfig = field(default_factory=AudienceSparkConfig)
    targeting: TargetingConfig = field(default_factory=TargetingConfig)
    show: str | None = opt(None, "song_id whose audience is printed as a table (default: the first)")
    logger: CommandLoggerConfig = field(default_factory=CommandLoggerConfig)

    def __post_init__(self) -> None:
        """Check that what the mode needs is given, that the date is one, and that the engine can do it."""
        if self.boundary is None and (self.mode == "boundary" or self.gate):
            raise UserError(
                "missing option: boundary=… (python train.py boundary …): the users' boundaries come from it"
            )
        if self.rank is None and self.mode == "rank":
            raise UserError("missing option: rank=… (python train.py rank …): the ranker of the candidates")
        if self.margins and (self.mode != "boundary" or self.engine != "local" or self.plays or self.rank):
            raise UserError("margins= is for mode=boundary engine=local, without plays= and rank=")
        a_date("since", self.since)
        check_engine(self)


def check_engine(config: AudienceConfig | EvaluateConfig) -> None:
    """Refuse what Spark does not do, and parts of the users below none."""
    at_least(config.spark, 0, "spark.partitions")
    if config.engine == "spark" and config.targeting.users_index != "Flat":
        raise UserError("targeting.users_index=: for engine=local, Spark compares all users")


@dataclass
class EvaluateConfig:
    data: str = opt(REQUIRED, "catalogue folder", CATALOGUE)
    out: str = opt(REQUIRED, "folder for metrics.json and report.html")
    index: str = opt(REQUIRED, "index folder of the full model", INDEX)
    cb2cf: str | None = opt(None, "index folder of the model without the contrastive part", INDEX)
    compare: dict[str, str] = opt({}, "index folders of further models by the name of their row: {article: DIR}", INDEX)
    features: str | None = opt(None, "feature folder (audio-text retrieval, content kNN)", FEATURES)
    boundary: str | None = opt(None, "run folder of train.py boundary", "boundary run")
    rank: str | None = opt(None, "run folder of train.py rank: a row of its own", "rank run")
    truth: str | None = opt(
        None,
        "truth.parquet of the demo world: outcome of every new song for some users",
        "file (only the demo world has one)",
    )
    split: Literal["cold_test", "cold_val"] = opt("cold_test", "which new songs are evaluated")
    engine: Literal["local", "spark"] = opt("local", "what looks for users, as of pipeline.audience")
    spark: AudienceSparkConfig = field(default_factory=AudienceSparkConfig)
    targeting: TargetingConfig = field(default_factory=TargetingConfig)
    budgets: list[int] = opt([10, 50, 100], "audience sizes at which target users are counted")
    ease_songs: int = opt(10_000, "known songs up to which ridge → EASE is a row: it inverts a matrix of that size")
    seed: int = opt(0, "seed of the random baseline and of the bootstrap intervals")
    logger: CommandLoggerConfig = field(default_factory=CommandLoggerConfig)

    def __post_init__(self) -> None:
        """Put the budgets in order; refuse none, those of nobody, and a name that is FirstPlay's own."""
        self.budgets = sorted(set(self.budgets))
        if not self.budgets or self.budgets[0] < 1:
            raise UserError(f"budgets={self.budgets}: give one or more positive numbers of users")
        at_least(self, 0, "ease_songs")
        check_engine(self)
        if any(name.startswith("FirstPlay") for name in self.compare):
            raise UserError(f"compare={self.compare}: rows called FirstPlay are those of index=, choose another name")


@dataclass
class ZeroshotConfig:
    features: str = opt(REQUIRED, "feature folder of pipeline.embed with clip=", FEATURES)
    data: str = opt(REQUIRED, "catalogue folder", CATALOGUE)
    out: str = opt(REQUIRED, "folder to write")
    labels: list[str] = opt([], "labels to choose from")
    column: str | None = opt(None, "or a column of songs.parquet: its values are labels and answers to check")
    prompts: list[str] = opt(PROMPTS, "ways to write a label, {} being the label")
    top: int = opt(5, "tags a song")

    def __post_init__(self) -> None:
        """Check that there are labels and ways to write them, and how many tags are asked for."""
        if bool(self.labels) == bool(self.column):
            raise UserError("give either labels=[…] or column=, the column whose values are the labels")
        if not self.prompts or any("{}" not in prompt for prompt in self.prompts):
            raise UserError(f"prompts={self.prompts}: each needs {{}} where the label goes")
        at_least(self, 1, "top")


@dataclass
class ProbeConfig:
    data: str = opt(REQUIRED, "catalogue folder", CATALOGUE)
    features: str | None = opt(None, "feature folder of pipeline.embed", FEATURES)
    column: str = opt("genres", "column of songs.parquet; a song's first value is its label")
    use: list[str] = opt([], "vectors to probe beside mel statistics: clip_audio, clip_text, text, own feature names")
    folds: int = opt(5, "parts, each tested once by a classifier trained on the others")
    out: str | None = opt(None, "JSON file to write")
    seed: int = opt(0, "seed of the parts")

    def __post_init__(self) -> None:
        at_least(self, 2, "folds")
