"""The pool: which songs an audience is looked for. New ones, and known ones that hardly anybody has played."""

from __future__ import annotations

from dataclasses import replace
from datetime import date

import numpy as np
import polars as pl

from configs.errors import UserError
from configs.targeting import AudienceConfig
from data.arrays import IntArray
from data.catalogue import Catalogue
from inference.exclusions import Exclusions
from inference.first_plays import FirstPlays


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


def without_listeners(
    excluded: Exclusions | None, catalogue: Catalogue, pool: IntArray, first: FirstPlays | None = None
) -> Exclusions | None:
    """The exclusions, and beside them everybody who has played a song of the pool: he knows it already."""
    plays = catalogue.plays.filter(pl.col("song").is_in(pl.Series(pool))).select("song", "user")
    row, user = np.searchsorted(pool, plays["song"].to_numpy()), plays["user"].to_numpy()
    if first is not None:
        row, user = np.concatenate([row, first.song]), np.concatenate([user, first.user])
    if not len(row):
        return excluded
    nobody = np.zeros(0, dtype=np.int64)
    excluded = excluded or Exclusions(catalogue.n_users, nobody, nobody, nobody)
    pairs = np.stack([np.concatenate([excluded.song, row]), np.concatenate([excluded.user, user])], axis=1)
    pairs = np.unique(pairs.astype(np.int64), axis=0)
    return replace(excluded, song=pairs[:, 0], user=pairs[:, 1])
