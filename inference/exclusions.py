"""Users who must not be reached: a Parquet file of user_id, and song_id where only one song is meant."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import polars as pl

from configs.errors import UserError
from data.arrays import BoolArray, IntArray
from data.catalogue import Catalogue
from data.contract.columns import TEXT_TYPES
from inference.given import numbers, read_given

NAMED = 3  # unknown ids that are named


@dataclass
class Exclusions:
    """Users not to be reached at all, and (new song, user) pairs, by song, not to be reached."""

    n_users: int
    users: IntArray
    song: IntArray
    user: IntArray
    unknown: dict[str, list[str]] = field(default_factory=dict)  # ids that the catalogue does not have, by column

    def allowed(self, rows: slice) -> BoolArray:
        """Whom the new songs of a slice may reach, (rows, U)."""
        mask = np.ones((rows.stop - rows.start, self.n_users), dtype=bool)
        mask[:, self.users] = False
        start, stop = np.searchsorted(self.song, [rows.start, rows.stop])
        mask[self.song[start:stop] - rows.start, self.user[start:stop]] = False
        return mask

    def __str__(self) -> str:
        text = f"users left out: {len(self.users)} of every song, {len(self.song)} of one song"
        for column, ids in self.unknown.items():
            if ids:
                named = ", ".join(ids[:NAMED]) + (", …" if len(ids) > NAMED else "")
                text += f"; {column} not in the catalogue: {len(ids)} ({named})"
        return text


def read_exclusions(path: str, catalogue: Catalogue, new: IntArray) -> Exclusions:
    """Read the file; a row without song_id holds for every song. Ids that the catalogue lacks are kept by name.

    Raises:
        UserError: no such file, not Parquet, no user_id column, ids neither text nor integer, a row without user_id.
    """
    table = read_given("exclude", path, "a column user_id")
    if "user_id" not in table.columns:
        raise UserError(f"exclude={path} has no column user_id (it has: {', '.join(table.columns) or 'none'})")
    if "song_id" not in table.columns:
        table = table.with_columns(pl.lit(None, dtype=pl.String).alias("song_id"))
    table = table.select("user_id", "song_id")
    for column in table.columns:
        kind = table[column].dtype
        if not (kind.is_integer() or kind in TEXT_TYPES or kind == pl.Null):
            raise UserError(f"exclude={path}: column '{column}' has type {kind}, wanted: text or integer")
    table = table.cast(pl.String)
    if table["user_id"].null_count():
        raise UserError(f"exclude={path}: column 'user_id' is null in {table['user_id'].null_count()} rows")
    song_of, user_of = numbers(catalogue, new)
    found = table.join(user_of, on="user_id", how="left").join(song_of, on="song_id", how="left")
    known = found.filter(pl.col("user").is_not_null())
    everywhere = known.filter(pl.col("song_id").is_null())["user"].unique(maintain_order=True)
    pairs = known.filter(pl.col("song").is_not_null()).select("song", "user").unique().sort("song", "user")
    missing_users = found.filter(pl.col("user").is_null())["user_id"].unique(maintain_order=True)
    songs = table["song_id"].drop_nulls().unique(maintain_order=True)
    missing_songs = songs.filter(~songs.is_in(catalogue.songs["song_id"].implode()))
    return Exclusions(
        catalogue.n_users,
        everywhere.to_numpy().astype(np.int64),
        pairs["song"].to_numpy().astype(np.int64),
        pairs["user"].to_numpy().astype(np.int64),
        {"user_id": missing_users.to_list(), "song_id": missing_songs.to_list()},
    )
