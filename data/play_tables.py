"""Write the tables `plays` and `cold_plays` of a catalogue from usable plays, a range of users at a time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl

from data.arrays import IntArray
from data.contract.play_rules import spill
from data.split import WARM, Split

# The strength of a play is that of its first signal that is true, else that of a play without any.
SIGNALS = {"disliked": -1.0, "favourited": 3.0, "completed": 2.0}
PLAYED = 1.0
WHEN = " ".join(f"WHEN COALESCE({name}, FALSE) THEN {value}" for name, value in SIGNALS.items())
STRENGTH = f"CASE {WHEN} ELSE {PLAYED} END"  # in SQL, since two engines read it


def write_plays(
    parts: list[pl.LazyFrame],
    songs: pl.DataFrame,
    users: pl.DataFrame,
    split: Split,
    folder: Path,
    aside: Path | None = None,
) -> tuple[IntArray, int]:
    """Write `plays.parquet` and `cold_plays.parquet`.

    Returns:
        Number of training plays of each song (S,), a row counting as often as its `play_count` says, and of rows of
        known songs after the cut-off.
    """
    popularity_S, late = np.zeros(songs.height, dtype=np.int64), 0
    written: dict[str, list[pl.LazyFrame]] = {"plays": [], "cold_plays": []}
    for number, part in enumerate(parts):
        warm, cold, dropped = separate(index_plays(part.collect(), songs, users), split)
        popularity_S += plays_of_songs(warm, songs.height)
        late += dropped
        for name, table in (("plays", warm), ("cold_plays", cold)):
            written[name].append(spill(table, aside if len(parts) > 1 else None, f"{name}-{number}"))
    for name, tables in written.items():
        pl.concat(tables).sink_parquet(folder / f"{name}.parquet")
    return popularity_S, late


def plays_of_songs(plays: pl.DataFrame, n_songs: int) -> IntArray:
    """Number of plays of each song (S,): a row counts as often as its `play_count` says."""
    counted = plays.group_by("song").agg(pl.col("play_count").fill_null(1).sum())
    plays_S = np.zeros(n_songs, dtype=np.int64)
    plays_S[counted["song"].to_numpy()] = counted["play_count"].to_numpy()
    return plays_S


def strength(play: object) -> float:
    """The strength of one play whose attributes are the signals."""
    return next((value for name, value in SIGNALS.items() if getattr(play, name)), PLAYED)


def index_plays(plays: pl.DataFrame, songs: pl.DataFrame, users: pl.DataFrame) -> pl.DataFrame:
    """Replace ids by row numbers and give each play its strength: favourite 3, complete 2, play 1, dislike −1."""
    song_of = songs.select("song_id").with_row_index("song")
    user_of = users.select("user_id").with_row_index("user")
    return (
        plays.join(song_of, on="song_id", how="inner", maintain_order="left")
        .join(user_of, on="user_id", how="inner", maintain_order="left")
        .drop("song_id", "user_id")
        .with_columns(pl.col("user", "song").cast(pl.Int32), pl.sql_expr(STRENGTH).cast(pl.Float32).alias("strength"))
        .sort("user", "played_at", "song", maintain_order=True)
    )


def separate(plays: pl.DataFrame, split: Split) -> tuple[pl.DataFrame, pl.DataFrame, int]:
    """Split plays into training plays, held-out plays of cold songs, and the number of late plays of known songs.

    Late are plays of known songs after the cut-off. They are dropped: when the first new song appears, they lie in the
    future.
    """
    warm_song = pl.Series(split.of_song == WARM)
    warm = warm_song.gather(plays["song"])
    cold_plays, warm_plays = plays.filter(~warm), plays.filter(warm)
    before = split.plays_before
    if before is None:
        return warm_plays, cold_plays, 0
    early = warm_plays.filter((pl.col("played_at") < before).fill_null(True))
    return early, cold_plays, warm_plays.height - early.height
