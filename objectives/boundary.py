"""Loss of the interest boundary (the article's Q4).

Shapes: N scored (user, song) samples; the arguments may have any shapes that broadcast against each other.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from objectives.gather import mean_over_ranks


def boundary_loss(
    item_score_N: Tensor, boundary_score_N: Tensor, label_N: Tensor, alpha: float, weight_N: Tensor | None = None
) -> Tensor:
    """Binary cross-entropy of p = σ(⟨u, i⟩ − ⟨u, b⟩): −mean[y·log p + α·(1 − y)·log(1 − p)].

    A positive raises the song's score and lowers the user's boundary, a negative does the reverse. In equilibrium
    the boundary lies between a user's positives and negatives.

    Args:
        item_score_N: ⟨u, i⟩, the song's score for the user.
        boundary_score_N: ⟨u, b⟩, the user's own threshold.
        label_N: y, 1 for a positive and 0 for a negative.
        alpha: α ≥ 0, weight of a negative against a positive.
        weight_N: weight of each sample, 0 leaves it out; the mean is then over the weights, of all ranks. None: all
            count once.
    """
    # not in bfloat16, whose steps are a quarter where a score is 50
    margin_N = item_score_N.float() - boundary_score_N.float()
    # log σ(x) and log(1 − σ(x)) = log σ(−x), without forming p: no overflow however large the margin
    loss_N = -(label_N * F.logsigmoid(margin_N) + alpha * (1 - label_N) * F.logsigmoid(-margin_N))
    if weight_N is None:
        return loss_N.mean()
    weight_N = weight_N.expand_as(loss_N)
    return (loss_N * weight_N).sum() / mean_over_ranks(weight_N.sum()).clamp(min=1e-12)
