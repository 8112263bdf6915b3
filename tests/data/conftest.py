"""A log whose files differ in the types of their columns, beside the same log in one file."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from polars.selectors import by_name

# Extra columns: names that differ by case alone or are none in SQL, a time, a number, nested ones.
TYPES: list[dict[str, Any]] = [
    {"user_id": pl.Int32, "song_id": pl.UInt8, "played_at": pl.Datetime("us"), "play_count": pl.Int8, "n.u": pl.Int8},
    {"played_at": pl.Datetime("ns"), "device": pl.String, "n.u": pl.Float32, "seen": pl.Datetime("ns", "UTC")},
    {"user_id": pl.Int64, "song_id": pl.Int64, "played_at": pl.Datetime("ms", "Asia/Shanghai"), "n.u": pl.Int64},
    {"played_at": pl.Datetime("us", "UTC"), "completed": pl.Null, "device": pl.Null, "seen": pl.Datetime("ms")},
    {"played_at": pl.Null, "favourited": pl.Null, "disliked": pl.Null, "n.u": pl.Null, "context": pl.Null},
]


def write_mixed(log: Path, plain: Path, mixed: Path) -> None:
    """Two data sets of `dirty(log)` with numbers for ids: plays in one file of the contract's types, and in five."""
    for folder in (plain, mixed):
        (folder / "plays").mkdir(parents=True)
    ids = pl.col("^(user|song)_id$").str.slice(1)
    for table in ("songs", "users", "tags"):
        for folder in (plain, mixed):
            pl.read_parquet(log / f"{table}.parquet").with_columns(ids).write_parquet(folder / f"{table}.parquet")
    plays = pl.read_parquet(log / "plays.parquet").with_columns(ids, pl.col("played_at").cast(pl.Datetime("ms")))
    plays = plays.with_columns(
        pl.col("play_count").cast(pl.Float64).alias("n.u"),
        pl.col("device").cast(pl.String),
        pl.col("device").cast(pl.String).alias("Device `x`, [1]"),
        *(pl.col("device").cast(pl.String).alias(name) for name in ("DEVICE", "*", "^.*$")),
        pl.col("played_at").cast(pl.Datetime("us")).alias("seen"),
        *(pl.lit(number).alias(name) for number, name in enumerate(("_row", "_file", "_key", "_back", "_metadata"))),
        context=pl.struct(at=pl.col("nested"), how=pl.lit("shuffle")),
    )
    odd = pl.struct(at=pl.col("nested").list.eval(pl.element() + 1), how=pl.lit("shuffle"))
    plays = pl.concat([plays.sample(500, seed=2).with_columns(context=odd), plays])  # no repeats but for `context`
    pieces = []
    for number, types in enumerate(TYPES):
        piece = plays[number * 2040 : (number + 1) * 2040]
        empty = [pl.lit(None, plays.schema[name]).alias(name) for name, dtype in types.items() if dtype == pl.Null]
        pieces.append(piece.with_columns(empty))
        write(pieces[-1].select(changed(name, types.get(name)) for name in order(plays.columns, number)), mixed, number)
    whole = pl.concat(pieces)
    assert whole.height == plays.height
    write(whole, plain, 0)


def changed(name: str, dtype: Any) -> pl.Expr:
    """A column in another type; times get what is finer than a millisecond, if they can."""
    column: pl.Expr = by_name(name)
    if isinstance(dtype, pl.Datetime) and dtype.time_zone:
        column = column.dt.replace_time_zone("UTC")
    column = column if dtype is None else column.cast(dtype)
    if name == "played_at" and isinstance(dtype, pl.Datetime):
        column = column + pl.duration(nanoseconds=999_999, time_unit=dtype.time_unit)
    return column


def order(columns: list[str], number: int) -> list[str]:
    """The last files have another order."""
    return columns if number < 3 else columns[::-1]


def write(plays: pl.DataFrame, folder: Path, number: int) -> None:
    """A file of plays, with a column `a.map` besides, of which a polars frame is not made."""
    values = [[("bar", n)] if n else None for n in plays["nested"].list.first().fill_null(0).to_list()]
    table = plays.to_arrow(compat_level=pl.CompatLevel.oldest())
    pq.write_table(
        table.append_column("a.map", pa.array(values, pa.map_(pa.string(), pa.int64()))),
        folder / "plays" / f"{number}.parquet",
    )


@pytest.fixture
def real() -> Callable[[str], Path]:
    """`real(name)`: a published data set, or skip."""

    def path_of(name: str) -> Path:
        path = Path(os.environ.get("FIRSTPLAY_DATA", "nowhere")) / name
        if not path.exists():
            pytest.skip(f"FIRSTPLAY_DATA names no folder with {name}")
        return path

    return path_of


@pytest.fixture(scope="session")
def mixed() -> Callable[[Path, Path, Path], None]:
    """`mixed(log, plain, mixed)`: see `write_mixed`."""
    return write_mixed
