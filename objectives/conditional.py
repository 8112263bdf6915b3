"""Loss of the neural ranker: what listeners did with a new song, as one likelihood.

Shapes: N (song, user) pairs; 3 heads: played, and completed and favourited given played.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def conditional_loss(logit_N3: Tensor, label_N3: Tensor) -> Tensor:
    """Mean over pairs of −log p(played) − [played] · (log p(completed | played) + log p(favourited | played)).

    Args:
        logit_N3: of the three heads.
        label_N3: 1, 0 or NaN. A label that is not known counts for nothing, nor do the last two of a pair without play.
    """
    played_N1 = label_N3[:, :1]
    counted_N3 = torch.isfinite(label_N3) & torch.cat([torch.ones_like(played_N1), played_N1, played_N1], dim=1).eq(1)
    label_N3 = torch.where(counted_N3, label_N3, 0.0)
    loss_N3 = F.binary_cross_entropy_with_logits(logit_N3, label_N3, reduction="none")
    return (loss_N3 * counted_N3).sum() / max(1, len(label_N3))
