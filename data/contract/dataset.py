"""Reads and checks a dataset folder: the data contract that docs/data.md describes.

Two kinds of fault are kept apart. What makes a table unusable (missing column, wrong type, duplicate ids, nothing in
it) stops the command with one clear line. Rows that are merely unusable are skipped, counted and named in
`Dataset.rejected`, so that nothing disappears silently.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from glob import glob
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from configs.errors import UserError
from data.contract.columns import COLUMNS, check_ids, check_rows, check_split, typed
from data.contract.play_files import as_parquet, read_log, zone_of
from data.contract.play_rules import Plays, note_times, usable_plays
from data.contract.row_rules import Rejected, feature_matrices, note_songs, usable_feedback, usable_tags

Check = Callable[[list[pl.LazyFrame], pl.DataFrame, "pl.DataFrame | None", Rejected], Plays]


@dataclass
class Dataset:
    """A checked dataset. Ids are strings, every optional column exists (null where unknown).

    `rejected` maps a reason to its `count`, up to five `examples`, and `what` it means; `features` maps a name to
    float32 (songs, dim), a missing vector being a row of NaN.
    """

    source: Path
    songs: pl.DataFrame
    parts: list[pl.LazyFrame]  # the plays, a part for each range of users
    users: pl.DataFrame
    feedback: pl.DataFrame | None = None
    tag_assignments: pl.DataFrame | None = None  # user_id, song_id, tag; joined to the songs after the split
    features: dict[str, np.ndarray] = field(default_factory=dict)
    rejected: Rejected = field(default_factory=dict)
    ignored_columns: dict[str, list[str]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    zone: str | None = None  # of days of release: their own, else that of the plays' times

    @property
    def plays(self) -> pl.DataFrame:
        """All plays in memory."""
        return pl.concat(self.parts).collect()


def read_dataset(
    source: str | Path, plays: str | None = None, check: Check = usable_plays, songs: pl.DataFrame | None = None
) -> Dataset:
    """Read and check a dataset folder (songs, plays, users?, i2i_feedback?, tags? as Parquet).

    Args:
        source: the folder.
        plays: Parquet file, folder or glob of the plays, which are read as `check` needs them; None: the folder's own.
        check: from typed plays, songs, users and what was rejected to the usable plays.
        songs: the songs, if they are not in songs.parquet.

    Raises:
        UserError: folder or table missing, not Parquet, missing column, wrong type, empty table, duplicate ids.
    """
    source = Path(source)
    if not source.is_dir():
        raise UserError(f"dataset folder not found: {source}")
    tables: dict[str, Any] = {}
    for table in COLUMNS:
        path = source / f"{table}.parquet"
        if table != "plays" and path.exists():
            with as_parquet([str(path)]):
                tables[table] = pl.read_parquet(path, glob=False)
    tables |= {} if songs is None else {"songs": songs}
    if "songs" not in tables:
        raise _no_table(source, "songs")
    files = plays_files(source, plays)
    notes: list[str] = []
    with as_parquet(files):
        log = read_log(files, notes)
    dataset = validate(source, tables | {"plays": log}, as_parquet(files)(check))
    of_release = getattr(tables["songs"].schema.get("released_at"), "time_zone", None)
    return replace(dataset, notes=notes + dataset.notes, zone=of_release or zone_of(files))


def check_log(source: Path, plays: str | None) -> None:
    """Raise UserError where there are no plays, or their columns or types cannot be used, without reading them all."""
    files = plays_files(source, plays)
    with as_parquet(files):
        typed("plays", pl.concat(read_log(files, [])), [])


def plays_files(source: Path, plays: str | None) -> list[str]:
    """The files of a dataset's plays: as given, or plays.parquet, or all Parquet files of the folder plays/.

    Files whose names, or whose folders' names within a folder, begin with "." or "_" are read only if they are given
    by name: so programs name copies, files half written, and what they note about a folder.

    Raises:
        UserError: there is none.
    """
    for path in [Path(plays)] if plays else [source / "plays.parquet", source / "plays"]:
        given = [path] if path.exists() else list(map(Path, glob(str(path), recursive=True)))
        if not (given := [one for one in given if not hidden(set(one.parts) - set(path.parts))]):
            continue
        found = {str(file) for one in given for file in (parquet_in(one) if one.is_dir() else [one])}
        if not found:
            raise UserError(f"{path} holds no Parquet file (*.parquet)")
        return sorted(found)
    if plays:
        raise UserError(f"plays={plays}: nothing is there")
    raise UserError(f"{source} has no plays.parquet and no folder plays/: give plays=FILE (see docs/data.md)")


def parquet_in(folder: Path) -> list[Path]:
    """Parquet files of a folder and of those in it, but hidden ones.

    Raises:
        UserError: a link leads to a folder, which is not followed: links may go in a circle.
    """
    inside = [path for path in folder.rglob("*") if not hidden(path.relative_to(folder).parts)]
    if link := next((path for path in inside if path.is_symlink() and path.is_dir()), None):
        raise UserError(f"{link} is a link to a folder, which is not followed: name it, as in plays='{link.parent}/*'")
    return [path for path in inside if path.suffix.lower() == ".parquet" and not path.is_dir()]


def hidden(names: Iterable[str]) -> bool:
    """Whether one of the names begins with "." or "_"."""
    return any(name.startswith((".", "_")) for name in names)


def validate(source: Path, tables: dict[str, Any], check: Check = usable_plays) -> Dataset:
    """Check tables in memory, plays also lazily (keys songs, plays; users, i2i_feedback, tags may be None or absent).

    `plays` may be a list, a log in pieces with the same columns.

    Raises:
        UserError: as `read_dataset`.
    """
    notes: list[str] = []
    rejected: Rejected = {}
    log = tables["plays"] if isinstance(tables["plays"], list) else [tables["plays"].lazy()]
    tables = tables | {"plays": pl.concat(log)}
    lazy = {name: typed(name, frame.lazy(), notes) for name, frame in tables.items() if frame is not None}
    for name in ("songs", "plays"):
        check_rows(lazy[name], name)
    known = {name: frame.collect() for name, frame in lazy.items() if name != "plays"}
    songs = known["songs"]
    check_ids(songs, "songs", "song_id")
    check_split(songs)
    songs, features = feature_matrices(songs, rejected, notes)
    users = known.get("users")
    if users is not None:
        check_ids(users, "users", "user_id")
    plays = check([typed("plays", piece, []) for piece in log], songs, users, rejected)
    if not plays.odd["kept"]:
        reasons = "; ".join(f"{entry['count']} {entry['what']}" for entry in rejected.values())
        raise UserError(f"{source}: none of the {plays.found} plays can be used ({reasons}): correct the tables")
    ids = pl.concat(plays.parts).select("user_id", "song_id")
    if users is None:
        users = ids.select(pl.col("user_id").unique().sort()).collect(engine="streaming")
        notes.append(f"no users.parquet: {users.height} users taken from the plays")
    feedback, tags = known.get("i2i_feedback"), known.get("tags")
    feedback = None if feedback is None else usable_feedback(feedback, songs, rejected)
    tags = None if tags is None else usable_tags(tags, songs, rejected)
    note_songs(
        songs, ids.select(pl.col("song_id").n_unique()).collect(engine="streaming").item(), features, tags, notes
    )
    ignored = {
        table: columns
        for table, frame in (lazy | {"songs": songs.lazy()}).items()
        if table != "users"  # any column of theirs is a profile
        and (columns := [name for name in frame.collect_schema() if name not in (*COLUMNS[table], "split")])
    }
    note_times(plays.odd, notes)
    return Dataset(source, songs, plays.parts, users, feedback, tags, features, rejected, ignored, notes)


def _no_table(source: Path, table: str) -> UserError:
    return UserError(f"{source} is not a dataset folder: it has no {table}.parquet (see docs/data.md)")
