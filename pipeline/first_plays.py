"""First plays of new songs, later than the catalogue: a Parquet table as plays.parquet of a dataset folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from scipy import sparse

from configs.errors import UserError
from datamodules.arrays import IntArray
from datamodules.catalogue import Catalogue
from datamodules.contract import validate
from datamodules.row_rules import rejection_table
from pipeline.prepare import index_plays


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
    """Read the file; plays of other songs than `new` and of unknown users are left out and counted.

    Raises:
        UserError: no such file, not Parquet, a missing column or wrong type, or no play that can be used.
    """
    if not Path(path).is_file():
        raise UserError(f"plays={path}: no such file; wanted: a Parquet table with columns user_id, song_id")
    try:
        table = pl.read_parquet(path)
    except (OSError, pl.exceptions.PolarsError) as error:
        reason = str(error).partition("\n")[0]
        raise UserError(f"plays={path} cannot be read as Parquet ({reason}): write the file again") from None
    known = [column for column in ("song_id", "released_at") if column in catalogue.songs.columns]
    songs = catalogue.songs[new].select(known)
    found = validate(Path(path), {"songs": songs, "plays": table, "users": catalogue.users.select("user_id")})
    plays = index_plays(found.plays, songs, catalogue.users).group_by("song", "user").agg(pl.col("strength").max())
    plays = plays.sort("song", "user")
    song, user = (plays[name].to_numpy().astype(np.int64) for name in ("song", "user"))
    liked = plays["strength"].to_numpy() > 0
    strength = sparse.csr_matrix(
        (plays["strength"].to_numpy()[liked], (song[liked], user[liked])), shape=(len(new), catalogue.n_users)
    )
    told = f"\n{rejection_table(found.rejected)}" if found.rejected else ""
    return FirstPlays(strength, song, user, told)
