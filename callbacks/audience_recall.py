"""Validate the song encoder by audience recall: new songs that find their listeners, and the other way round."""

from __future__ import annotations

from typing import Any

import numpy as np

from callbacks.index_recall import IndexRecall, Rows, retrieve
from retrieval.clusters import user_vectors
from retrieval.metrics import recall_at_k, recall_curve


class AudienceRecall(IndexRecall):
    """Adds to the neighbours' recall `val/listeners_recall@N` (songs → users), `val/songs_recall@K` (users → songs)
    and their mean, `val/audience`.

    A user is the mean direction of the known songs they listened to, as in `audience mode=taste`. The DataModule
    gives `listening` (users, songs) and `val_listeners()` (cold validation song, user).

    Args:
        k: neighbours, and new songs a user.
        users: users a new song.
    """

    def __init__(self, k: int, users: int = 50) -> None:
        super().__init__(k)
        self.k, self.users = k, users

    def measure(self, of_items: Rows, of_queries: Rows, data: Any) -> dict[str, Any]:
        """Compute the metrics from vectors of known songs and of validation songs."""
        metrics = super().measure(of_items, of_queries, data)
        items, item_ids, queries, query_ids = (one[key] for one in (of_items, of_queries) for key in ("vector", "id"))
        taste_UD = user_vectors(data.listening[:, item_ids], items, np.ones(len(items)))
        users = np.flatnonzero(taste_UD.any(axis=1))
        song_of, user_of = data.val_listeners()
        listeners = retrieve(taste_UD[users], users, queries, self.users)
        songs = retrieve(queries, query_ids, taste_UD[users], self.k)
        known = np.isin(user_of, users)
        self.curves["val/listeners_recall"] = recall_curve(listeners, query_ids, song_of, user_of)
        self.curves["val/songs_recall"] = recall_curve(songs, users, user_of[known], song_of[known])
        both = {
            f"val/listeners_recall@{self.users}": recall_at_k(listeners, query_ids, song_of, user_of).mean(),
            f"val/songs_recall@{self.k}": recall_at_k(songs, users, user_of[known], song_of[known]).mean(),
        }
        return metrics | both | {"val/audience": np.mean([*both.values()])}
