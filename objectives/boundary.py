"""Loss of the interest-boundary model (the article's Q4).

Shapes: N scored (user, song) samples; the arguments may have any shapes that broadcast against each other.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from objectives.gather import mean_over_ranks


def boundary_loss(
    item_score_N: Tensor, boundary_score_N: Tensor, label_N: Tensor, alpha: float, weight_N: Tensor
) -> Tensor:
    """Binary cross-entropy of p = σ(⟨u, i⟩ − ⟨u, b⟩): −mean[y·log p + α·(1 − y)·log(1 − p)].

    A positive raises the song's score and lowers the user's boundary, a negative the reverse: at the optimum the
    boundary separates a user's positives from their negatives.

    Args:
        item_score_N: ⟨u, i⟩, the song's score for the user.
        boundary_score_N: ⟨u, b⟩, the user's own threshold.
        label_N: y, 1 for a positive and 0 for a negative.
        alpha: α ≥ 0, weight of a negative against a positive.
        weight_N: weight of each sample, 0 leaves it out; the mean is weighted, over all ranks.
    """
    # float32: near 50, bfloat16 has steps of 0.25
    margin_N = item_score_N.float() - boundary_score_N.float()
    # log p = log σ(m) and log(1 − p) = log σ(−m), without computing p, which would underflow
    loss_N = -(label_N * F.logsigmoid(margin_N) + alpha * (1 - label_N) * F.logsigmoid(-margin_N))
    weight_N = weight_N.expand_as(loss_N)
    return (loss_N * weight_N).sum() / mean_over_ranks(weight_N.sum()).clamp(min=1e-12)
