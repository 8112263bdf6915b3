"""What Spark's workers do for `inference.spark_ranking`: what plays tell of the candidates of one part of the users.

Apart from the driver's half, so that a worker's process imports arrays alone.

Shapes: C new songs, S songs, N plays, K cuts, P (song, user) pairs of the part, R (song, cut) with a first play.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from retrieval.candidates import Candidates
from retrieval.distinct import distinct
from retrieval.play_log import PlayLog, Seen
from retrieval.rank_features import OF_PLAYS, FeatureSource, KnownSongs
from retrieval.rank_histories import histories_of
from retrieval.songs import Songs

Array = NDArray[Any]
ALL = -1  # in place of a song: of plays of all songs
FLAGS = ("completed", "favourited", "disliked")


@dataclass(frozen=True)
class Overall:
    """What plays of all users tell, for some cuts: days before which plays count, ascending, the last one ∞ (all do).

    `last_K` is the day of the last play before each, −∞ without one. `count_R` users have first played `song_R`,
    dislikes aside, between the cut before and that of place `place_R`.
    """

    cut_K: Array
    last_K: Array
    song_R: Array
    place_R: Array
    count_R: Array

    def listeners(self, cut: float, n_songs: int) -> Array:
        """How many users have played each song before a cut, (S,)."""
        before = self.place_R <= np.searchsorted(self.cut_K, cut)
        listeners_S = np.bincount(self.song_R[before], weights=self.count_R[before], minlength=n_songs)
        return listeners_S.astype(np.int64)


@dataclass(frozen=True)
class PartPlays:
    """Plays of a part of the users, and what those of all users tell: a log for `FeatureSource`."""

    log: PlayLog
    overall: Overall
    n_songs: int

    def cuts(self, before_C: Array) -> Array:
        """The day before which plays count for songs, ∞ where all do."""
        return np.where(np.isfinite(before_C), before_C, np.inf)

    def seen(self, cut: float, user_P: Array) -> Seen:
        """The plays of some users that songs of a cut may see."""
        users_N, log = distinct(user_P), self.log
        if np.isfinite(cut):
            log = log.first(int(np.searchsorted(log.day_N[: log.dated], cut)))
        log = log.take(np.flatnonzero(np.isin(log.user_N, users_N)))
        last = float(self.overall.last_K[np.searchsorted(self.overall.cut_K, cut)])
        return Seen(log, users_N, self.overall.listeners(cut, self.n_songs), last)


@dataclass(frozen=True)
class Asked:
    """What every task gets: the new songs, all songs, what plays of all users tell, and how long histories are."""

    songs: Songs
    song_SD: Array
    known: KnownSongs
    overall: Overall
    new_days: float
    memory_mb: float
    n_users: int
    history: int


@dataclass
class SongVectors:
    """`Vectors` of songs alone."""

    song_SD: Array
    user_UD: Array | None = None
    boundary_U: Array | None = None


def log_of(table: pa.Table, n_users: int) -> PlayLog:
    """Plays of some users in the order of time, then of songs, undated ones last, as a catalogue has each user's."""
    song_N, day_N = table["song"].to_numpy().astype(np.int64), table["day"].to_numpy().astype(np.float64)
    order = np.lexsort((song_N, np.where(np.isfinite(day_N), day_N, np.inf)))
    flags = {f"{name}_N": table[name].to_numpy().astype(np.float32)[order] for name in FLAGS}
    user_N, strength_N = table["user"].to_numpy().astype(np.int64), table["strength"].to_numpy().astype(np.float32)
    return PlayLog(user_N[order], song_N[order], day_N[order], strength_N[order], **flags, n_users=n_users)


def first_plays(batches: Iterable[pa.RecordBatch], cut_K: Array, n_songs: int) -> Iterator[pa.RecordBatch]:
    """Count one part's users who have first played a song before a cut, but not before the one before.

    And all plays there are in between, and the day of the last one (song `ALL`).
    """
    if not (batches := list(batches)):
        return
    log, most = log_of(pa.Table.from_batches(batches), 0), len(cut_K)
    place_N = np.minimum(np.searchsorted(cut_K, log.day_N, side="right"), most - 1)  # undated: the last
    liked = log.strength_N > 0
    key_N = log.user_N[liked] * n_songs + log.song_N[liked]
    order = np.lexsort((place_N[liked], key_N))
    first = order[np.diff(key_N[order], prepend=-1) > 0]
    code, count = np.unique(key_N[first] % n_songs * most + place_N[liked][first], return_counts=True)
    song, place = np.divmod(code, most)
    last_K, dated = np.full(most, -np.inf), np.isfinite(log.day_N)
    np.maximum.at(last_K, place_N[dated], log.day_N[dated])
    columns = {
        "song": np.append(song, np.full(most, ALL)).astype(np.int32),
        "place": np.append(place, np.arange(most)).astype(np.int32),
        "count": np.append(count, np.bincount(place_N, minlength=most)).astype(np.int64),
        "last": np.append(np.full(len(song), -np.inf), last_K),
    }
    yield pa.record_batch(columns)


def told_of_pairs(batches: Iterable[pa.RecordBatch], shared: Any) -> Iterator[pa.RecordBatch]:
    """Features of one part's pairs by its plays and, with the first pair of a user and a cut, their history.

    A row is a play, or else a pair: its number, the place of its song, and its user; `shared` is a broadcast.
    """
    table = pa.Table.from_batches(batches) if (batches := list(batches)) else None
    if not table:
        return
    asked: Asked = shared.value
    pair_N = table["pair"].is_valid().to_numpy()
    pairs = table.filter(pa.array(pair_N)).sort_by("pair")
    if not len(pairs):
        return
    pair_P, song_P, user_P = (pairs[name].to_numpy().astype(np.int64) for name in ("pair", "song", "user"))
    log, n_songs = log_of(table.filter(pa.array(~pair_N)), asked.n_users), len(asked.song_SD)
    plays = PartPlays(log.take(np.flatnonzero(np.isin(log.user_N, user_P))), asked.overall, n_songs)
    source = FeatureSource(plays, asked.known, {}, (), asked.new_days, asked.memory_mb)
    without = np.zeros((len(pair_P), 0), dtype=np.float32)
    candidates = Candidates(song_P, user_P, without, without, (), 0)
    features = source.features(SongVectors(asked.song_SD), asked.songs, candidates)
    features = features[:, [source.names.index(name) for name in OF_PLAYS]]
    columns = {"pair": pa.array(pair_P.astype(np.int32)), "feature": rows_of(features)}
    assert asked.songs.facts is not None
    cuts_C = plays.cuts(asked.songs.facts.before_C)
    histories = histories_of(plays, cuts_C, song_P, user_P, asked.history)
    _, first = np.unique(histories.row_P, return_index=True)
    length_P = np.zeros(len(pair_P), dtype=np.int32)
    length_P[first] = asked.history
    for name, values_RT in (("songs", histories.song_RT), ("signals", histories.signal_RT)):
        columns[name] = rows_of(values_RT[histories.row_P[np.sort(first)]].astype(np.int32), length_P)
    yield pa.record_batch(columns)


def rows_of(values_NF: Array, length_P: Array | None = None) -> pa.ListArray:
    """Rows as lists; with lengths, those of length 0 have none."""
    lengths = np.full(len(values_NF), values_NF.shape[1]) if length_P is None else length_P
    start = np.append(0, np.cumsum(lengths)).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(start), pa.array(values_NF.ravel()))
