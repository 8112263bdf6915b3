"""Validate the song encoder by audience recall: new songs that find their listeners, and the other way round."""

from __future__ import annotations

from functools import partial
from typing import Any, Literal

import numpy as np

from callbacks.index_recall import Array, IndexRecall, Rows
from retrieval.index import build_index, search
from retrieval.listening import Listening
from retrieval.metrics import recall_at_k, recall_curve
from retrieval.targeting import Targeting, TargetingOptions


class AudienceRecall(IndexRecall):
    """Adds to the neighbours' recall `val/listeners_recall@N` (songs → users), `val/songs_recall@K` (users → songs)
    and their mean, `val/audience`.

    Both rank by the scores of `Targeting` in one mode, that which will be served. The DataModule gives `listening`
    (users, songs) and `val_listeners()` (cold validation song, user).

    Args:
        k: neighbours, and new songs a user.
        users: users a new song.
        mode: how an audience is found.
        options: the options of that mode.
    """

    def __init__(self, k: int, users: int, mode: Literal["i2i2u", "taste"], options: TargetingOptions) -> None:
        super().__init__(k)
        self.k, self.users, self.mode, self.options = k, users, mode, options
        self.heard: tuple[Array, Listening] | None = None  # ids of known songs, and who listened to them

    def measure(self, of_items: Rows, of_queries: Rows, data: Any) -> dict[str, Any]:
        """Compute the metrics from vectors of known songs and of validation songs."""
        metrics = super().measure(of_items, of_queries, data)
        items, item_ids, queries, query_ids = (one[key] for one in (of_items, of_queries) for key in ("vector", "id"))
        index = build_index(items, devices=(self.device.index or 0,))
        targeting = Targeting(self._listening(item_ids, data), items, partial(search, index), self.options)
        asked = targeting.songs(queries, np.full(len(queries), len(items)))  # none of them is a known song
        users = np.flatnonzero(~targeting.taste.empty_U)
        song_of, user_of = data.val_listeners()
        listeners = padded(targeting.audience(asked, self.mode, self.users).users_CB, self.users)
        at = padded(targeting.new_songs_of(users, asked, self.mode, self.k).users_CB, self.k)  # places of songs
        songs = np.where(at >= 0, query_ids[at], -1)
        known = np.isin(user_of, users)
        self.curves["val/listeners_recall"] = recall_curve(listeners, query_ids, song_of, user_of)
        self.curves["val/songs_recall"] = recall_curve(songs, users, user_of[known], song_of[known])
        both = {
            f"val/listeners_recall@{self.users}": recall_at_k(listeners, query_ids, song_of, user_of).mean(),
            f"val/songs_recall@{self.k}": recall_at_k(songs, users, user_of[known], song_of[known]).mean(),
        }
        return metrics | both | {"val/audience": np.mean([*both.values()])}

    def _listening(self, item_ids: Array, data: Any) -> Listening:
        """Who listened to the known songs, in the order of their ids: made once, not every epoch."""
        if self.heard is None or not np.array_equal(self.heard[0], item_ids):
            self.heard = item_ids, Listening(data.listening[:, item_ids])
        return self.heard[1]


def padded(found_NB: Array, k: int) -> Array:
    """Lists of k, −1 where there are fewer to be found at all: a curve is as long in every run."""
    return np.pad(found_NB, ((0, 0), (0, k - found_NB.shape[1])), constant_values=-1)
