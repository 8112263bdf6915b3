"""Options of the demo world and of the preparation of a catalogue."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from omegaconf import MISSING

from configs.options import CommandLoggerConfig, opt


@dataclass
class WorldConfig:
    out: str = opt(MISSING, "folder to write (a dataset folder, see docs/data.md)")
    songs: int = opt(2000, "songs in the catalogue, new releases included")
    users: int = opt(3000, "listeners")
    seconds: float = opt(5.0, "length of each synthesised recording, seconds")
    truth_users: int = opt(1000, "users whose outcome on every cold song is written to truth.parquet")
    audio: bool = opt(True, "synthesise audio (false: text and behaviour only)")
    workers: int = opt(2, "processes that synthesise audio")
    seed: int = opt(0, "seed of the whole world")


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


@dataclass
class SplitConfig:
    cutoff: str | None = opt(None, "YYYY-MM-DD: songs released on or after it are cold (default: by cold_share)")
    until: str | None = opt(None, "YYYY-MM-DD: songs released on or after it are left out (undated ones stay)")
    cold_share: float = opt(0.2, "share of songs that is cold when no cutoff and no split column is given")
    by: Literal["auto", "column", "time", "random", "artist"] = opt(
        "auto", "how songs are split; artist: whole artists"
    )
    seed: int = opt(0, "seed of a random split")


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
    prior_plays: float = opt(20.0, "smoothing: a pair's rate starts as this many plays at the global rate")
    min_lift: float = opt(1.0, "keep a pair if its smoothed rate is at least this multiple of the global rate")
    keep_unobserved: bool = opt(True, "keep pairs that were never recommended (they have the global rate)")


@dataclass
class SparkConfig:
    master: str | None = opt(
        None, "engine=spark: where it runs, e.g. local[8] (default: what spark-submit or its settings say)"
    )


@dataclass
class PrepareConfig:
    source: str = opt(MISSING, "dataset folder (or the published lfm2k folder / hetrec zip, see format)")
    out: str = opt(MISSING, "catalogue folder to write")
    format: Literal["contract", "lfm2k", "hetrec"] = opt("contract", "layout of source")
    plays: str | None = opt(
        None, "Parquet file, folder or glob of plays (default: SOURCE/plays.parquet, SOURCE/plays/)"
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
