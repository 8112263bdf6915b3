"""Who listened to what, and how much each counts: a matrix by user and by song, and what has come in since on top.

Shapes: S songs, U users, N some users, or plays, K some songs, C new songs.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from retrieval.distinct import distinct

Array = NDArray[Any]
Strengths = dict[int, dict[int, float]]  # row → column → strength


@dataclass
class Listening:
    """Strongest signal of each user on each song (favourite 3, complete 2, play 1); `add` may run beside readers."""

    known_US: sparse.csr_matrix
    of_user: Strengths = field(default_factory=dict)  # user → song → strength above the known one
    of_song: Strengths = field(default_factory=dict)  # song → user → the same
    lock: Any = field(default_factory=threading.Lock, repr=False)

    @cached_property
    def known_SU(self) -> sparse.csr_matrix:
        """The known listening by song."""
        return sparse.csr_matrix(self.known_US.T)

    @property
    def n_users(self) -> int:
        """How many users there are."""
        return int(self.known_US.shape[0])

    @property
    def songs_U(self) -> Array:
        """How many known songs each user listened to."""
        return np.diff(self.known_US.indptr)

    @property
    def listeners_S(self) -> Array:
        """How many known users listened to each song."""
        return np.bincount(self.known_US.indices, minlength=self.known_US.shape[1])

    def is_new(self, users_N: Array) -> Array:
        """Of which users no listening is known but what has come in, (N,)."""
        return np.asarray(self.known_US.indptr[users_N + 1] == self.known_US.indptr[users_N])

    def add(self, user: int, song: int, strength: float) -> None:
        """Raise a user's signal on a song to `strength`, where it is weaker."""
        row = slice(self.known_US.indptr[user], self.known_US.indptr[user + 1])
        at = np.flatnonzero(self.known_US.indices[row] == song)
        more = strength - (float(self.known_US.data[row][at[0]]) if len(at) else 0.0)
        with self.lock:
            if more > self.of_song.get(song, {}).get(user, 0.0):
                self.of_song.setdefault(song, {})[user] = more
                self.of_user.setdefault(user, {})[song] = more

    def heard(self, users_N: Array) -> sparse.csr_matrix:
        """What some users listened to, (N, S), with sorted indices."""
        heard_NS = self.known_US[users_N]
        if self.of_user:
            with self.lock:
                heard_NS = sparse.csr_matrix(
                    heard_NS + strength_rows(self.of_user, users_N.tolist(), heard_NS.shape[1])
                )
        heard_NS.sort_indices()
        return heard_NS

    def heard_by(self, user: int) -> Array:
        """The songs that one user listened to, ascending."""
        known = self.known_US.indices[self.known_US.indptr[user] : self.known_US.indptr[user + 1]]
        with self.lock:
            since = list(self.of_user.get(user, ()))
        return distinct(known, np.array(since, dtype=known.dtype))

    def weighted(self, weights_CS: sparse.csr_matrix) -> sparse.csr_matrix:
        """Σ over songs of weight · strength, (C, U); only rows of songs that have a weight are read."""
        sum_CU = sparse.csr_matrix(weights_CS @ self.known_SU)
        if not self.of_song:
            return sum_CU
        songs_K = distinct(weights_CS.indices)
        with self.lock:
            since_KU = strength_rows(self.of_song, songs_K.tolist(), self.n_users)
        return sparse.csr_matrix(sum_CU + weights_CS[:, songs_K] @ since_KU) if since_KU.nnz else sum_CU


def strength_rows(of: Strengths, rows: Sequence[int], width: int) -> sparse.csr_matrix:
    """Some rows of nested dictionaries as a matrix, (rows, width)."""
    found = [(at, other, value) for at, row in enumerate(rows) for other, value in of.get(row, {}).items()]
    at, other, value = np.array(found, dtype=np.float64).reshape(-1, 3).T
    return sparse.csr_matrix((value.astype(np.float32), (at.astype(int), other.astype(int))), (len(rows), width))


def strongest(user_N: Array, song_N: Array, strength_N: Array, shape: tuple[int, int]) -> sparse.csr_matrix:
    """Strongest signal of each user on each song, (U, S), without dislikes."""
    user, song, strength = once_each(user_N, song_N, strength_N, shape[1])
    return sparse.csr_matrix((strength, (user, song)), shape=shape)


def once_each(user_N: Array, song_N: Array, strength_N: Array, n_songs: int) -> tuple[Array, Array, Array]:
    """Users, songs and strengths: each (user, song) once, with its strongest signal, in order; without dislikes."""
    liked = np.flatnonzero(strength_N > 0)
    key = user_N[liked].astype(np.int64) * n_songs + song_N[liked]
    order = np.argsort(key)
    key, strength = key[order], strength_N[liked][order].astype(np.float32)
    first = np.flatnonzero(np.diff(key, prepend=np.iinfo(np.int64).min))
    user, song = np.divmod(key[first], n_songs)
    return user, song, np.maximum.reduceat(strength, first) if len(first) else strength
