"""A data set with the plays of some of its listeners alone."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import polars as pl


def keep_listeners(data: Path, out: Path, kept: Iterable[str]) -> None:
    """Write the data set in the folder `data` with the users `kept` and their plays alone; all songs stay.

    Recordings stay where they are: their paths become whole ones.
    """
    songs = pl.read_parquet(data / "songs.parquet")
    if "audio_path" in songs.columns:
        songs = songs.with_columns(audio_path=pl.lit(f"{data.resolve()}/") + pl.col("audio_path"))
    songs.write_parquet(out / "songs.parquet")
    who = pl.DataFrame({"user_id": list(kept)})
    for name in ("plays", "users"):
        if (data / f"{name}.parquet").exists():
            table = pl.read_parquet(data / f"{name}.parquet").join(who, on="user_id", how="semi")
            table.write_parquet(out / f"{name}.parquet")
