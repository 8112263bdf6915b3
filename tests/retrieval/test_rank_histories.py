"""Histories of candidates against a loop, and that no later play is in them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from retrieval.play_log import COLUMNS, PlayLog
from retrieval.rank_histories import Histories, histories_of, joined_histories
from retrieval.user_plays import UserPlays, plays_by_user

USERS, SONGS, PLAYS = 12, 9, 150


def log_of(dated: bool = True, seed: int = 0) -> PlayLog:
    """Plays of which some songs have several, some are dislikes and, of dated ones, a few have no time."""
    rng = np.random.default_rng(seed)
    user, song = rng.integers(0, USERS - 1, PLAYS), rng.integers(0, SONGS, PLAYS)
    day = np.where(np.arange(PLAYS) < (PLAYS - 10 if dated else 0), np.sort(rng.uniform(0, 100, PLAYS)), np.nan)
    strength = rng.choice([-1.0, 1.0, 2.0, 3.0], PLAYS)
    nothing = np.full(PLAYS, np.nan)
    return PlayLog(user, song, day, strength, nothing, nothing, nothing, USERS)


def by_loop(log: PlayLog, n_plays: int, user: int) -> list[tuple[int, int]]:
    """(song, signal), newest first, of the plays with a time, then before them those without."""
    last, signal = {}, {}
    for n in range(n_plays):
        if log.user_N[n] == user and log.strength_N[n] > 0:
            song = int(log.song_N[n])
            last[song], signal[song] = n, max(signal.get(song, 0), int(log.strength_N[n]))
    return [(song, signal[song]) for song in sorted(last, key=lambda one: -last[one])]


@pytest.mark.parametrize("length", [3, 20])
def test_against_a_loop(length: int) -> None:
    log = log_of()
    plays_C = np.array([0, 40, 140, 40])
    song_P, user_P = np.divmod(np.arange(len(plays_C) * USERS), USERS)
    found = histories_of(log, plays_C, song_P, user_P, length)
    assert len(found.song_RT) == 3 * USERS, "songs that see the same plays share their histories"
    for song, user, row in zip(song_P, user_P, found.row_P, strict=True):
        expected = by_loop(log, plays_C[song], user)[:length]
        pairs = zip(found.song_RT[row].tolist(), found.signal_RT[row].tolist(), strict=True)
        assert list(pairs) == expected + [(-1, 0)] * (length - len(expected))


def test_without_times_the_songs_are_drawn() -> None:
    log = log_of(dated=False)
    found = histories_of(log, np.array([PLAYS]), np.zeros(USERS, dtype=int), np.arange(USERS), 4)
    whole = histories_of(log, np.array([PLAYS]), np.zeros(USERS, dtype=int), np.arange(USERS), SONGS)
    for user in range(USERS):
        expected = by_loop(log, PLAYS, user)
        pairs = list(zip(whole.song_RT[user].tolist(), whole.signal_RT[user].tolist(), strict=True))
        assert sorted(pairs[: len(expected)]) == sorted(expected)
    np.testing.assert_array_equal(found.song_RT, whole.song_RT[:, :4])
    assert len(np.unique(found.song_RT)) == SONGS + 1, "no song is left out by its number"


@pytest.mark.parametrize("dated", [True, False])
def test_plays_by_user_tell_the_same_with_those_that_come_in(dated: bool) -> None:
    """`UserPlays`, which are the log's plays without the last ones and then these, however late they come."""
    log, rng = log_of(dated), np.random.default_rng(1)
    come_in = np.sort(rng.permutation(PLAYS - 10)[:40]) if dated else np.zeros(0, dtype=int)
    kept = np.setdiff1d(np.arange(PLAYS), come_in)
    plays = UserPlays(
        plays_by_user(PlayLog(**{name: getattr(log, name)[kept] for name in COLUMNS}, n_users=USERS), SONGS)
    )
    for at in rng.permutation(come_in):
        values = (getattr(log, name)[at] for name in COLUMNS)
        user, song, day, strength, *flags = values
        plays.add(int(user), int(song), float(day), float(strength), tuple(flags))  # type: ignore[arg-type]
    song_P, user_P = np.divmod(np.arange(3 * USERS), USERS)
    before_C = np.array([30.0, np.nan, 80.5])
    expected = histories_of(log, log.cuts(before_C), song_P, user_P, 5)
    found = histories_of(plays, plays.cuts(before_C), song_P, user_P, 5)
    assert (expected.song_RT >= 0).sum() > 50 or not dated
    for name in ("song_RT", "signal_RT"):
        np.testing.assert_array_equal(getattr(found, name)[found.row_P], getattr(expected, name)[expected.row_P])


def test_a_planted_later_play_is_in_no_history() -> None:
    log, first = log_of(), 70
    song_P, user_P = np.zeros(USERS, dtype=int), np.arange(USERS)
    before = histories_of(log, np.array([first]), song_P, user_P, 20)
    planted = log.song_N.copy()
    planted[first:] = SONGS  # a song of which nobody has heard before
    later = histories_of(replace(log, song_N=planted), np.array([first]), song_P, user_P, 20)
    np.testing.assert_array_equal(later.song_RT, before.song_RT)
    np.testing.assert_array_equal(later.signal_RT, before.signal_RT)
    assert (
        histories_of(replace(log, song_N=planted), np.array([first + 40]), song_P, user_P, 20).song_RT == SONGS
    ).any()


def test_joined_histories_and_some_pairs() -> None:
    log, users = log_of(), np.arange(USERS)
    parts = [histories_of(log, np.array([n]), np.zeros(USERS, dtype=int), users, 5) for n in (30, 90)]
    both = joined_histories(parts)
    for at, part in enumerate(parts):
        mine: Histories = both.take(slice(at * USERS, (at + 1) * USERS))  # type: ignore[arg-type]
        np.testing.assert_array_equal(mine.song_RT[mine.row_P], part.song_RT[part.row_P])
        np.testing.assert_array_equal(mine.signal_RT[mine.row_P], part.signal_RT[part.row_P])
