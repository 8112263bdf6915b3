"""Which songs are cold: by column, by time, by artist, at random; and what stops with one line."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import polars as pl
import pytest

from configs.errors import UserError
from data.split import COLD_TEST, COLD_VAL, WARM, released_before, split_songs

N = 50


def songs(**columns: Any) -> pl.DataFrame:
    base = {
        "song_id": [f"s{i:02d}" for i in range(N)],
        "artist_id": pl.Series([None] * N, dtype=pl.String),
        "released_at": pl.Series([None] * N, dtype=pl.Datetime("ms")),
    }
    return pl.DataFrame(base | columns)


def dated(missing: tuple[int, ...] = (), seed: int = 0) -> tuple[pl.DataFrame, list[datetime | None]]:
    """Songs released on distinct days in a shuffled order."""
    days = np.random.default_rng(seed).permutation(N)
    when = [None if i in missing else datetime(2026, 1, 1) + timedelta(days=int(day)) for i, day in enumerate(days)]
    return songs(released_at=pl.Series(when, dtype=pl.Datetime("ms"))), when


def split(table: pl.DataFrame, by: str = "auto", cutoff: str | None = None, share: float = 0.2, seed: int = 0) -> Any:
    return split_songs(table, by, cutoff, share, seed)


def test_by_time_the_latest_are_cold_and_the_very_latest_test() -> None:
    table, when = dated(missing=(4, 9))
    made = split(table)
    assert made.by == "time" and made.cutoff is not None
    for song, released in enumerate(when):
        assert (made.of_song[song] != WARM) == (released is not None and released >= made.cutoff)
    val, test = ([when[i] for i in np.flatnonzero(made.of_song == part)] for part in (COLD_VAL, COLD_TEST))
    assert max(val) < min(test) and len(val) == len(test) == 5
    assert made.of_song[4] == made.of_song[9] == WARM, "a song without a date counts as known"


@pytest.mark.parametrize("cutoff", ["2026-02-10", "2026-02-10T01:00:00+01:00"])
def test_cutoff_day_itself_is_cold(cutoff: str) -> None:
    table, when = dated()
    made = split(table, cutoff=cutoff)
    assert made.cutoff == datetime(2026, 2, 10)
    assert [released >= datetime(2026, 2, 10) for released in when if released] == (made.of_song != WARM).tolist()


@pytest.mark.parametrize(
    ("zone", "hour"), [("Asia/Shanghai", "2026-02-09T16:00"), ("America/Los_Angeles", "2026-02-10T08:00"), (None, "")]
)
def test_the_cutoff_of_plays_is_the_local_day(zone: str | None, hour: str) -> None:
    """That of the songs is the day itself; an hour that is given in full is no local day."""
    table = dated()[0]
    made = split_songs(table, "auto", "2026-02-10", 0.2, 0, zone)
    assert made.cutoff == datetime(2026, 2, 10)
    assert made.plays_before == (datetime.fromisoformat(hour) if hour else made.cutoff)
    assert (made.of_song == split(table, cutoff="2026-02-10").of_song).all()
    assert split_songs(table, "auto", "2026-02-10T01:00+01:00", 0.2, 0, zone).plays_before == datetime(2026, 2, 10)
    assert split_songs(table, "random", None, 0.2, 0, zone).plays_before is None
    in_full = f"{hour or '2026-02-10T00:00'}+00:00"
    there = split_songs(table, "auto", in_full, 0.2, 0, zone)
    assert (there.cutoff, there.plays_before) == (made.cutoff, made.plays_before)
    assert (there.of_song == made.of_song).all(), "days of release are those of the zone"
    assert (released_before(table, in_full, zone) == released_before(table, "2026-02-10")).all()


def test_a_day_that_begins_at_one() -> None:
    """In Beirut, clocks skipped the first hour of 2022-03-27."""
    made = split_songs(dated()[0], "auto", "2026-02-10", 0.2, 0, "Asia/Beirut")
    assert replace(made, cutoff=datetime(2022, 3, 27)).plays_before == datetime(2022, 3, 26, 22)


def test_by_column_is_taken_as_it_is() -> None:
    given = [[WARM, COLD_VAL, COLD_TEST][i % 3] for i in range(N)]
    made = split(dated()[0].with_columns(split=pl.Series(given)))
    assert (made.by, made.cutoff, made.of_song.tolist()) == ("column", None, given)


def test_random_shares_are_exact_and_seeded() -> None:
    made = split(songs())
    assert made.by == "random"
    assert [int((made.of_song == part).sum()) for part in (WARM, COLD_VAL, COLD_TEST)] == [40, 5, 5]
    assert (split(songs()).of_song == made.of_song).all() and (split(songs(), seed=1).of_song != made.of_song).any()


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("n", "share", "n_test", "n_val"), [(1425, 0.2, 142, 143), (50, 0.1, 2, 3), (7, 0.5, 2, 2)])
def test_a_random_split_is_that_of_the_published_protocol(
    n: int, share: float, n_test: int, n_val: int, seed: int
) -> None:
    """lfm2k's reference: perm[:142] tests, perm[142:285] validates; in the order of the rows, whatever the ids say."""
    ids = [f"s{i}" for i in np.random.default_rng(99).permutation(n)]
    none = pl.Series([None] * n, dtype=pl.Datetime("ms"))
    made = split(pl.DataFrame({"song_id": ids, "released_at": none}), share=share, seed=seed)
    perm = np.random.default_rng(seed).permutation(n).tolist()
    want = {COLD_TEST: perm[:n_test], COLD_VAL: perm[n_test : n_test + n_val], WARM: perm[n_test + n_val :]}
    assert {part: np.flatnonzero(made.of_song == part).tolist() for part in want} == {
        part: sorted(rows) for part, rows in want.items()
    }


def test_whole_artists_go_together() -> None:
    artists = [None if i % 10 == 0 else f"a{i % 7}" for i in range(N)]
    made = split(songs(artist_id=pl.Series(artists)), by="artist", share=0.4)
    for artist in {a for a in artists if a}:
        assert len({made.of_song[i] for i in range(N) if artists[i] == artist}) == 1
    assert len({made.of_song[i] for i in range(0, N, 10)}) > 1, "songs without an artist are their own group"
    upside_down = split(songs(artist_id=pl.Series(artists)).reverse(), by="artist", share=0.4).of_song[::-1]
    assert (upside_down == made.of_song).all(), "the order of the rows decides nothing"


@pytest.mark.parametrize(
    ("table", "options", "words"),
    [
        (songs(), {"by": "column"}, "no split column"),
        (songs(), {"by": "time"}, "no song has released_at"),
        (dated()[0], {"cutoff": "2030-01-01"}, "no new song"),
        (dated()[0], {"cutoff": "1990-01-01"}, "no known song"),
    ],
)
def test_impossible_splits_are_named(table: pl.DataFrame, options: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        split(table, **options)


@pytest.mark.parametrize("until", ["2026-02-10", "2026-02-10T01:00:00+01:00"])
def test_songs_before_a_date(until: str) -> None:
    table, _ = dated()
    there = released_before(table, until)
    for song, released in zip(there, table["released_at"], strict=True):
        assert song == (released is None or released < datetime(2026, 2, 10))
    assert 0 < there.sum() < len(there) and released_before(table, None).all()


def test_a_single_new_song_can_be_split_off_to_be_scored() -> None:
    made = split(songs(), by="random", share=0.001)
    assert (made.of_song != WARM).sum() == 1
