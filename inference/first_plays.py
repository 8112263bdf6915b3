"""First plays of new songs, later than the catalogue: a Parquet table as plays.parquet of a dataset folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from scipy import sparse

from configs.errors import UserError
from data.arrays import IntArray
from data.catalogue import Catalogue
from data.contract.dataset import validate
from data.contract.row_rules import rejection_table
from data.play_tables import index_plays
from inference.given import numbers, read_given


@dataclass
class FirstPlays:
    """Strongest liking of each user for each new song (C, U); rows and users of all plays, of disliked ones too."""

    strength_CU: sparse.csr_matrix
    song: IntArray
    user: IntArray
    told: str

    def __str__(self) -> str:
        songs = int((np.diff(self.strength_CU.indptr) > 0).sum())
        return f"first plays: {len(self.song)} (song, user) pairs, {songs} songs warm up{self.told}"


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
    # whoever met a song, whatever came of it and however odd the row: he is not to get it again
    met = (
        ids.join(song_of, on="song_id").join(user_of, on="user_id").select("song", "user").unique().sort("song", "user")
    )
    song, user = (met[name].to_numpy().astype(np.int64) for name in ("song", "user"))
    of_pool = table.filter(ids["song_id"].is_in(song_of["song_id"].implode()))
    elsewhere = table.height - of_pool.height
    told = f"; {elsewhere} rows of songs outside the pool are not looked at" if elsewhere else ""
    strength = sparse.csr_matrix((len(new), catalogue.n_users), dtype=np.float32)
    if of_pool.height and len(met):
        strength, more = likings(path, of_pool, catalogue, new)
        told += more
    return FirstPlays(strength, song, user, told)


def likings(path: str, plays: pl.DataFrame, catalogue: Catalogue, new: IntArray) -> tuple[sparse.csr_matrix, str]:
    """Strongest liking of each user for each new song (C, U), and what was skipped.

    A known song of the long tail warms no further: its vector holds what its training listeners taught, and users'
    vectors hold it.
    """
    known = [column for column in ("song_id", "released_at") if column in catalogue.songs.columns]
    songs = catalogue.songs[new].select(known)
    try:
        found = validate(Path(path), {"songs": songs, "plays": plays, "users": catalogue.users.select("user_id")})
    except UserError as error:
        raise UserError(f"plays={path}: {str(error).removeprefix(f'{path}: ')}") from None
    table = index_plays(found.plays, songs, catalogue.users).group_by("song", "user").agg(pl.col("strength").max())
    is_new = (catalogue.songs["split"] != "warm").gather(new)
    table = table.filter((pl.col("strength") > 0) & is_new.gather(table["song"]))
    values = (table["strength"].to_numpy(), (table["song"].to_numpy(), table["user"].to_numpy()))
    strength = sparse.csr_matrix(values, shape=(len(new), catalogue.n_users), dtype=np.float32)
    return strength, f"\n{rejection_table(found.rejected)}" if found.rejected else ""
