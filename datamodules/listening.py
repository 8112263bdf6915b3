"""Halves of users' histories, one of which must predict the other in the training of the song encoder.

Shapes: B users of a batch, S songs of a batch.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy import sparse
from scipy.special import gammaln
from torch import Tensor

from configs.errors import UserError
from data.arrays import AnyArray, IntArray
from retrieval.distinct import distinct


class Listening:
    """Draws users uniformly, with at least two songs each, and cuts the history of each at random into two halves.

    Args:
        listening_US: strongest signal of each user on each song; training plays only.
        songs: songs that may be drawn beside those of the users (all warm songs).
        users: users a batch, each once; where there are fewer, drawn with replacement.
        history: songs of a user used at a time; of more, so many are drawn.
        candidates: songs drawn uniformly as further candidates; all songs where there are no more.

    Raises:
        UserError: no user has two songs.
    """

    def __init__(
        self, listening_US: sparse.csr_matrix, songs: IntArray, users: int, history: int, candidates: int
    ) -> None:
        self.matrix = sparse.csr_matrix(listening_US)
        self.matrix.sort_indices()
        self.songs, self.users, self.history, self.candidates = songs, users, history, candidates
        plays_U = np.diff(self.matrix.indptr)
        self.active = np.flatnonzero(plays_U >= 2)
        if users and not len(self.active):
            raise UserError(
                "no user listened to two known songs: half of a user's songs cannot predict the other "
                "(objective.listening_weight=0)"
            )
        # A song is touched by a drawn user with this chance (exact while histories are not cut).
        heard = self.matrix[self.active].indices  # users with one song are never drawn
        untouched_S = chance_of_none(np.bincount(heard, minlength=self.matrix.shape[1]), users, len(self.active))
        undrawn = (1 - 1 / max(1, len(songs))) ** candidates if candidates < len(songs) else 0.0
        self.log_q_S = np.log(np.maximum(1 - untouched_S * undrawn, 1e-12)).astype(np.float32)

    def draw(self, rng: np.random.Generator) -> tuple[IntArray, dict[str, Tensor]]:
        """Song numbers (S,), and `heard` (B, S) strengths of one half, `wanted` (B, S) the other, `log_q` (S,).

        `log_q` is the log of each song's chance to be among the S: the correction of a sampled softmax.
        """
        user = rng.choice(self.active, self.users, replace=self.users > len(self.active))
        start, count = self.matrix.indptr[user], np.diff(self.matrix.indptr)[user]
        row = np.repeat(np.arange(self.users), count)
        rank = np.arange(len(row)) - np.repeat(np.cumsum(count) - count, count)
        # Shuffled within each user: the first half is heard, the second wanted, the rest left out.
        at = (rank + np.repeat(start, count))[np.lexsort((rng.random(len(row)), row))]
        used = np.minimum(count, self.history)[row]
        row, at, rank, used = (one[rank < used] for one in (row, at, rank, used))
        heard = rank < (used + 1) // 2
        song, strength = self.matrix.indices[at], self.matrix.data[at]

        many = self.candidates < len(self.songs)
        drawn = rng.choice(self.songs, self.candidates) if many else self.songs
        songs = distinct(song, drawn).astype(np.int64)
        column = np.searchsorted(songs, song)
        heard_BS = np.zeros((self.users, len(songs)), dtype=np.float32)
        wanted_BS = np.zeros((self.users, len(songs)), dtype=bool)
        heard_BS[row[heard], column[heard]] = strength[heard]
        wanted_BS[row[~heard], column[~heard]] = True
        return songs, {
            "heard": torch.from_numpy(heard_BS),
            "wanted": torch.from_numpy(wanted_BS),
            "log_q": torch.from_numpy(self.log_q_S[songs]),
        }


def chance_of_none(listeners_S: IntArray, drawn: int, users: int) -> AnyArray:
    """The chance that none of a song's listeners is among the drawn users.

    C(users − listeners, drawn) / C(users, drawn). With replacement, where more are drawn than there are, it is
    (1 − listeners / users)^drawn.
    """
    others_S = users - listeners_S
    if drawn > users:
        return np.asarray((others_S / max(1, users)) ** drawn)
    ways_S = gammaln(others_S + 1) - gammaln(np.maximum(others_S - drawn, 0) + 1)
    all_ways = gammaln(users + 1) - gammaln(users - drawn + 1)
    return np.where(others_S >= drawn, np.exp(ways_S - all_ways), 0.0)
