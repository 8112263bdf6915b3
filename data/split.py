"""Split songs into warm and cold: by a column, by release time, at random, or by artist."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl

from configs.errors import UserError
from data.arrays import AnyArray

WARM, COLD_VAL, COLD_TEST = "warm", "cold_val", "cold_test"


@dataclass
class Split:
    """The split of each song, the method, and the time after which no play may be trained on.

    `zone` is the time zone in which the songs' days of release are days, and so the cut-off; None: as the plays' times.
    """

    of_song: AnyArray
    by: str
    cutoff: datetime | None
    zone: str | None = None

    @property
    def plays_before(self) -> datetime | None:
        """The cut-off as a time of plays, which are in UTC."""
        if self.cutoff is None or self.zone is None:
            return self.cutoff
        hour = pl.Series([self.cutoff, self.cutoff + timedelta(hours=1)])  # where clocks skip midnight
        local = hour.dt.replace_time_zone(self.zone, ambiguous="earliest", non_existent="null").drop_nulls()
        at: datetime = local.dt.convert_time_zone("UTC").dt.replace_time_zone(None)[0]
        return at


def split_songs(
    songs: pl.DataFrame, by: str, cutoff: str | None, cold_share: float, seed: int, zone: str | None = None
) -> Split:
    """Assign every song to warm, cold_val or cold_test; the cold share is halved between the last two.

    `auto` uses the `split` column if there is one, else release times, else a seeded random share. By time, the earlier
    half of the cold songs validates and the later half tests; songs without a date are warm. At random, songs are drawn
    by row; by artist, artists are drawn by name, independently of the order of rows. `zone`: of the days of release.

    Raises:
        UserError: the requested split cannot be made, or leaves no warm or no cold song (one of the two cold parts may
            be empty: songs that are only to be scored need no validation).
    """
    dated = songs["released_at"].drop_nulls().n_unique() > 1
    if by == "auto":
        by = "column" if "split" in songs.columns else "time" if dated or cutoff else "random"
    if by == "column":
        if "split" not in songs.columns:
            raise UserError("split.by=column, but songs.parquet has no split column")
        made = Split(songs["split"].fill_null(WARM).to_numpy(), by, None)
    elif by == "time":
        made = _by_time(songs, cutoff, cold_share, zone)
    elif by == "artist":
        made = Split(_by_group(artists(songs), cold_share, seed), by, None)
    else:
        made = Split(_by_song(songs.height, cold_share, seed), by, None)
    cold = made.of_song != WARM
    if cold.all() or not cold.any():
        part = "known" if cold.all() else "new"
        options = "split.cutoff / split.until / split.cold_share / split.by"
        raise UserError(f"the split by {by} leaves no {part} song: change {options}")
    return made


def artists(songs: pl.DataFrame) -> pl.Series:
    """Artist of each song; the song's own id if it has none."""
    return songs["artist_id"].fill_null(songs["song_id"])


def released_before(songs: pl.DataFrame, until: str | None, zone: str | None = None) -> AnyArray:
    """Mask (songs,) of the songs released before a date, or without a release date; all if `until` is None."""
    if until is None:
        return np.ones(songs.height, dtype=bool)
    return np.asarray((songs["released_at"] < _date(until, zone)).fill_null(True).to_numpy())


def _date(text: str, zone: str | None) -> datetime:
    """A date or time as the songs have theirs, in `zone`."""
    at = datetime.fromisoformat(text)
    if at.tzinfo is None:
        return at
    there: datetime = pl.Series([at.astimezone(UTC)]).dt.convert_time_zone(zone or "UTC").dt.replace_time_zone(None)[0]
    return there


def _by_time(songs: pl.DataFrame, cutoff: str | None, cold_share: float, zone: str | None) -> Split:
    released = songs["released_at"]
    times = released.drop_nulls().sort()
    if times.is_empty():
        raise UserError("split by time: no song has released_at")
    at = _date(cutoff, zone) if cutoff else times[int(len(times) * (1 - cold_share))]
    cold = (released >= at).fill_null(False).to_numpy()
    order = np.argsort(released.fill_null(datetime.min).to_numpy(), kind="stable")
    order = order[cold[order]]
    of_song = np.full(songs.height, WARM, dtype=object)
    of_song[order[: len(order) // 2]] = COLD_VAL
    of_song[order[len(order) // 2 :]] = COLD_TEST
    return Split(of_song, "time", at, zone)


def _by_song(n_songs: int, cold_share: float, seed: int) -> AnyArray:
    """Draw a seeded share of the songs by row number, as the published reference protocol on lfm2k.

    With perm = numpy.random.default_rng(seed).permutation(n_songs) and n_cold = round(cold_share · n_songs), at least
    one, perm[: n_cold // 2] tests and perm[n_cold // 2 : n_cold] validates. For the 1,425 songs of lfm2k and a share of
    0.2 these are perm[:142] and perm[142:285], the splits of the item-cold benchmark for its seeds 0 … 4.
    """
    order = np.random.default_rng(seed).permutation(n_songs)
    n_cold = max(1, round(cold_share * n_songs))
    of_song = np.full(n_songs, WARM, dtype=object)
    of_song[order[: n_cold // 2]] = COLD_TEST
    of_song[order[n_cold // 2 : n_cold]] = COLD_VAL
    return of_song


def _by_group(groups: pl.Series, cold_share: float, seed: int) -> AnyArray:
    """Draw a seeded share of the groups, each as a whole."""
    names = groups.unique().sort()
    order = np.random.default_rng(seed).permutation(len(names))
    share = np.empty(len(names))
    share[order] = np.arange(len(names)) / len(names)
    of_group = np.where(share < cold_share / 2, COLD_TEST, np.where(share < cold_share, COLD_VAL, WARM))
    position = names.search_sorted(groups).to_numpy()
    return of_group[position].astype(object)
