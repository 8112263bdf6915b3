"""Plays by user say of some users what the whole log says of all, also of plays that came in one by one."""

from __future__ import annotations

import threading
from dataclasses import replace

import numpy as np
import pytest

from retrieval.play_log import COLUMNS, PlayLog
from retrieval.rank_features import FeatureSource
from retrieval.user_plays import UserPlays, plays_by_user
from tests.retrieval.test_rank_features import DEPTH, source, with_facts
from tests.retrieval.test_targeting import NEW, SONGS, USERS, world


def in_two_parts(log: PlayLog, seed: int, share: float = 0.6) -> UserPlays:
    """The log of a training, and its other plays, those with a time, as they came in: in any order."""
    rng = np.random.default_rng(seed)
    came = (rng.random(len(log.day_N)) > share) & np.isfinite(log.day_N)
    first = PlayLog(**{name: getattr(log, name)[~came] for name in COLUMNS}, n_users=log.n_users)
    plays = UserPlays(plays_by_user(first, SONGS))
    for n in rng.permutation(np.flatnonzero(came)):
        flags = log.completed_N[n], log.favourited_N[n], log.disliked_N[n]
        plays.add(int(log.user_N[n]), int(log.song_N[n]), float(log.day_N[n]), float(log.strength_N[n]), flags)
    assert plays.size == came.sum() and (plays.size > 100 or share == 1)
    return plays


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("share", [0.1, 0.6, 1.0])
def test_features_are_those_of_the_whole_log(seed: int, share: float) -> None:
    targeting, heard = world()
    of = source(targeting, heard, seed)
    day_C = np.random.default_rng(seed).choice([np.nan, -30.0, 20.0, 50.0, 64.0, 1000.0], len(NEW))
    songs = with_facts(targeting, of, day_C)
    candidates = targeting.candidates(songs, DEPTH)
    whole = of.features(targeting, songs, candidates)
    grown: FeatureSource = replace(of, log=in_two_parts(of.log, seed, share))
    np.testing.assert_allclose(grown.features(targeting, songs, candidates), whole, rtol=1e-5, atol=1e-6)
    assert np.isfinite(whole[:, of.names.index("recency")]).any()


def test_without_times_all_plays_count_and_those_that_come_in_too() -> None:
    targeting, heard = world()
    of = source(targeting, heard, dated=False)
    assert isinstance(of.log, PlayLog)
    plays = UserPlays(plays_by_user(of.log, SONGS))
    assert plays.cuts(np.array([3.0, np.nan])).tolist() == [np.inf, np.inf]
    before = len(plays.seen(np.inf, np.array([5, 5])).log.day_N)
    plays.add(5, 0, 20_000.0, 1.0, (0.0, 0.0, 0.0))
    assert len(plays.seen(np.inf, np.array([5, 5])).log.day_N) == before + 1


def test_listeners_are_counted_once_whenever_their_plays_come_in() -> None:
    rng = np.random.default_rng(1)
    n, users, songs = 4000, 30, 12
    day = np.sort(np.where(rng.random(n) < 0.9, rng.integers(0, 40, n).astype(float), np.nan))
    strength = rng.choice([-1.0, 0.0, 1.0, 3.0], n, p=[0.6, 0.34, 0.04, 0.02])
    none = np.full(n, np.nan)
    log = PlayLog(rng.integers(0, users, n), rng.integers(0, songs, n), day, strength, none, none, none, users)
    plays = in_two_parts(log, 2)
    for cut in (0.0, 7.0, 20.0, 39.0, 100.0, np.inf):
        counts = (day < cut) | np.isinf(cut)
        seen = plays.seen(cut, np.arange(users))
        assert seen.listeners_S is not None and len(seen.log.day_N) == counts.sum()
        for song in range(songs):
            expected = len(set(log.user_N[counts & (log.song_N == song) & (strength > 0)]))
            assert seen.listeners_S[song] == expected, (cut, song)
        assert seen.last_day == np.nanmax(np.append(day[counts], -np.inf))


def test_many_songs_on_many_days() -> None:
    """Numbers of (song, day) are more than 32 bits hold."""
    songs, days = 2_000_000, 3000
    none, user = np.full(days, np.nan), np.arange(days) % 7
    song = np.where(np.arange(days) % 2, songs - 1, 5)
    log = PlayLog(user, song, np.arange(days, dtype=float), np.ones(days), none, none, none, 7)
    plays = UserPlays(plays_by_user(log, songs))
    plays.add(3, songs - 1, 2.5, 1.0, (0.0, 0.0, 0.0))  # who is one of its listeners from day 3 on anyway
    for cut, ends in ((2.0, [1, 1]), (3.0, [2, 2]), (np.inf, [7, 7])):
        listeners_S = plays.seen(cut, np.arange(7)).listeners_S
        assert listeners_S is not None and listeners_S[[5, songs - 1]].tolist() == ends


def test_nobody_is_asked_about() -> None:
    targeting, heard = world()
    of = source(targeting, heard)
    plays = in_two_parts(of.log, 0)  # type: ignore[arg-type]
    assert len(plays.seen(np.inf, np.zeros(0, dtype=np.int64)).log.day_N) == 0


def test_plays_come_in_beside_readers() -> None:
    """A reader sees whole plays alone, however the arrays grow meanwhile."""
    none = np.zeros(0)
    log = PlayLog(none.astype(int), none.astype(int), none, none, none, none, none, USERS)
    plays, wrong, ended = UserPlays(plays_by_user(log, SONGS)), [], threading.Event()

    def read() -> None:
        while not ended.is_set():
            seen = plays.seen(np.inf, np.arange(USERS)).log
            if not (seen.day_N == 1 + seen.user_N + 1000 * seen.song_N).all():
                wrong.append(seen)

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    for n in range(3000):
        user, song = n % USERS, n % SONGS
        plays.add(user, song, 1.0 + user + 1000 * song, 1.0, (1.0, 0.0, 0.0))
    ended.set()
    for reader in readers:
        reader.join()
    assert not wrong and len(plays.seen(np.inf, np.arange(USERS)).log.day_N) == 3000
