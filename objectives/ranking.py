"""Ranking losses of the song encoder: on song pairs (BPR, sampled softmax), and on whole histories.

Shapes: N pairs, M shared negatives, C = 1 + M candidates, D vector size; B users, S songs.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from objectives.gather import mean_over_ranks


def bpr_loss(query_ND: Tensor, positive_ND: Tensor, negative_MD: Tensor, keep_NM: Tensor) -> Tensor:
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
    return (loss_NM * keep_NM).sum() / mean_over_ranks(keep_NM.sum()).clamp(min=1)


def sampled_softmax_loss(
    query_ND: Tensor,
    positive_ND: Tensor,
    negative_MD: Tensor,
    keep_NM: Tensor,
    positive_log_q_N: Tensor,
    negative_log_q_M: Tensor,
) -> Tensor:
    """Cross-entropy of each pair's positive among itself and the M shared negatives.

    The logQ correction subtracts the log of how often a song is expected among the candidates from its logit, so that
    a popular song is not pushed down for being drawn often (Yi et al., RecSys 2019, equation 3). Uniform draws need
    none.

    Args:
        query_ND: vectors of the anchor songs.
        positive_ND: vectors of their behavioural neighbours.
        negative_MD: vectors of the drawn songs; in-batch negatives are simply among them.
        keep_NM: False where a drawn song is the anchor or its positive (an accidental hit) and must not count.
        positive_log_q_N: log of the expected count of each positive among the candidates.
        negative_log_q_M: the same of each negative.
    """
    positive_N1 = (query_ND * positive_ND).sum(dim=1, keepdim=True) - positive_log_q_N[:, None]
    logits_NM = (query_ND @ negative_MD.T - negative_log_q_M).masked_fill(~keep_NM, -torch.inf)
    return (torch.cat([positive_N1, logits_NM], dim=1).logsumexp(dim=1) - positive_N1.squeeze(1)).mean()


def listening_loss(logits_BS: Tensor, wanted_BS: Tensor, shown_BS: Tensor, users_weight: float) -> Tensor:
    """Multinomial likelihood of one half of a user's songs given the other half, over songs and over users.

    The mean over users of the cross-entropy between softmax over songs and their wanted songs, equally weighted, plus
    the mean over songs of the same over users. The first is the multinomial likelihood of Liang et al. (arXiv
    1802.05814, equation 2) per wanted song; the second ranks the listeners of a song.

    Args:
        logits_BS: score of every user and song of the batch.
        wanted_BS: True for songs to predict.
        shown_BS: True for songs that the user's vector was computed from; they are no candidates.
        users_weight: weight of the second term, over users.

    Returns:
        Zero, still attached to the graph, where nothing is wanted.
    """
    logits_BS = logits_BS.float().masked_fill(shown_BS & ~wanted_BS, -torch.inf)
    return _multi_positive(logits_BS, wanted_BS) + users_weight * _multi_positive(logits_BS.T, wanted_BS.T)


def _multi_positive(logits_NM: Tensor, wanted_NM: Tensor) -> Tensor:
    """Mean of logsumexp(row) − mean wanted logit, over the rows of all ranks with a wanted entry."""
    count_N = wanted_NM.sum(dim=1)
    some = count_N > 0
    rows = mean_over_ranks(some.sum()).clamp(min=1)  # before any rank returns: a collective call
    logits_NM, wanted_NM, count_N = logits_NM[some], wanted_NM[some], count_N[some]
    if not len(count_N):
        return logits_NM.sum()
    wanted_N = torch.where(wanted_NM, logits_NM, 0.0).sum(dim=1) / count_N
    return (logits_NM.logsumexp(dim=1) - wanted_N).sum() / rows
