"""Reads and checks a dataset folder: the data contract that docs/data.md describes.

Two kinds of fault are kept apart. What makes a table unusable (missing column, wrong type, duplicate ids, nothing in
it) stops the command with one clear line. Rows that are merely unusable are skipped, counted and named in
`Dataset.rejected`, so that nothing disappears silently.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import polars as pl

from configs.errors import UserError
from datamodules.row_rules import (
    Rejected,
    feature_matrices,
    in_time_order,
    note_songs,
    rejection_table,
    usable_feedback,
    usable_plays,
    usable_tags,
)

__all__ = ["Dataset", "read_dataset", "rejection_table", "validate"]

TIME = pl.Datetime("ms")
TEXTS = pl.List(pl.String)

# Column kinds of the contract: the type that later code sees, and what the user is told to provide.
KINDS: dict[str, tuple[pl.DataType, str]] = {
    "id": (pl.String(), "text or integer"),
    "text": (pl.String(), "text"),
    "texts": (TEXTS, "list of text"),
    "time": (TIME, "Datetime or Date (polars: .str.to_datetime())"),
    "flag": (pl.Boolean(), "Boolean"),
    "count": (pl.Int64(), "integer"),
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
        "artist_id": "id",
        "released_at": "time",
        "audio_path": "text",
    },
    "plays": {
        "played_at": "time",
        "completed": "flag",
        "favourited": "flag",
        "disliked": "flag",
        "play_count": "count",
    },
}
SPLITS = ("warm", "cold_val", "cold_test")
# Columns that `prepare` adds to the catalogue; a user's column of that name would be mistaken for them.
RESERVED = {
    "songs": ("popularity", "audio_shard", "audio_start", "audio_length"),
    "plays": ("user", "song", "strength"),
}


@dataclass
class Dataset:
    """A checked dataset. Ids are strings, every optional column exists (null where unknown).

    `rejected` maps a reason to its `count`, up to five `examples`, and `what` it means; `features` maps a name to
    float32 (songs, dim), a missing vector being a row of NaN.
    """

    source: Path
    songs: pl.DataFrame
    plays: pl.DataFrame
    users: pl.DataFrame
    feedback: pl.DataFrame | None = None
    tag_assignments: pl.DataFrame | None = None  # user_id, song_id, tag; joined to the songs after the split
    features: dict[str, np.ndarray] = field(default_factory=dict)
    rejected: Rejected = field(default_factory=dict)
    ignored_columns: dict[str, list[str]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def read_dataset(source: str | Path) -> Dataset:
    """Read and check a dataset folder (songs, plays, users?, i2i_feedback?, tags? as Parquet).

    Raises:
        UserError: folder or table missing, not Parquet, missing column, wrong type, empty table, duplicate ids.
    """
    source = Path(source)
    if not source.is_dir():
        raise UserError(f"dataset folder not found: {source}")
    tables = {table: _read_table(source, table) for table in REQUIRED}
    for table in ("songs", "plays"):
        if tables[table] is None:
            raise UserError(f"{source} is not a dataset folder: it has no {table}.parquet (see docs/data.md)")
    return validate(source, tables)


def validate(source: Path, tables: dict[str, pl.DataFrame | None]) -> Dataset:
    """Check tables already in memory (keys songs, plays; users, i2i_feedback, tags may be None or absent).

    Raises:
        UserError: as `read_dataset`.
    """
    notes: list[str] = []
    rejected: Rejected = {}
    known = {name: _typed(name, frame, notes) for name, frame in tables.items() if frame is not None}
    songs, plays = known["songs"], known["plays"]
    _check_ids(songs, "songs", "song_id")
    _check_split(songs)
    songs, features = feature_matrices(songs, rejected, notes)
    users = known.get("users")
    if users is not None:
        _check_ids(users, "users", "user_id")
    found = plays.height
    plays = usable_plays(plays, songs, users, rejected)
    if plays.is_empty():
        reasons = "; ".join(f"{entry['count']} {entry['what']}" for entry in rejected.values())
        raise UserError(f"{source}: none of the {found} plays can be used ({reasons}): correct the tables")
    if users is None:
        users = plays.select(pl.col("user_id").unique().sort())
        notes.append(f"no users.parquet: {users.height} users taken from the plays")
    feedback = known.get("i2i_feedback")
    if feedback is not None:
        feedback = usable_feedback(feedback, songs, rejected)
    tags = known.get("tags")
    if tags is not None:
        tags = usable_tags(tags, songs, rejected)
    note_songs(songs, plays, features, tags, notes)
    known_columns = {table: {**REQUIRED[table], **OPTIONAL.get(table, {}), "split": ""} for table in REQUIRED}
    ignored = {
        table: [column for column in frame.columns if column not in known_columns[table]]
        for table, frame in (known | {"songs": songs}).items()
        if table != "users"  # any column of theirs is a profile
    }
    ignored = {table: columns for table, columns in ignored.items() if columns}
    plays = in_time_order(plays, notes)
    return Dataset(source, songs, plays, users, feedback, tags, features, rejected, ignored, notes)


def _read_table(source: Path, table: str) -> pl.DataFrame | None:
    path = source / f"{table}.parquet"
    if not path.exists():
        return None
    try:
        return pl.read_parquet(path)
    except (Exception, pl.exceptions.PanicException) as error:  # polars raises many unrelated types here
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(f"{path} cannot be read as Parquet ({reason}): write the file again") from None


def _typed(table: str, frame: pl.DataFrame, notes: list[str]) -> pl.DataFrame:
    """Contract columns converted to their one type; absent optional ones added as nulls; the rest kept."""
    if frame.is_empty() and table in ("songs", "plays"):
        raise UserError(f"{table}.parquet has no rows: at least one is needed")
    missing = [column for column in REQUIRED[table] if column not in frame.columns]
    if missing:
        raise UserError(
            f"{table}.parquet has no column '{missing[0]}' (found: {', '.join(frame.columns)}): add or rename it"
        )
    taken = [column for column in RESERVED.get(table, ()) if column in frame.columns]
    if taken:
        notes.append(f"{table}.parquet: column {', '.join(taken)} left out, since prepare writes its own of that name")
        frame = frame.drop(taken)
    kinds = {**REQUIRED[table], **OPTIONAL.get(table, {})}
    return frame.with_columns(
        _convert(table, frame[column], kind) if column in frame.columns else pl.lit(None, KINDS[kind][0]).alias(column)
        for column, kind in kinds.items()
    )


def _convert(table: str, column: pl.Series, kind: str) -> pl.Series:
    wanted, meaning = KINDS[kind]
    dtype = column.dtype
    inner = getattr(dtype, "inner", None)
    is_text = dtype in (pl.String, pl.Categorical, pl.Enum)
    accepted = (
        dtype == pl.Null
        or {
            "id": is_text or dtype.is_integer(),
            "text": is_text,
            "texts": inner is not None and inner in (pl.String, pl.Categorical, pl.Enum, pl.Null),
            "time": dtype in (pl.Date, pl.Datetime),
            "flag": dtype == pl.Boolean,
            "count": dtype.is_integer(),
        }[kind]
    )
    if not accepted:
        raise UserError(f"{table}.parquet: column '{column.name}' has type {dtype}, wanted: {meaning}")
    if isinstance(dtype, pl.Datetime) and dtype.time_zone is not None:
        column = column.dt.convert_time_zone("UTC").dt.replace_time_zone(None)
    return column.cast(wanted)


def _check_ids(frame: pl.DataFrame, table: str, column: str) -> None:
    ids = frame[column]
    if ids.null_count():
        raise UserError(f"{table}.parquet: column '{column}' is null in {ids.null_count()} rows: every row needs an id")
    repeated = ids.filter(ids.is_duplicated()).unique(maintain_order=True)
    if len(repeated):
        some = ", ".join(repeated.head(5).to_list())
        raise UserError(
            f"{table}.parquet: {len(repeated)} values of '{column}' occur more than once ({some}): ids are unique"
        )


def _check_split(songs: pl.DataFrame) -> None:
    if "split" not in songs.columns:
        return
    wrong = songs.filter(~pl.col("split").cast(pl.String).is_in(SPLITS).fill_null(False))
    if wrong.height:
        raise UserError(
            f"songs.parquet: column 'split' is '{wrong['split'][0]}' for song {wrong['song_id'][0]} and unusable in "
            f"{wrong.height} rows: write {', '.join(SPLITS)}, or leave the column out"
        )
