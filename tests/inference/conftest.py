"""What several tests of this folder share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest


@pytest.fixture(scope="module")
def later(
    tmp_path_factory: pytest.TempPathFactory, write_dataset: Callable[..., Path], prepare: Callable[..., Path]
) -> Path:
    """The tiny dataset some days on: two songs are gone, three that were new are known, one has other content, and the
    songs stand in another order."""
    at = tmp_path_factory.mktemp("later")
    source = write_dataset(at / "data")
    songs = pl.read_parquet(source / "songs.parquet").filter(~pl.col("song_id").is_in(["s04", "s10"]))
    other = pl.col("feature_content").shift(1).over(pl.lit(0))
    songs = songs.with_columns(
        pl.when(pl.col("song_id") == "s20").then(other).otherwise("feature_content").alias("feature_content"),
        pl.when(pl.col("song_id") <= "s50").then(pl.lit("warm")).otherwise(pl.lit("cold_test")).alias("split"),
    )
    songs.reverse().write_parquet(source / "songs.parquet")
    return prepare(source, at / "catalogue")
