"""Plays by user, for a service that is asked about a few users at a time while plays come in: the log of the training,
and what has come in since.

Shapes: S songs, U users, N plays, P pairs, M days with a play, R (user, song) pairs, K some songs.
"""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrieval.distinct import distinct, marked
from retrieval.play_log import COLUMNS, PlayLog, Seen

Array = NDArray[Any]
ROOM = 256  # for plays that come in, at first
EARLIEST = "earliest_N"  # of those: the user's first play of the song in the log, dislikes aside; NaN: none
TYPES = {"user_N": np.int64, "song_N": np.int32, "day_N": np.float64, EARLIEST: np.float64}
MARKS = np.float16  # of the others: whole numbers to 3, and NaN
Columns = dict[str, Array]  # of plays, by name


def plays_by_user(log: PlayLog, n_songs: int) -> Columns:
    """What `UserPlays` is made of: columns of the log's plays by user and time, undated ones first, and where each
    user's begin; days with a play; each user's first play of each song as a number, ascending, by song, then by day,
    undated last, and where each song's begin."""
    first_N = np.roll(np.arange(len(log.day_N)), len(log.day_N) - log.dated)  # undated ones
    order_N = first_N[np.argsort(log.user_N[first_N], kind="stable")]
    user_N = log.user_N[order_N]
    known = {name: getattr(log, name)[order_N].astype(TYPES.get(name, MARKS)) for name in COLUMNS[1:]}
    day_M = distinct(log.day_N[: log.dated])
    liked = np.flatnonzero(known["strength_N"] > 0)
    user, song, day = user_N[liked], known["song_N"][liked], np.searchsorted(day_M, known["day_N"][liked])
    order = np.lexsort((day, user, song))
    first = np.append(True, (np.diff(user[order]) != 0) | (np.diff(song[order]) != 0))[: len(order)]
    at, width = order[first], len(day_M) + 1
    key_R = np.sort(song[at].astype(np.int64) * width + day[at])
    first_S = np.searchsorted(key_R, np.arange(n_songs) * width)
    starts = {"start_U": np.searchsorted(user_N, np.arange(log.n_users + 1)), "first_S": first_S}
    return known | starts | {"day_M": day_M, "key_R": key_R}


class UserPlays:
    """A log's plays by user (`plays_by_user`, possibly mapped), and what has come in; `add` may run beside readers.

    What counts is what `PlayLog.earlier` says. Plays that come in have a time; where no play of the log has one, they
    count for every song, as those do.
    """

    def __init__(self, arrays: Columns) -> None:
        self.start_U, self.first_S, self.day_M, self.key_R = (
            arrays[name] for name in ("start_U", "first_S", "day_M", "key_R")
        )
        self.known = {name: arrays[name] for name in COLUMNS[1:]}
        self.n_users, self.n_songs, self.dated = len(self.start_U) - 1, len(self.first_S), len(self.day_M) > 0
        self.since: Columns = {name: np.zeros(ROOM, TYPES.get(name, MARKS)) for name in (*COLUMNS, EARLIEST)}
        self.size, self.lock = 0, threading.Lock()

    @property
    def _width(self) -> int:
        return len(self.day_M) + 1

    def add(self, user: int, song: int, day: float, strength: float, flags: tuple[float, float, float]) -> None:
        """Take a play in: days since 1970, 0 or less of `strength` where the song was not liked, and whether it was
        completed, favourited, disliked."""
        rows = slice(self.start_U[user], self.start_U[user + 1])
        own = (self.known["song_N"][rows] == song) & (self.known["strength_N"][rows] > 0)
        days = self.known["day_N"][rows][own]
        earliest = np.nan if not len(days) else np.inf if np.isnan(days).all() else np.nanmin(days)
        with self.lock:
            if self.size == len(self.since["day_N"]):
                self.since = {name: np.append(of_N, np.zeros_like(of_N)) for name, of_N in self.since.items()}
            for of_N, value in zip(self.since.values(), (user, song, day, strength, *flags, earliest), strict=True):
                of_N[self.size] = value
            self.size += 1

    def cuts(self, before_C: Array) -> Array:
        """The day before which plays count for songs, ∞ where all do."""
        return np.where(np.isfinite(before_C) & self.dated, before_C, np.inf)

    def seen(self, cut: float, user_P: Array) -> Seen:
        """The plays of some users that songs of a cut may see."""
        asked_U = marked(user_P, self.n_users)
        users_N = np.flatnonzero(asked_U)
        with self.lock:
            since = {name: of_N[: self.size] for name, of_N in self.since.items()}  # a row once written stays
        if np.isfinite(cut) and (later_N := since["day_N"] >= cut).any():
            since = rows(since, np.flatnonzero(~later_N))
        log = self._of_users(users_N, cut, rows(since, np.flatnonzero(asked_U[since["user_N"]])))
        listeners_S = np.zeros(self.n_songs, dtype=np.int64)
        songs_K = np.flatnonzero(marked(log.song_N, self.n_songs))
        listeners_S[songs_K] = self.listeners(songs_K, cut, since)
        last = self.day_M[: np.searchsorted(self.day_M, cut)][-1:].max(initial=-np.inf)
        return Seen(log, users_N, listeners_S, float(since["day_N"].max(initial=last)))

    def _of_users(self, users_N: Array, cut: float, since: Columns) -> PlayLog:
        """The plays of some users before a day, by user and time, with those of theirs that came in `since`."""
        start_N = self.start_U[users_N]
        length_N = self.start_U[users_N + 1] - start_N
        at = np.repeat(start_N - np.cumsum(length_N) + length_N, length_N) + np.arange(length_N.sum())
        if np.isfinite(cut):
            kept = np.flatnonzero(self.known["day_N"][at] < cut)
            length_N = np.diff(np.searchsorted(kept, np.append(0, np.cumsum(length_N))))
            at = at[kept]
        columns = {name: of_N[at] for name, of_N in self.known.items()} | {"user_N": np.repeat(users_N, length_N)}
        if len(since["day_N"]):
            since = rows(since, np.argsort(since["day_N"], kind="stable"))
            known_N, since_N = (  # complex numbers go by the real part first
                user_N + 1j * np.where(np.isfinite(day_N), day_N, np.finfo(float).min)
                for user_N, day_N in ((of["user_N"], of["day_N"]) for of in (columns, since))
            )
            place_N = np.searchsorted(known_N, since_N, side="right")
            columns = {name: np.insert(of_N, place_N, since[name]) for name, of_N in columns.items()}
        return PlayLog(**columns, n_users=self.n_users)

    def listeners(self, songs_K: Array, cut: float, since: Columns) -> Array:
        """How many users played songs before a day, without dislikes, (K,); `since` came in and is before it."""
        songs_K = songs_K.astype(np.int64)  # times a width that is more than 32 bits hold
        rank = self._width if np.isinf(cut) else np.searchsorted(self.day_M, cut)
        known_K = np.searchsorted(self.key_R, songs_K * self._width + rank) - self.first_S[songs_K]
        earliest_N = since[EARLIEST]
        counted_N = earliest_N < cut if np.isfinite(cut) else ~np.isnan(earliest_N)
        asked_S = np.zeros(self.n_songs, dtype=bool)
        asked_S[songs_K] = True
        at = np.flatnonzero((since["strength_N"] > 0) & ~counted_N & asked_S[since["song_N"]])
        pair = np.sort(since["song_N"][at].astype(np.int64) * self.n_users + since["user_N"][at])
        new = pair[np.diff(pair, prepend=-1) > 0] // self.n_users
        return known_K + np.searchsorted(new, songs_K, side="right") - np.searchsorted(new, songs_K)


def rows(columns: Columns, at: Array) -> Columns:
    """Some plays."""
    return {name: of_N[at] for name, of_N in columns.items()}
