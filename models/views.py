"""Views of each song for bootstrapping contrastive learning: grouping by correlation, then mask or noise.

A feature is a field, or a block of a long one (`feature_of_F`). Shapes: N songs, F embedded blocks, G features, E block
embedding. Source: the article's grouping mechanism ("a seed feature is drawn; the half of the features most correlated
with it makes one group, the rest the other; each group is transformed at random") and arXiv 2308.02844; complementary
views are from arXiv 2007.12865, where the correlation is fixed beforehand.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from objectives.gather import sum_over_ranks


def feature_correlation(
    count_GG: Tensor, sums: list[Tensor], squares: list[Tensor], products: list[list[Tensor]]
) -> Tensor:
    """Linear CKA between all pairs of features over the songs that have both, (G, G), in [0, 1], 1 on the diagonal.

    CKA(i, j) = ‖C_ij‖² / (‖C_ii‖ ‖C_jj‖), Frobenius norms of the covariances over these songs (Kornblith et al., arXiv
    1905.00414, equation 2 in feature space). It is 0 where a feature does not vary, or fewer than two songs have both.

    Args:
        count_GG: songs that have both features.
        sums: [i][j]: Σ x_i over the songs that have i and j.
        squares: [i][j]: Σ x_i x_iᵀ over them.
        products: [i][j] for j < i: Σ x_i x_jᵀ over them.
    """
    correlation_GG = torch.eye(len(sums), dtype=torch.float64)
    for i, of_earlier in enumerate(products):
        for j, product in enumerate(of_earlier):
            sum_i, sum_j, count = sums[i][j], sums[j][i], count_GG[i, j]
            own = _norm(squares[i][j], sum_i, sum_i, count) * _norm(squares[j][i], sum_j, sum_j, count)
            if own > 0:
                correlation_GG[i, j] = correlation_GG[j, i] = _norm(product, sum_i, sum_j, count) ** 2 / own
    return correlation_GG.clamp(0.0, 1.0)


def _norm(total: Tensor, sum_i: Tensor, sum_j: Tensor, count: Tensor) -> float:
    """Frobenius norm of Σ (x_i − x̄_i)(x_j − x̄_j)ᵀ; 0 if it is no more than rounding leaves of a constant."""
    norm = float((total - torch.outer(sum_i, sum_j) / count.clamp(min=1)).norm())
    return norm if count >= 2 and norm > 1e-9 * float(total.norm()) else 0.0


def group_by_correlation(correlation_GG: Tensor, seed: int) -> Tensor:
    """Group A as a mask (G,): the seed feature and those most correlated with it, ⌈G/2⌉ in all; the rest is group B."""
    n_features = len(correlation_GG)
    order = correlation_GG[seed].clone()
    order[seed] = float("inf")
    chosen = order.topk(-(-n_features // 2)).indices
    group_G = torch.zeros(n_features, dtype=torch.bool, device=correlation_GG.device)
    group_G[chosen] = True
    return group_G


def draw_groups(correlation_GG: Tensor, grouping: str, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Features of view 1 and of view 2, masks (G,), for one batch.

    "correlation": the seed feature is drawn uniformly; "random": a random half; "none": both views may see everything.

    Args:
        correlation_GG: of the features.
        grouping: how.
        generator: on the CPU, in the same state on all ranks, so that the global batch has one pair of groups.
    """
    n_features = len(correlation_GG)
    if grouping == "none":
        everything = torch.ones(n_features, dtype=torch.bool, device=correlation_GG.device)
        return everything, everything
    seed = int(torch.randint(n_features, (), generator=generator))
    if grouping == "random":
        correlation_GG = torch.rand(n_features, n_features, generator=generator).to(correlation_GG)
    group_G = group_by_correlation(correlation_GG, seed)
    return group_G, ~group_G


def draw_augment(augment: str, generator: torch.Generator) -> str:
    """The transformation of one view of the batch: "either" tosses a coin (the article: mask *or* noise)."""
    if augment == "either":
        return "mask" if torch.rand((), generator=generator) < 0.5 else "noise"
    return augment


def transform(
    e_NFE: Tensor, shown_NF: Tensor, augment: str, feature_of_F: Tensor, mask_rate: float, noise_std: float
) -> tuple[Tensor, Tensor]:
    """Transform the `shown` features of songs at random: (embeddings, shown_NF).

    "mask" hides each feature with chance `mask_rate`, but never a song's last one; "noise" adds Gaussian noise of
    `noise_std` × that feature's spread in the global batch; "both" does both. "embedding" hides single numbers of the
    embeddings with chance `mask_rate` instead of whole features (embedding-level masking, as CL4CVR has it).
    """
    if augment in ("noise", "both"):
        e_NFE = e_NFE + noise_std * _spread(e_NFE.detach(), shown_NF) * torch.randn_like(e_NFE)
    if augment == "embedding":
        e_NFE = e_NFE * (torch.rand_like(e_NFE) >= mask_rate)
    if augment in ("mask", "both"):
        shown_NF = hide_features(shown_NF, feature_of_F, mask_rate)
    return e_NFE, shown_NF


def hide_features(shown_NF: Tensor, feature_of_F: Tensor, rate: float) -> Tensor:
    """Hide every feature of every song, all blocks of it together, with chance `rate`, but never a song's last one.

    Args:
        shown_NF: blocks that each song has.
        feature_of_F: number of the feature that each block is a part of, from 0.
        rate: chance; the feature whose random number is highest stays whatever the chance.
    """
    member_FG = F.one_hot(feature_of_F).float()
    has_NG = shown_NF.float() @ member_FG > 0
    luck_NG = torch.rand(has_NG.shape, device=shown_NF.device).masked_fill(~has_NG, -1.0)
    spared_NG = torch.zeros_like(has_NG).scatter_(1, luck_NG.argmax(dim=1, keepdim=True), True)
    return shown_NF & ((luck_NG >= rate) | spared_NG)[:, feature_of_F]


def _spread(e_NFE: Tensor, present_NF: Tensor) -> Tensor:
    """Standard deviation (F, E) of each block over the songs of all ranks that have it: an absent one is none at 0."""
    has_NF1 = present_NF.unsqueeze(-1)
    count_F1 = sum_over_ranks(has_NF1.sum(dim=0)).clamp(min=1)
    mean_FE = sum_over_ranks((e_NFE * has_NF1).sum(dim=0)) / count_F1
    return (sum_over_ranks(((e_NFE - mean_FE) * has_NF1).square().sum(dim=0)) / count_F1).sqrt()
