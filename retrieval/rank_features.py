"""Features of a (new song, user) pair by which a ranker orders candidates; docs/ranking.md has the table.

What is told of a user comes from plays that are earlier than the song (`PlayLog.earlier`). No feature names a song or a
user. A value that is not known is NaN.

Shapes: C new songs, S known songs, U users, N plays, V values of a field, K similar songs, P (song, user) pairs,
H songs in the histories of pairs, D vector size, F features.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from retrieval.audience import slices
from retrieval.boundary import pair_scores
from retrieval.candidates import CHANNELS, Candidates
from retrieval.index import unit_rows
from retrieval.listening import strongest
from retrieval.play_log import Plays, Seen
from retrieval.rank_histories import histories_of
from retrieval.songs import SongFacts, Songs, Vectors

Array = NDArray[Any]
OF_CHANNELS = tuple(f"{channel}_{what}" for channel in CHANNELS for what in ("score", "rank"))
OF_BOUNDARY = ("inner_product", "boundary", "margin")
OF_HISTORY = (
    "similar_played", "similar_completed", "similar_favourited", "cosine_max", "cosine_mean", "cosine_favourited"
)  # fmt: skip
FIELDS = ("artist", "genres", "language", "tags")  # of songs, whose share in a history is told
OF_FIELDS = tuple(f"{name}_share" for name in FIELDS)
OF_USER = (
    "activity", "recency", "tenure", "openness", "popularity", "focus", "completed_share", "favourited_share",
    "disliked_share",
)  # fmt: skip
OF_PLAYS = (*OF_HISTORY, *OF_FIELDS, *OF_USER)
FEATURES = (*OF_CHANNELS, *OF_BOUNDARY, *OF_PLAYS)  # profile fields follow, `profile_<column>`
PROFILE = "profile_"
COMPLETED, FAVOURITED = 2, 3  # strengths of `Listening`
PAIR_BYTES = 400  # of a pair's features and what they are made of, histories aside
HISTORY_BYTES = 48  # of one song in the history of a pair


@dataclass(frozen=True)
class KnownSongs:
    """What is told of the songs of a catalogue: day of release, NaN where unknown, and their fields, (S, V) each.

    A song's values of a field weigh 1 together. `codes` are the columns of values by field.
    """

    released_S: Array
    fields: dict[str, sparse.csr_matrix]
    codes: dict[str, dict[str, int]] = field(default_factory=dict)

    def only(self, asked: SongFacts) -> KnownSongs:
        """The same with no other values than some songs have."""
        fields = {}
        for name, of_SV in self.fields.items():
            has_V = np.zeros(of_SV.shape[1], dtype=bool)
            has_V[asked.fields[name].indices] = True
            at = np.flatnonzero(has_V[of_SV.indices])
            start_S = np.searchsorted(at, of_SV.indptr)
            fields[name] = sparse.csr_matrix((of_SV.data[at], of_SV.indices[at], start_S), shape=of_SV.shape)
        return KnownSongs(self.released_S, fields, self.codes)


@dataclass(frozen=True)
class UserFacts:
    """What plays tell of users: their songs, shares of fields (U, V), numbers (U,) by name.

    Rows are of all users, or of `users_N`.
    """

    history_US: sparse.csr_matrix
    shares: dict[str, sparse.csr_matrix]
    numbers: dict[str, Array]
    users_N: Array | None = None

    def rows(self, user_P: Array) -> Array:
        """Rows of some users."""
        return user_P if self.users_N is None else np.searchsorted(self.users_N, user_P)


@dataclass
class FeatureSource:
    """What features are made from: the log, its songs, profile columns by name (U,), and which of them are codes."""

    log: Plays
    songs: KnownSongs
    profile: dict[str, Array]
    codes: tuple[str, ...]
    new_days: float
    memory_mb: float

    @property
    def names(self) -> tuple[str, ...]:
        """The features, in the order of their columns."""
        return *FEATURES, *(PROFILE + name for name in self.profile)

    def users(self, seen: Seen, song_SD: Array, asked: SongFacts) -> UserFacts:
        """Users by some plays.

        The last answer for all users is kept, since most new songs ask for the same. Some users are told of only as far
        as the asked songs need it: shares of other values are left at 0.
        """
        if seen.users_N is not None:
            return user_facts(seen, self.songs.only(asked), song_SD, self.new_days)
        kept, n_plays = self.__dict__.get("_kept"), len(seen.log.day_N)
        if kept is None or kept[0] != n_plays or kept[1] is not song_SD:
            kept = n_plays, song_SD, user_facts(seen, self.songs, song_SD, self.new_days)
            self.__dict__["_kept"] = kept
        return kept[2]

    def seen(self, songs: Songs, candidates: Candidates) -> Iterator[tuple[Array, Seen]]:
        """Places of candidates, and the plays that count for their songs; those of a time split share one history."""
        assert songs.facts is not None
        cut_P = self.log.cuts(songs.facts.before_C)[candidates.song_P]
        for cut in np.unique(cut_P):
            at = np.flatnonzero(cut_P == cut)
            yield at, self.log.seen(cut, candidates.user_P[at])

    def features(self, known: Vectors, songs: Songs, candidates: Candidates) -> Array:
        """Features of candidates, (P, F)."""
        assert songs.facts is not None
        feature_PF = self.without_plays(known, songs, candidates)
        for at, seen in self.seen(songs, candidates):
            users = self.users(seen, known.song_SD, songs.facts)
            for part in pair_parts(candidates, at, users, known.song_SD, self.memory_mb):
                for name, value_P in play_features(known, songs, candidates, part, users).items():
                    feature_PF[part, self.names.index(name)] = value_P
        return feature_PF

    def without_plays(self, known: Vectors, songs: Songs, candidates: Candidates) -> Array:
        """The same, NaN where plays would tell: of channels, boundary, profile."""
        found = list_features(known, songs, candidates)
        found |= {PROFILE + name: values_U[candidates.user_P] for name, values_U in self.profile.items()}
        feature_PF = np.full((len(candidates), len(self.names)), np.nan, dtype=np.float32)
        for name, value_P in found.items():
            feature_PF[:, self.names.index(name)] = value_P
        return feature_PF

    def told(self, known: Vectors, songs: Songs, candidates: Candidates, length: int) -> tuple[Array, Any]:
        """Features of candidates, and their `Histories` of up to `length` songs; 0: none are asked for."""
        feature_PF = self.features(known, songs, candidates)
        if not length:
            return feature_PF, None
        assert songs.facts is not None
        cuts_C = self.log.cuts(songs.facts.before_C)
        return feature_PF, histories_of(self.log, cuts_C, candidates.song_P, candidates.user_P, length)


def pair_parts(
    candidates: Candidates, at: Array, users: UserFacts, song_SD: Array, memory_mb: float
) -> Iterator[Array]:
    """Pairs `at` so many at a time as the memory holds: similarities of their songs to all, and their histories."""
    length = np.diff(users.history_US.indptr)[users.rows(candidates.user_P[at])]
    new_song = np.diff(candidates.song_P[at], prepend=-1) > 0
    cost = np.cumsum(PAIR_BYTES + HISTORY_BYTES * length + new_song * 8 * len(song_SD))
    block = (cost // max(1.0, memory_mb * 2**20)).astype(np.int64)
    edges = np.flatnonzero(np.diff(block, prepend=-1))
    for start, stop in zip(edges, np.append(edges[1:], len(at)), strict=True):
        yield at[start:stop]


def list_features(known: Vectors, songs: Songs, candidates: Candidates) -> dict[str, Array]:
    """Features of candidates by name, (P,) each: of channels, boundary."""
    found: dict[str, Array] = {}
    for channel, name in enumerate(candidates.channels):
        found[f"{name}_score"] = candidates.score_PM[:, channel]
        found[f"{name}_rank"] = candidates.rank_PM[:, channel]
    if known.boundary_U is not None and known.user_UD is not None and songs.item_CD is not None:
        song_P, user_P = candidates.song_P, candidates.user_P
        found["inner_product"] = pair_scores(songs.item_CD, known.user_UD, song_P, user_P)
        found["boundary"] = known.boundary_U[user_P]
        found["margin"] = found["inner_product"] - found["boundary"]
    return found


def play_features(
    known: Vectors, songs: Songs, candidates: Candidates, at: Array, users: UserFacts
) -> dict[str, Array]:
    """Features of some candidates by name, (P,) each: of history, fields, user."""
    assert songs.facts is not None
    song_P, row_P = candidates.song_P[at], users.rows(candidates.user_P[at])
    found = history_features(
        songs.vector_CD, songs.similar.positions_CK, known.song_SD, users.history_US, song_P, row_P
    )
    for name, value_CV in songs.facts.fields.items():
        if name in users.shares:
            found[f"{name}_share"] = row_products(value_CV, users.shares[name], song_P, row_P)
    return found | {name: values_U[row_P] for name, values_U in users.numbers.items()}


def history_features(
    vector_CD: Array, similar_CK: Array, song_SD: Array, history_US: sparse.csr_matrix, song_P: Array, user_P: Array
) -> dict[str, Array]:
    """What of a user's history resembles the song, by name, (P,) each.

    Similar songs are counted by signal: played, completed or favourited, favourited. Cosines are to all songs of the
    user (the largest, the mean) and to those they favourited (the largest); NaN without one.
    """
    songs, place_P = np.unique(song_P, return_inverse=True)
    near_CS = np.zeros((len(songs), len(song_SD)), dtype=bool)
    row, at = np.nonzero(similar_CK[songs] >= 0)
    near_CS[row, similar_CK[songs[row], at]] = True
    length_P = np.diff(history_US.indptr)[user_P]
    start_P = np.cumsum(length_P) - length_P
    at_H = np.repeat(history_US.indptr[user_P] - start_P, length_P) + np.arange(length_P.sum())
    song_H, strength_H = history_US.indices[at_H], history_US.data[at_H]
    place_H = np.repeat(place_P, length_P)
    heard, at_H = used(song_H, len(song_SD))
    cosine_CS = unit_rows(vector_CD[songs]) @ unit_rows(song_SD[heard]).T
    cosine_H, near_H = cosine_CS[place_H, at_H], near_CS[place_H, song_H]
    liked_H = np.where(strength_H >= FAVOURITED, cosine_H, -np.inf)
    some = length_P > 0

    def reduced(by: Any, values_H: Array, nothing: float) -> Array:
        result_P = np.full(len(user_P), nothing, dtype=np.float32)
        if some.any():
            result_P[some] = by.reduceat(values_H.astype(np.float32), start_P[some])
        return result_P

    liked_P = reduced(np.maximum, liked_H, np.nan)
    return {
        "similar_played": reduced(np.add, near_H, 0),
        "similar_completed": reduced(np.add, near_H & (strength_H >= COMPLETED), 0),
        "similar_favourited": reduced(np.add, near_H & (strength_H >= FAVOURITED), 0),
        "cosine_max": reduced(np.maximum, cosine_H, np.nan),
        "cosine_mean": reduced(np.add, cosine_H, np.nan) / np.maximum(length_P, 1),
        "cosine_favourited": np.where(np.isfinite(liked_P), liked_P, np.nan),
    }


def row_products(
    one_CV: sparse.csr_matrix, other_UV: sparse.csr_matrix, row_P: Array, column_P: Array, chunk: int = 1 << 16
) -> Array:
    """Inner products of pairs of rows, (P,); NaN where the first row is empty."""
    product_P = np.empty(len(row_P), dtype=np.float32)
    for part in slices(len(row_P), chunk):
        product_P[part] = one_CV[row_P[part]].multiply(other_UV[column_P[part]]).sum(axis=1).A1
    product_P[np.diff(one_CV.indptr)[row_P] == 0] = np.nan
    return product_P


def used(song_H: Array, n_songs: int) -> tuple[Any, Array]:
    """Songs that are needed, and the place of each given one among them; all of them where that is less to do."""
    return (slice(None), song_H) if len(song_H) >= n_songs else np.unique(song_H, return_inverse=True)


def user_facts(seen: Seen, songs: KnownSongs, song_SD: Array, new_days: float) -> UserFacts:
    """Users by plays; `song_SD` are song vectors, `new_days` how long a song counts as new."""
    log = seen.log
    user_N = log.user_N if seen.users_N is None else np.searchsorted(seen.users_N, log.user_N)
    n_users = log.n_users if seen.users_N is None else len(seen.users_N)
    history_US = strongest(user_N, log.song_N, log.strength_N, (n_users, len(songs.released_S)))
    songs_U = np.maximum(np.diff(history_US.indptr), 1)
    heard_US = history_US.astype(bool).astype(np.float32)
    shares = {
        name: sparse.csr_matrix(sparse.diags_array(1 / songs_U) @ (heard_US @ of_SV))
        for name, of_SV in songs.fields.items()
    }
    per_user = _means(user_N, n_users)
    listeners_S = seen.listeners_S
    if listeners_S is None:
        listeners_S = np.bincount(history_US.indices, minlength=history_US.shape[1])
    age_N = log.day_N - songs.released_S[log.song_N]
    plays_U, empty_U = np.bincount(user_N, minlength=n_users), np.diff(history_US.indptr) == 0
    heard, _ = used(history_US.indices, len(song_SD))
    centre_UD = np.asarray(heard_US[:, heard] @ unit_rows(song_SD[heard])) / songs_U[:, None]
    popularity_U = np.asarray(heard_US @ np.log1p(listeners_S)) / songs_U
    numbers = {
        "activity": np.log1p(plays_U),
        **days_since(user_N, log.day_N, n_users, seen.last_day),
        "openness": per_user(np.where(np.isfinite(age_N), age_N < new_days, np.nan)),
        "popularity": np.where(empty_U, np.nan, popularity_U),
        "focus": np.where(empty_U, np.nan, np.linalg.norm(centre_UD, axis=1)),
        "completed_share": per_user(log.completed_N),
        "favourited_share": per_user(log.favourited_N),
        "disliked_share": per_user(log.disliked_N),
    }
    numbers = {name: one.astype(np.float32) for name, one in numbers.items()}
    return UserFacts(history_US, shares, numbers, seen.users_N)


def days_since(user_N: Array, day_N: Array, n_users: int, last_day: float | None = None) -> dict[str, Array]:
    """Days from each user's last play (recency) and first play (tenure) to the last play of all; NaN without one."""
    known = np.isfinite(day_N)
    first_U, last_U = np.full(n_users, np.inf), np.full(n_users, -np.inf)
    np.minimum.at(first_U, user_N[known], day_N[known])
    np.maximum.at(last_U, user_N[known], day_N[known])
    day = last_U.max(initial=-np.inf) if last_day is None else last_day
    heard_U = np.isfinite(first_U)
    return {
        "recency": np.where(heard_U, day - np.where(heard_U, last_U, 0), np.nan),
        "tenure": np.where(heard_U, day - np.where(heard_U, first_U, 0), np.nan),
    }


def _means(user_N: Array, n_users: int) -> Callable[[Array], Array]:
    """The mean of a value of plays over each user's plays of which it is known, (U,); NaN where it is of none."""

    def mean(value_N: Array) -> Array:
        known = np.isfinite(value_N)
        count_U = np.bincount(user_N[known], minlength=n_users)
        sum_U = np.bincount(user_N[known], weights=value_N[known], minlength=n_users)
        return np.where(count_U > 0, sum_U / np.maximum(count_U, 1), np.nan)

    return mean
