"""Which songs an audience is looked for, and which users they may not reach.

The pool: new songs, and known ones that hardly anybody has played. Exclusions: users who must not be reached, a Parquet
file of user_id, and song_id where only one song is meant; and users for whom a condition does not hold. First plays:
plays of the pool later than the catalogue, a Parquet table as plays.parquet of a dataset folder.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path

import numpy as np
import polars as pl
from scipy import sparse

from artifacts.remote import content, is_remote
from configs.errors import UserError, first_of
from configs.targeting import AudienceConfig
from data.arrays import IntArray
from data.catalogue import Catalogue
from data.conditions import columns_of, condition, kinds_of
from data.contract.columns import KINDS, in_integers
from data.contract.dataset import validate
from data.contract.row_rules import rejection_table
from data.play_tables import index_plays
from retrieval.audience import Excluded

NAMED = 3  # unknown ids that are named


def songs_in_pool(config: AudienceConfig, catalogue: Catalogue) -> IntArray:
    """Song numbers, ascending: those of the split, released since a date, and the long tail.

    Raises:
        UserError: no song is in it, or the date is none.
    """
    songs = catalogue.songs
    in_pool = np.isin(np.arange(catalogue.n_songs), catalogue.rows(config.split))
    if config.since is not None:
        day = date.fromisoformat(config.since)
        if "released_at" not in songs.columns:
            raise UserError(f"since={config.since}: {catalogue.folder} has no release dates (released_at)")
        in_pool &= songs.select((pl.col("released_at").dt.date() >= day).fill_null(False)).to_series().to_numpy()
    if config.long_tail is not None:
        in_pool |= (songs["split"] == "warm").to_numpy() & (songs["popularity"] <= config.long_tail).to_numpy()
    if not in_pool.any():
        since = f", since={config.since}" if config.since else ""
        raise UserError(f"split={config.split}{since}: {catalogue.folder} has no such songs")
    return np.flatnonzero(in_pool)


@dataclass(frozen=True)
class Exclusions(Excluded):
    """Those of a file."""

    unknown: dict[str, list[str]] = field(default_factory=dict)  # ids that the catalogue does not have, by column

    def __str__(self) -> str:
        text = f"users left out: {len(self.users)} of every song, {len(self.song)} of one song"
        for column, ids in self.unknown.items():
            if ids:
                text += f"; {column} not in the catalogue: {len(ids)} ({first_of(ids, NAMED)})"
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
        if not (KINDS["id"][2](kind) or kind == pl.Null):
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
        everywhere.to_numpy().astype(np.int64),
        pairs["song"].to_numpy().astype(np.int64),
        pairs["user"].to_numpy().astype(np.int64),
        {"user_id": missing_users.to_list(), "song_id": missing_songs.to_list()},
    )


def left_out(config: AudienceConfig, catalogue: Catalogue, new: IntArray) -> tuple[Exclusions, list[str]]:
    """Whom `exclude` and `users_where` leave out, and what the screen shows of it.

    Raises:
        UserError: as `read_exclusions` and `users_outside`; or the condition holds for nobody.
    """
    exclusions, lines = Exclusions(), []
    if config.exclude:
        exclusions = read_exclusions(config.exclude, catalogue, new)
        lines.append(f"exclude={config.exclude}: {exclusions}")
    if config.users_where is None:
        return exclusions, lines
    outside = users_outside(columns_of(catalogue.users), config.users_where)
    if len(outside) == catalogue.n_users:
        raise UserError(f"users_where={config.users_where}: no user is so")
    lines.append(f"users_where={config.users_where}: {catalogue.n_users - len(outside)} of {catalogue.n_users} users")
    return exclusions.and_users(outside), lines


def users_outside(about: pl.DataFrame, where: str) -> IntArray:
    """Numbers, ascending, of the users for whom a condition does not hold.

    Args:
        about: what conditions may name of users (`columns_of` their table).
        where: the condition (`data.conditions`).

    Raises:
        UserError: it is none.
    """
    holds = about.select(condition(where, kinds_of(about), "users_where").rows).to_series()
    return (~holds).arg_true().to_numpy().astype(np.int64)


@dataclass
class FirstPlays:
    """Strongest liking of each user for each new song (C, U); rows and users of all plays, of disliked ones too."""

    strength_CU: sparse.csr_matrix
    song: IntArray
    user: IntArray
    skipped: str

    def __str__(self) -> str:
        songs = int((np.diff(self.strength_CU.indptr) > 0).sum())
        return f"first plays: {len(self.song)} (song, user) pairs, {songs} songs warm up{self.skipped}"


def read_first_plays(path: str, catalogue: Catalogue, new: IntArray) -> FirstPlays:
    """Read the file; plays of songs outside the pool `new` and of unknown users are left out and counted.

    Raises:
        UserError: no such file, not Parquet, a missing column or wrong type, or no play of the pool can be used.
    """
    table = read_given("plays", path, "columns user_id, song_id")
    song_of, user_of = numbers(catalogue, new)
    try:
        ids = table.select(pl.col("user_id", "song_id").cast(pl.String))
    except pl.exceptions.PolarsError as error:
        reason = str(error).partition("\n")[0]
        raise UserError(f"plays={path}: wanted: columns user_id and song_id of text or integers ({reason})") from None
    # whoever met a song, whatever came of it and however odd the row: they are not to get it again
    met = (
        ids.join(song_of, on="song_id").join(user_of, on="user_id").select("song", "user").unique().sort("song", "user")
    )
    song, user = (met[name].to_numpy().astype(np.int64) for name in ("song", "user"))
    of_pool = table.filter(ids["song_id"].is_in(song_of["song_id"].implode()))
    elsewhere = table.height - of_pool.height
    skipped = f"; {elsewhere} rows of songs outside the pool are not looked at" if elsewhere else ""
    strength = sparse.csr_matrix((len(new), catalogue.n_users), dtype=np.float32)
    if of_pool.height and len(met):
        strength, more = likings(path, of_pool, catalogue, new)
        skipped += more
    return FirstPlays(strength, song, user, skipped)


def likings(path: str, plays: pl.DataFrame, catalogue: Catalogue, new: IntArray) -> tuple[sparse.csr_matrix, str]:
    """Strongest liking of each user for each new song (C, U), and what was skipped.

    A known song of the long tail warms no further: its vector holds what its training listeners taught, and users'
    vectors hold it.
    """
    known = [column for column in ("song_id", "released_at") if column in catalogue.songs.columns]
    songs, source = catalogue.songs[new].select(known), Path(path)
    try:
        found = validate(source, {"songs": songs, "plays": plays, "users": catalogue.users.select("user_id")})
    except UserError as error:
        raise UserError(f"plays={path}: {str(error).removeprefix(f'{source}: ')}") from None
    table = index_plays(found.plays, songs, catalogue.users).group_by("song", "user").agg(pl.col("strength").max())
    is_new = (catalogue.songs["split"] != "warm").gather(new)
    table = table.filter((pl.col("strength") > 0) & is_new.gather(table["song"]))
    values = (table["strength"].to_numpy(), (table["song"].to_numpy(), table["user"].to_numpy()))
    strength = sparse.csr_matrix(values, shape=(len(new), catalogue.n_users), dtype=np.float32)
    return strength, f"\n{rejection_table(found.rejected)}" if found.rejected else ""


def without_listeners(
    excluded: Excluded, plays: pl.DataFrame, pool: IntArray, first: FirstPlays | None = None
) -> Excluded:
    """The exclusions, and beside them everybody who has played a song of the pool: they know it already."""
    plays = plays.filter(pl.col("song").is_in(pl.Series(pool))).select("song", "user")
    row, user = np.searchsorted(pool, plays["song"].to_numpy()), plays["user"].to_numpy()
    if first is not None:
        row, user = np.concatenate([row, first.song]), np.concatenate([user, first.user])
    pairs = np.stack([np.concatenate([excluded.song, row]), np.concatenate([excluded.user, user])], axis=1)
    pairs = np.unique(pairs.astype(np.int64), axis=0)
    return replace(excluded, song=pairs[:, 0], user=pairs[:, 1])


def read_given(option: str, path: str, wanted: str) -> pl.DataFrame:
    """Read the Parquet file that an option names, on disk or in an object store, with ids as in a table of plays.

    Raises:
        UserError: no such file, not Parquet, or an id is a number that is no integer; an object store cannot be read.
    """
    try:
        if not is_remote(path) and not Path(path).is_file():
            raise FileNotFoundError
        table = pl.read_parquet(content(path) if is_remote(path) else path, glob=False)
    except FileNotFoundError:
        raise UserError(f"{option}={path}: no such file; wanted: a Parquet table with {wanted}") from None
    except (OSError, pl.exceptions.PolarsError) as error:
        reason = str(error).partition("\n")[0]
        raise UserError(f"{option}={path} cannot be read as Parquet ({reason}): write the file again") from None
    try:
        return in_integers("plays", table.lazy()).collect()
    except UserError as error:
        raise UserError(f"{option}={path}: {str(error).removeprefix('plays.parquet: ')}") from None


def numbers(catalogue: Catalogue, pool: IntArray) -> tuple[pl.DataFrame, pl.DataFrame]:
    """`song_id` → `song`, its place in the pool, and `user_id` → `user`, its row, to be joined to a given table."""
    schema = {"song_id": pl.String, "song": pl.Int64}
    song_of = pl.DataFrame({"song_id": catalogue.songs["song_id"].gather(pool), "song": np.arange(len(pool))}, schema)
    return song_of, pl.DataFrame({"user_id": catalogue.users["user_id"], "user": np.arange(catalogue.n_users)})
