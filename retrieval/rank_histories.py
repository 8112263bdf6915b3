"""Listening histories of candidates before a (new) song, which a ranker that reads whole histories is given.

Shapes: C new songs, P (song, user) pairs, N users, R histories, T places of a history, H (user, song) pairs of a log.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrieval.play_log import PlayLog, Plays

Array = NDArray[Any]
NOTHING = -1  # song at a place where a history has none
DRAWN = 1 << 62  # places of undated plays are drawn from so many, and come after all others


@dataclass(frozen=True)
class Histories:
    """Songs of users before a moment, newest first, and their strongest signals, (R, T) each; which is a pair's, (P,).

    The signal is 1 played, 2 completed, 3 favourited, and 0 where the song is NOTHING.
    """

    song_RT: Array
    signal_RT: Array
    row_P: Array

    def take(self, at: Array) -> Histories:
        """Those of some pairs: places or a mask."""
        return Histories(self.song_RT, self.signal_RT, self.row_P[at])


def histories_of(log: Plays, cuts_C: Array, song_P: Array, user_P: Array, length: int) -> Histories:
    """The `length` newest songs of the users of pairs, by the plays that song c may see (`cuts` of the log)."""
    cut_P = cuts_C[song_P]
    row_P, parts, count = np.zeros(len(song_P), dtype=np.int64), [no_songs(0, length)], 0
    for cut in np.unique(cut_P):  # songs of a catalogue split by time share one history
        at = np.flatnonzero(cut_P == cut)
        users_N, row_P[at] = np.unique(user_P[at], return_inverse=True)
        row_P[at] += count
        count += len(users_N)
        parts.append(newest_songs(log.seen(cut, users_N).log, users_N, length))
    song_RT, signal_RT = (np.concatenate(one) for one in zip(*parts, strict=True))
    return Histories(song_RT, signal_RT, row_P)


def no_songs(n: int, length: int) -> tuple[Array, Array]:
    """Empty histories, (n, T): songs and signals."""
    return np.full((n, length), NOTHING, dtype=np.int32), np.zeros((n, length), dtype=np.int8)


def newest_songs(log: PlayLog, users_N: Array, length: int) -> tuple[Array, Array]:
    """Songs (N, T) of some users, ascending, those played last first, and their signals; a user's plays are in order.

    A disliked play names no song. Undated plays are the newest ones, in an order that is a hash of user and song: that
    of the table would favour some songs.
    """
    user_N, song_N, strength_N = log.user_N, log.song_N, log.strength_N
    order_N, undated = np.arange(len(user_N)), np.flatnonzero(~np.isfinite(log.day_N))
    order_N[undated] = DRAWN + drawn(user_N[undated], song_N[undated])
    at = np.flatnonzero((strength_N > 0) & np.isin(user_N, users_N))
    at = at[np.lexsort((order_N[at], song_N[at], user_N[at]))]
    new = np.append(True, (np.diff(user_N[at]) != 0) | (np.diff(song_N[at]) != 0))[: len(at)]
    first = np.flatnonzero(new)
    last = np.append(first[1:], len(at))[: len(first)] - 1
    user_H, song_H, order_H = user_N[at[first]], song_N[at[first]], order_N[at[last]]
    signal_H = np.maximum.reduceat(strength_N[at], first) if len(first) else strength_N[:0]
    by_user = np.lexsort((-order_H, user_H))
    row_H = np.searchsorted(users_N, user_H[by_user])
    place_H = np.arange(len(by_user)) - np.searchsorted(row_H, row_H)
    kept, by = place_H < length, by_user[place_H < length]
    song_NT, signal_NT = no_songs(len(users_N), length)
    song_NT[row_H[kept], place_H[kept]] = song_H[by]
    signal_NT[row_H[kept], place_H[kept]] = signal_H[by]
    return song_NT, signal_NT


def drawn(user_N: Array, song_N: Array) -> Array:
    """Pseudo-random numbers below DRAWN of pairs: a hash, the finaliser of SplitMix64."""
    key_N = (user_N.astype(np.uint64) << np.uint64(32)) + song_N.astype(np.uint64)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        key_N = (key_N ^ (key_N >> np.uint64(shift))) * np.uint64(factor)
    return ((key_N ^ (key_N >> np.uint64(31))) % np.uint64(DRAWN)).astype(np.int64)


def joined_histories(parts: Sequence[Histories]) -> Histories:
    """Histories of several sets of pairs as one, of the same length all."""
    before = np.cumsum([0, *(len(part.song_RT) for part in parts)])
    rows = [part.row_P + start for part, start in zip(parts, before, strict=False)]
    song_RT, signal_RT = (np.concatenate([getattr(part, name) for part in parts]) for name in ("song_RT", "signal_RT"))
    return Histories(song_RT, signal_RT, np.concatenate(rows))
