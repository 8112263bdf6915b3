"""Validate the boundary: does it part the listeners of new songs from other users?"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from callbacks.index_recall import IndexRecall, Rows
from objectives.boundary import boundary_loss
from retrieval.boundary import pair_scores
from retrieval.gate import calibration_error, probability
from retrieval.metrics import auc


class BoundaryMargin(IndexRecall):
    """Adds to recall what the margin ⟨u, i⟩ − ⟨u, b⟩ is worth on pairs of a cold validation song and a user.

    - `val/bce`: the loss of training.
    - `val/margin_auc`: chance that a listener's margin is above that of a user drawn for the same songs.
    - `val/calibration`: expected calibration error of σ(margin), a negative weighing α as in training.

    Recall ranks one user's songs by ⟨u, i⟩, from which ⟨u, b⟩ cancels: no boundary is too wrong for it. The DataModule
    gives `val_pairs` (song, user, label), and user rows have their `boundary`.

    Args:
        k: new songs a user.
        alpha: α, weight of a negative.
    """

    def __init__(self, k: int, alpha: float) -> None:
        super().__init__(k)
        self.alpha = alpha

    def measure(self, of_items: Rows, of_queries: Rows, data: Any) -> dict[str, Any]:
        """Compute the metrics from vectors of songs, vectors of users and their boundary scores."""
        song_P, user_P, label_P = data.val_pairs
        at_P, row_P = np.searchsorted(of_items["id"], song_P), np.searchsorted(of_queries["id"], user_P)
        score_P = pair_scores(of_items["vector"], of_queries["vector"], at_P, row_P)
        boundary_P = of_queries["boundary"][row_P]
        score, boundary, label = (torch.from_numpy(one).to(self.device) for one in (score_P, boundary_P, label_P))
        loss = boundary_loss(score, boundary, label, self.alpha, torch.ones_like(label))
        margin_P, weight_P = score_P - boundary_P, np.where(label_P > 0, 1.0, self.alpha)
        return super().measure(of_items, of_queries, data) | {
            "val/bce": float(loss),
            "val/margin_auc": auc(margin_P, label_P),
            "val/calibration": calibration_error(probability(margin_P), label_P, weight_N=weight_P),
        }
