"""Columns of the data contract (docs/data.md): names, types, and checks of whole tables."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import polars as pl

from configs.errors import UserError
from data.split import COLD_TEST, COLD_VAL, WARM

TIME = pl.Datetime("ms")
PAIR = ["user_id", "song_id"]
TEXTS = pl.List(pl.String)
MAX_VALUES = 8  # values of a song that a category field keeps
TEXT_TYPES = (pl.String, pl.Categorical, pl.Enum)  # accepted types of a column of text or ids

EXACT = {
    pl.Float16: 2**11,
    pl.Float32: 2**24,
    pl.Float64: 2**53,
}  # integers below it are exact as floating-point numbers


def whole(dtype: Any) -> bool:
    """Whether a type holds integers: also as decimals, or as pandas has integers of which some are missing."""
    return bool(dtype.is_integer() or dtype.is_float() or (dtype.is_decimal() and dtype.scale == 0))


# Kinds of column: the type after conversion, accepted types in words and as a test; a column of nulls is of any kind.
KINDS: dict[str, tuple[pl.DataType, str, Callable[[Any], bool]]] = {
    "id": (pl.String(), "text or integer", lambda dtype: dtype in TEXT_TYPES or whole(dtype)),
    "label": (pl.String(), "text or integer", lambda dtype: dtype in TEXT_TYPES or whole(dtype)),
    "text": (pl.String(), "text", lambda dtype: dtype in TEXT_TYPES),
    "path": (pl.String(), "text", lambda dtype: dtype in TEXT_TYPES),
    "texts": (TEXTS, "list of text", lambda dtype: getattr(dtype, "inner", None) in (*TEXT_TYPES, pl.Null)),
    "time": (TIME, "Datetime or Date (polars: .str.to_datetime())", lambda dtype: dtype in (pl.Date, pl.Datetime)),
    "day": (TIME, "Datetime or Date (polars: .str.to_datetime())", lambda dtype: dtype in (pl.Date, pl.Datetime)),
    "flag": (pl.Boolean(), "Boolean", lambda dtype: dtype == pl.Boolean),
    "count": (pl.Int64(), "integer", whole),
}
REQUIRED: dict[str, dict[str, str]] = {
    "songs": {"song_id": "id"},
    "plays": {"user_id": "id", "song_id": "id"},
    "users": {"user_id": "id"},
    "i2i_feedback": {
        "source_song_id": "id",
        "recommended_song_id": "id",
        "plays": "count",
        "completes": "count",
        "favourites": "count",
    },
    "tags": {"user_id": "id", "song_id": "id", "tag": "text"},
}
OPTIONAL: dict[str, dict[str, str]] = {
    "songs": {
        "title": "text",
        "lyrics": "text",
        "language": "text",
        "genres": "texts",
        "tags": "texts",
        "artist_id": "label",
        "released_at": "day",  # of the place where it is released
        "audio_path": "path",
    },
    "plays": {
        "played_at": "time",
        "completed": "flag",
        "favourited": "flag",
        "disliked": "flag",
        "play_count": "count",
    },
}
COLUMNS = {table: columns | OPTIONAL.get(table, {}) for table, columns in REQUIRED.items()}
# Text and categories of a song, in requests to the service and in its feedback tables.
ABOUT: dict[str, pl.DataType] = dict.fromkeys(("title", "lyrics", "language", "artist_id"), pl.String())
ABOUT |= {"genres": TEXTS, "tags": TEXTS}
WHOLE = {
    table: [name for name, kind in of.items() if kind in ("id", "label", "count")] for table, of in COLUMNS.items()
}
DAY_OF_RELEASE = "released_at"  # the service knows it to the day, as YYYY-MM-DD
SPLITS = (WARM, COLD_VAL, COLD_TEST)
# Columns that `prepare` adds to the catalogue or (`_…`) uses itself; columns of these names in the source are dropped.
# `_metadata` is Spark's, about a row's file.
RESERVED = {
    "songs": (
        *("popularity", "audio_shard", "audio_start", "audio_length", "audio_content", "audio_mix"),
        "feature_audio_stats",
    ),
    "plays": (
        *("user", "song", "strength"),
        *("_row", "_part", "_song", "_user", "_released_at"),
        *("_file", "_key", "_back", "_warm", "_metadata"),
    ),
}


# As pandas names the index of a frame in Parquet and in CSV; and, where they are numbers, as it names one that is made
# a column, and as polars reads one from CSV.
INDEX, NUMBERED = re.compile(r"__index_level_\d+__|Unnamed: \d+(\.\d+)?"), ("index", "level_0", "")


def typed(table: str, frame: pl.LazyFrame, notes: list[str]) -> pl.LazyFrame:
    """Convert contract columns to their types; absent optional ones become nulls, others are kept.

    Raises:
        UserError: a required column is missing, or a column has a type that cannot be converted.
    """
    schema = frame.collect_schema()
    missing = [column for column in REQUIRED[table] if column not in schema]
    if missing:
        raise UserError(f"{table}.parquet has no column '{missing[0]}' (found: {', '.join(schema)}): add or rename it")
    taken = [column for column in RESERVED.get(table, ()) if column in schema]
    if taken:
        notes.append(f"{table}.parquet: column {', '.join(taken)} left out, since prepare has its own of that name")
        frame = frame.drop(taken)
    if index := [column for column, dtype in schema.items() if is_index(column, dtype)]:
        names = ", ".join(name or "without a name" for name in index)
        notes.append(f"{table}.parquet: column {names} left out: pandas names the index of its rows so")
        frame = frame.drop(index)
    frame = in_integers(table, frame)
    schema = frame.collect_schema()
    return frame.with_columns(
        _convert(table, column, schema[column], kind)
        if column in schema
        else pl.lit(None, KINDS[kind][0]).alias(column)
        for column, kind in COLUMNS[table].items()
    )


def is_index(column: str, dtype: Any) -> bool:
    """Whether a column is the index of a pandas frame."""
    return bool(INDEX.fullmatch(column) or (column in NUMBERED and dtype.is_numeric()))


def in_integers(table: str, frame: pl.LazyFrame) -> pl.LazyFrame:
    """Convert ids and counts that are floating-point numbers to integers.

    Raises:
        UserError: a number is no integer, or so large that its last digits are lost.
    """
    columns = {name: dtype for name, dtype in frame.collect_schema().items() if dtype.is_float()}
    columns = {name: dtype for name, dtype in columns.items() if name in WHOLE[table]}
    if not columns:
        return frame
    bad = [
        pl.col(name).filter((pl.col(name) != pl.col(name).round()) | (pl.col(name).abs() >= EXACT[dtype])).drop_nans()
        for name, dtype in columns.items()
    ]
    for name, value in frame.select(of.first() for of in bad).collect(engine="streaming").row(0, named=True).items():
        if value is not None:
            why = "may have lost digits" if value.is_integer() or abs(value) > 1e15 else "is no integer"
            wanted = KINDS[COLUMNS[table][name]][1]
            raise UserError(
                f"{table}.parquet: column '{name}' has type {columns[name]}, wanted: {wanted} ({value:g} {why})"
            )
    return frame.with_columns(pl.col(name).fill_nan(None).cast(pl.Int64) for name in columns)


def _convert(table: str, name: str, dtype: pl.DataType, kind: str) -> pl.Expr:
    wanted, meaning, accepts = KINDS[kind]
    if dtype != pl.Null and not accepts(dtype):
        raise UserError(f"{table}.parquet: column '{name}' has type {dtype}, wanted: {meaning}")
    column = pl.col(name)
    if isinstance(dtype, pl.Datetime) and dtype.time_zone is not None:
        column = (column if kind == "day" else column.dt.convert_time_zone("UTC")).dt.replace_time_zone(None)
    return FILLED.get(kind, lambda filled: filled)(column.cast(wanted))


def _filled_texts(column: pl.Expr) -> pl.Expr:
    kept = column.list.eval(pl.element().str.strip_chars().replace("", None).drop_nulls().unique(maintain_order=True))
    return pl.when(kept.list.len() > 0).then(kept)


# What is blank is missing. Ids and paths that are not are left as they are: white space may be part of a name, by which
# other tables know it. An artist is a category, as a language or a genre is.
FILLED: dict[str, Callable[[pl.Expr], pl.Expr]] = {
    "id": lambda column: pl.when(column.str.contains(r"\S")).then(column),
    "path": lambda column: pl.when(column.str.contains(r"\S")).then(column),
    "label": lambda column: column.str.strip_chars().replace("", None),
    "text": lambda column: column.str.strip_chars().replace("", None),
    "texts": _filled_texts,
}


def check_rows(frame: pl.LazyFrame, table: str) -> None:
    """Raise UserError if a table is empty."""
    if not frame.select(pl.len()).collect().item():
        raise UserError(f"{table}.parquet has no rows: at least one is needed")


def check_ids(frame: pl.DataFrame, table: str, column: str) -> None:
    """Raise UserError unless the ids of a table are unique and none is null."""
    ids = frame[column]
    if ids.null_count():
        raise UserError(f"{table}.parquet: column '{column}' is null in {ids.null_count()} rows: every row needs an id")
    repeated = ids.filter(ids.is_duplicated()).unique(maintain_order=True)
    if len(repeated):
        some = ", ".join(repeated.head(5).to_list())
        raise UserError(
            f"{table}.parquet: {len(repeated)} values of '{column}' occur more than once ({some}): ids are unique"
        )


def check_split(songs: pl.DataFrame) -> None:
    """Raise UserError if a column `split` has a value other than SPLITS."""
    if "split" not in songs.columns:
        return
    wrong = songs.filter(~pl.col("split").cast(pl.String).is_in(SPLITS).fill_null(False))
    if wrong.height:
        raise UserError(
            f"songs.parquet: column 'split' is '{wrong['split'][0]}' for song {wrong['song_id'][0]} and unusable in "
            f"{wrong.height} rows: write {', '.join(SPLITS)}, or leave the column out"
        )
