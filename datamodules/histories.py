"""Users' listening histories: before a moment, and at the end of training time.

Shapes: B histories, T history places, S distinct songs of them, M songs asked about.
Nobody sees their own future: a history ends strictly before the play's time. No target is in its own history.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import polars as pl
import torch

from data.arrays import BoolArray, FloatArray, IntArray, group_starts, is_member
from retrieval.distinct import distinct


class Histories:
    """Training plays grouped by user, and which of them a history may hold. Arrays are in play order, (plays,).

    Where plays have times, a history is the latest plays before a moment; an undated play is then in no training
    history, since it may be the future. Where no play has a time, it is the user's other plays, in a seeded order.
    """

    def __init__(self, plays: pl.DataFrame, n_users: int, n_songs: int, length: int, seed: int = 0) -> None:
        self.dated = plays["played_at"].null_count() < plays.height
        if not self.dated:  # the table's own order is that of the song numbers, and `length` would keep the last ones
            by_user = np.lexsort((np.random.default_rng(seed).random(plays.height), plays["user"].to_numpy()))
            plays = plays[by_user]
        self.table, self.length, self.n_songs = plays, length, n_songs
        self.user = plays["user"].to_numpy().astype(np.int64)
        self.song = plays["song"].to_numpy().astype(np.int64)
        self.strength = plays["strength"].to_numpy().astype(np.float32)
        self.start = group_starts(self.user, n_users)
        undated = np.bincount(self.user[plays["played_at"].is_null().to_numpy()], minlength=n_users)
        self.first_dated = self.start[:-1] + undated  # undated plays come first (prepare sorts nulls so)
        time = plays["played_at"].cast(pl.Int64).fill_null(np.iinfo(np.int64).min).to_numpy()
        changes = np.append(True, (np.diff(self.user) != 0) | (np.diff(time) != 0))
        self.moment = np.maximum.accumulate(np.where(changes, np.arange(len(self.user)), 0))  # first play at that time
        self.pairs = distinct(self.user * n_songs + self.song)

    def before(self, rows: IntArray) -> dict[str, Any]:
        """Histories of training plays: what the user had played strictly before, without the play's own song."""
        user = self.user[rows]
        if self.dated:
            end = self.moment[rows]
            count = end - self.first_dated[user]
            return self._histories(lambda place: end[:, None] - 1 - place, count, self.song[rows])
        start, n = self.start[user][:, None], np.diff(self.start)[user][:, None]
        after = rows[:, None] - start + 1
        return self._histories(lambda place: start + (after + place) % n, n[:, 0] - 1, self.song[rows])

    def latest(self, users: IntArray) -> dict[str, Any]:
        """Histories at the end of training time."""
        end, count = self.start[users + 1], np.diff(self.start)[users]
        return self._histories(
            lambda place: end[:, None] - 1 - place, count, np.full(len(users), -1)
        )  # no target to leave out

    def played(self, user_B: IntArray, song_BM: IntArray) -> BoolArray:
        """Whether the users have played the songs in training, (B, M)."""
        return is_member(user_B[:, None] * self.n_songs + song_BM, self.pairs)

    def _histories(
        self, position: Callable[[IntArray], IntArray], count_B: IntArray, target_B: IntArray
    ) -> dict[str, Any]:
        """`history_batch` of the plays at `position`, `count_B` of them at most, without the songs `target_B`."""
        count_B = np.clip(count_B, 0, self.length)
        place = np.arange(max(1, count_B.max(initial=0)))  # never of width 0: the mask says what is there
        at_BT = np.where(place < count_B[:, None], position(place), 0)
        mask_BT = (place < count_B[:, None]) & (self.song[at_BT] != target_B[:, None])
        song_BT = np.where(mask_BT, self.song[at_BT], self.song[0])
        return history_batch(song_BT, mask_BT, np.where(mask_BT, self.strength[at_BT], 0))


def history_batch(song_BT: IntArray, mask_BT: BoolArray, strength_BT: FloatArray) -> dict[str, Any]:
    """Histories as the user tower reads them: distinct `songs` (S,), positions into these, mask and strengths (B, T).

    Where the mask is False, `song_BT` may hold any song.
    """
    songs, history = np.unique(song_BT, return_inverse=True)
    return {
        "songs": songs,
        "history": torch.from_numpy(history.reshape(mask_BT.shape)),
        "mask": torch.from_numpy(mask_BT),
        "strength": torch.from_numpy(strength_BT.astype(np.float32)),
    }
