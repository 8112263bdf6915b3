"""Tables that are handed to a command beside the catalogue, and the catalogue's numbers for the ids in them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl

from configs.errors import UserError
from data.arrays import IntArray
from data.catalogue import Catalogue


def read_given(option: str, path: str, wanted: str) -> pl.DataFrame:
    """The Parquet file that an option names.

    Raises:
        UserError: no such file, or not Parquet.
    """
    if not Path(path).is_file():
        raise UserError(f"{option}={path}: no such file; wanted: a Parquet table with {wanted}")
    try:
        return pl.read_parquet(path, glob=False)
    except (OSError, pl.exceptions.PolarsError) as error:
        reason = str(error).partition("\n")[0]
        raise UserError(f"{option}={path} cannot be read as Parquet ({reason}): write the file again") from None


def numbers(catalogue: Catalogue, pool: IntArray) -> tuple[pl.DataFrame, pl.DataFrame]:
    """`song_id` → `song`, its place in the pool, and `user_id` → `user`, its row, to be joined to a given table."""
    schema = {"song_id": pl.String, "song": pl.Int64}
    song_of = pl.DataFrame({"song_id": catalogue.songs["song_id"].gather(pool), "song": np.arange(len(pool))}, schema)
    return song_of, pl.DataFrame({"user_id": catalogue.users["user_id"], "user": np.arange(catalogue.n_users)})
