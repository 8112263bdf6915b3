"""The known songs of an index folder in Milvus: what is said of them, and how their collection is updated."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from configs.errors import UserError
from data.arrays import AnyArray, FloatArray, IntArray
from data.conditions import columns_of, days_as_text, kinds_of, without_nulls
from data.contract.columns import RESERVED
from retrieval.milvus import ENTRY, VECTOR, MilvusIndex


def about_songs(songs: pl.DataFrame) -> pl.DataFrame:
    """What conditions may name of songs: what their owner says of them, and not what `prepare` counts every day."""
    return columns_of(songs).drop(ENTRY, VECTOR, "split", *RESERVED["songs"], strict=False)


def values_changed(folder: Path, manifest: dict[str, Any], about: pl.DataFrame, rows: IntArray) -> AnyArray:
    """For which songs something else is to be said than the index folder says in `rows` (−1: it does not know them).

    Raises:
        UserError: the catalogue has other columns than the collection.
    """
    if kinds_of(without_nulls(about.clear())) != manifest["columns"]:
        raise UserError(f"{folder} has other columns of songs than the catalogue now: build it anew")
    about = days_as_text(about)
    there = pl.read_parquet(folder / "songs.parquet", columns=about.columns, glob=False)
    there = days_as_text(there[np.maximum(rows, 0)])
    differs = pl.any_horizontal(pl.col(name).ne_missing(pl.col(f"{name} before")) for name in about.columns)
    both = about.hstack(there.rename(lambda name: f"{name} before"))
    return both.select(differs).to_series().to_numpy() & (rows >= 0)


def change_collection(
    index: MilvusIndex,
    first: int,
    vectors: FloatArray,
    entries: IntArray,
    put: AnyArray,
    gone: IntArray,
    about: pl.DataFrame,
) -> None:
    """Put songs in, new ones or in the place of what was said of them, and take entries out.

    In this order, so that whoever searches meanwhile misses nothing; and again after a kill with the same result: what
    has a number from `first` on is of an update that did not end.
    """
    songs = np.flatnonzero(put)
    values = without_nulls(about[songs])
    index.remove_from(first)
    index.add(vectors[songs], entries[songs], lambda rows: values[rows].to_dicts())
    index.remove(gone)
