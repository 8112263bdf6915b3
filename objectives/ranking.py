"""Pairwise ranking loss of the song encoder.

Shapes: N pairs, M shared negatives, D vector size.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def bpr_loss(query_ND: Tensor, positive_ND: Tensor, negative_MD: Tensor, keep_NM: Tensor | None = None) -> Tensor:
    """Bayesian personalised ranking: the mean of softplus(⟨query, negative⟩ − ⟨query, positive⟩).

    Every pair is ranked against all M negatives of the batch, which were drawn uniformly from the catalogue.
    softplus(−x) is −log σ(x) without the underflow (Rendle et al., arXiv 1205.2618).

    Args:
        query_ND: vectors of the anchor songs.
        positive_ND: vectors of their behavioural neighbours.
        negative_MD: vectors of the drawn songs.
        keep_NM: False where a drawn song is the anchor or its positive and must not count.
    """
    positive_N1 = (query_ND * positive_ND).sum(dim=1, keepdim=True)
    loss_NM = F.softplus(query_ND @ negative_MD.T - positive_N1)
    if keep_NM is None:
        return loss_NM.mean()
    return (loss_NM * keep_NM).sum() / keep_NM.sum().clamp(min=1)
