"""Options of the demo world and of the preparation of a catalogue."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from configs.errors import UserError
from configs.options import REQUIRED, CommandLoggerConfig, SparkConfig, a_date, above, at_least, opt


@dataclass
class WorldConfig:
    out: str = opt(REQUIRED, "folder to write (a dataset folder, see docs/data.md)")
    songs: int = opt(2000, "songs in the catalogue, new releases included")
    users: int = opt(3000, "listeners")
    seconds: float = opt(5.0, "length of each synthesised recording, seconds")
    truth_users: int = opt(1000, "users whose outcome on every cold song is written to truth.parquet")
    audio: bool = opt(True, "synthesise audio (false: text and behaviour only)")
    workers: int = opt(2, "processes that synthesise audio")
    seed: int = opt(0, "seed of the whole world")

    def __post_init__(self) -> None:
        """Refuse a world that is too small to be one."""
        at_least(self, 50, "songs", "users")
        at_least(self, 1, "seconds", "workers")
        at_least(self, 0, "truth_users", "seed")


@dataclass
class AudioConfig:
    sample_rate: int = opt(16000, "Hz; files are resampled and down-mixed to this")
    n_mels: int = opt(64, "mel bands")
    win_length: int = opt(800, "STFT window, samples")
    hop_length: int = opt(320, "STFT hop, samples (320 at 16 kHz = 50 frames a second)")
    max_seconds: float = opt(30.0, "keep at most this much of a file, from its middle")
    min_seconds: float = opt(1.0, "shorter files count as songs without audio")
    store: Literal["logmel", "samples", "files"] = opt(
        "logmel", "what is kept of a recording: log-mel frames, 16-bit samples, or nothing (decoded anew for each crop)"
    )
    cache: str | None = opt(None, "folder of decoded audio, which several catalogues may share (default: OUT_audio)")
    verify: bool = opt(False, "compare the checksums of the decoded audio that is there, not its size alone")

    def __post_init__(self) -> None:
        at_least(self, 1, *(f"audio.{name}" for name in ("sample_rate", "n_mels", "win_length", "hop_length")))
        above(self, 0, "audio.max_seconds")
        at_least(self, 0, "audio.min_seconds")


@dataclass
class SplitConfig:
    cutoff: str | None = opt(None, "YYYY-MM-DD: songs released on or after it are cold (default: by cold_share)")
    until: str | None = opt(None, "YYYY-MM-DD: songs released on or after it are left out (undated ones stay)")
    cold_share: float = opt(0.2, "share of songs that is cold when no cutoff and no split column is given")
    by: Literal["auto", "column", "time", "random", "artist"] = opt("auto", "how to split songs; artist: whole artists")
    seed: int = opt(0, "seed of a random split")

    def __post_init__(self) -> None:
        """Check the ranges, and that dates are dates."""
        above(self, 0, "split.cold_share", below=1)
        at_least(self, 0, "split.seed")
        a_date("split.cutoff", self.cutoff)
        a_date("split.until", self.until)


@dataclass
class PairsConfig:
    similarity: Literal["phi", "cosine", "iuf", "bm25"] = opt(
        "phi", "collaborative similarity; phi: cosine less what chance gives; iuf: cosine in which heavy users say less"
    )
    shrinkage: float = opt(0.0, "a similarity seen in n common listeners counts n / (n + this) of itself")
    top_k: int = opt(30, "neighbours kept per song")
    min_common: int = opt(2, "listeners two songs must share")
    max_history: int = opt(10_000, "songs of a user that count when pairs are mined: strongest, then latest (0: all)")
    posterior: Literal["auto", "feedback", "later_plays", "feedback_and_later_plays", "split_users", "none"] = opt(
        "auto", "how a pair is verified; auto: by what there is: a large feedback table, else times and a small one"
    )
    drop_above: float = opt(0.9, "drop a pair if the posterior probability that its lift is below 1 is above this")
    prior_outcomes: float = opt(1.0, "expected good outcomes that the prior, with its mode at lift 1, is worth")
    keep_unobserved: bool = opt(True, "keep pairs of which nothing is known yet")

    def __post_init__(self) -> None:
        at_least(self, 0, *(f"pairs.{name}" for name in ("shrinkage", "max_history", "prior_outcomes")), below=1e9)
        above(self, 0, "pairs.drop_above", below=1)
        at_least(self, 1, "pairs.top_k", "pairs.min_common", below=1e9)


@dataclass
class PrepareConfig:
    source: str = opt(
        REQUIRED,
        "dataset folder (or what format= says: a folder of music, both also as s3://BUCKET/PATH, a published data set)",
        "dataset folder",
    )
    out: str = opt(REQUIRED, "catalogue folder to write")
    format: Literal[
        "contract", "folder", "lfm2k", "hetrec", "yambda", "recbole", "music4all", "listenbrainz", "mpd"
    ] = opt("contract", "layout of source; folder: recordings whose tags tell of the songs; others: public data sets")
    folder_ids: Literal["path", "name", "musicbrainz"] = opt(
        "path", "format=folder: a song's id: its path, its file's name without ending, or its MusicBrainz recording id"
    )
    plays: str | None = opt(None, "Parquet file, folder or glob of plays (default: plays.parquet or plays/ in source)")
    repeats: Literal["rows", "plays"] = opt(
        "rows", "what is one play written twice: equal rows, or rows that are equal in the columns that are used"
    )
    memory_gb: float = opt(0.0, "memory for plays while they are checked and sorted, the rest on disk (0: all at once)")
    engine: Literal["local", "spark"] = opt("local", "what reads plays and mines pairs: this machine, or Apache Spark")
    spark: SparkConfig = field(default_factory=SparkConfig)
    audio: AudioConfig = field(default_factory=AudioConfig)
    split: SplitConfig = field(default_factory=SplitConfig)
    pairs: PairsConfig = field(default_factory=PairsConfig)
    text_model: str = opt("minilm", "text encoder whose vocabulary the text is checked against")
    workers: int = opt(2, "processes that decode audio")
    logger: CommandLoggerConfig = field(default_factory=CommandLoggerConfig)

    def __post_init__(self) -> None:
        """Check the ranges, and that the options go together."""
        at_least(self, 0, "memory_gb", below=1e9)
        at_least(self, 0, "workers")
        others = self.engine == "spark" or self.plays or self.memory_gb or self.repeats != "rows"
        if self.format in ("lfm2k", "hetrec") and others:
            raise UserError(
                f"format={self.format} is read as published: plays=, repeats=, memory_gb= and engine=spark "
                "are for others"
            )
        if self.format not in ("contract", "folder") and self.plays:
            raise UserError(f"format={self.format} has its own plays: plays= is for format=contract and folder")
        if self.engine == "spark" and self.memory_gb:
            raise UserError(
                "memory_gb= is for engine=local: give Spark's driver and workers their memory by its own settings"
            )
        if self.engine == "spark" and self.pairs.posterior == "split_users":
            raise UserError("pairs.posterior=split_users is for engine=local: choose another one")
        check_source(self)
        cache, out = self.audio.cache, Path(self.out).resolve()
        if cache and out in (Path(cache).resolve(), *Path(cache).resolve().parents):
            raise UserError(
                f"audio.cache={cache} lies in out={self.out}, which is replaced as a whole: choose a folder beside it"
            )


def check_source(config: PrepareConfig) -> None:
    """Refuse what cannot be read from an object store, and a password that would be written down."""
    if "://" not in config.source:
        return
    if re.match(r"\w+://[^/@]*:[^/@]*@", config.source):
        raise UserError("source= is written down: give credentials in the environment (AWS_ACCESS_KEY_ID, …)")
    if config.format not in ("contract", "folder"):
        raise UserError(f"format={config.format} reads files on this machine's disk: copy {config.source} there first")
    if config.audio.store == "files":
        raise UserError(
            f"audio.store=files reads recordings in every epoch: copy {config.source} to a disk, or keep log-mel frames"
        )
    if config.plays and "://" in config.plays:
        raise UserError("plays= is a path: plays in an object store are those in source=")
