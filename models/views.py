"""Two views of each song for bootstrapping contrastive learning: grouping by correlation, then mask or noise.

Shapes: N songs, F features, G fields, E field embedding. Source: the article's grouping mechanism ("a seed feature is
drawn; the half of the features most correlated with it makes one group, the rest the other; each group is transformed
at random") and arXiv 2308.02844; complementary views are from arXiv 2007.12865, where the correlation is fixed
beforehand.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def feature_correlation(gram_FEFE: Tensor) -> Tensor:
    """Linear CKA between all pairs of features, (F, F), in [0, 1], 1 on the diagonal.

    CKA(i, j) = ‖G_ij‖² / (‖G_ii‖ ‖G_jj‖), Frobenius norms, where G_ij = Σ_songs e_i e_jᵀ of the *centred* field
    embeddings (Kornblith et al., arXiv 1905.00414, equation 2 in feature space).

    Args:
        gram_FEFE: (F, E, F, E) Gram matrix of the concatenated centred embeddings, absent features counting as zero.
    """
    norms_FF = gram_FEFE.square().sum(dim=(1, 3))
    self_F = norms_FF.diagonal().clamp(min=1e-20).sqrt()
    correlation_FF = norms_FF / torch.outer(self_F, self_F)
    correlation_FF.fill_diagonal_(1.0)
    return correlation_FF.clamp(0.0, 1.0)


def group_by_correlation(correlation_FF: Tensor, seed: int) -> Tensor:
    """Group A as a mask (F,): the seed feature and those most correlated with it, ⌈F/2⌉ in all; the rest is group B."""
    n_features = len(correlation_FF)
    order = correlation_FF[seed].clone()
    order[seed] = float("inf")
    chosen = order.topk(-(-n_features // 2)).indices
    group_F = torch.zeros(n_features, dtype=torch.bool, device=correlation_FF.device)
    group_F[chosen] = True
    return group_F


def draw_group(correlation_FF: Tensor, grouping: str) -> tuple[Tensor, Tensor]:
    """Features of view 1 and of view 2, masks (F,), for one batch.

    "correlation": the seed feature is drawn uniformly; "random": a random half; "none": both views may see everything.
    """
    n_features = len(correlation_FF)
    if grouping == "none":
        everything = torch.ones(n_features, dtype=torch.bool, device=correlation_FF.device)
        return everything, everything
    seed = int(torch.randint(n_features, ()))
    if grouping == "random":
        correlation_FF = torch.rand(n_features, n_features).to(correlation_FF)
    group_F = group_by_correlation(correlation_FF, seed)
    return group_F, ~group_F


def make_view(
    e_NFE: Tensor, present_NF: Tensor, group_F: Tensor, augment: str, mask_rate: float, noise_std: float
) -> tuple[Tensor, Tensor]:
    """One randomly transformed view: (embeddings, shown_NF).

    Only features of the group that the song has can be shown. "mask" hides each with chance `mask_rate`, but never a
    song's last one; "noise" adds Gaussian noise of `noise_std` × that feature's spread in the batch; "both" does both;
    "either" tosses a coin for the view (the article: mask *or* noise). "embedding" hides single numbers of the
    embeddings with chance `mask_rate` instead of whole features (embedding-level masking, as CL4CVR has it).
    """
    if augment == "either":
        augment = "mask" if torch.rand(()) < 0.5 else "noise"
    shown_NF = present_NF & group_F
    if augment in ("noise", "both"):
        spread_FE = _spread(e_NFE.detach(), present_NF)
        e_NFE = e_NFE + noise_std * spread_FE * torch.randn_like(e_NFE)
    if augment == "embedding":
        e_NFE = e_NFE * (torch.rand_like(e_NFE) >= mask_rate)
    if augment in ("mask", "both"):
        chance_NF = torch.rand(shown_NF.shape, device=e_NFE.device)
        kept_NF = shown_NF & (chance_NF >= mask_rate)
        luckiest_NF = torch.where(shown_NF, chance_NF, -1.0).argmax(dim=1, keepdim=True)
        rescued_NF = torch.zeros_like(shown_NF).scatter_(1, luckiest_NF, True) & shown_NF
        shown_NF = kept_NF | rescued_NF
    return e_NFE, shown_NF


def hide_fields(shown_NF: Tensor, field_of_F: Tensor, rate: float) -> Tensor:
    """Hide every field of every song, all features of it together, with chance `rate`, but never a song's last one.

    Args:
        shown_NF: features that each song has.
        field_of_F: number of the field that each feature is a part of, from 0.
        rate: chance; the field whose random number is highest stays whatever the chance.
    """
    member_FG = F.one_hot(field_of_F).float()
    has_NG = shown_NF.float() @ member_FG > 0
    luck_NG = torch.rand(has_NG.shape, device=shown_NF.device).masked_fill(~has_NG, -1.0)
    spared_NG = torch.zeros_like(has_NG).scatter_(1, luck_NG.argmax(dim=1, keepdim=True), True)
    return shown_NF & ((luck_NG >= rate) | spared_NG)[:, field_of_F]


def _spread(e_NFE: Tensor, present_NF: Tensor) -> Tensor:
    """Standard deviation (F, E) of each feature over the songs that have it: an absent one is no song at zero."""
    has_NF1 = present_NF.unsqueeze(-1)
    count_F1 = has_NF1.sum(dim=0).clamp(min=1)
    mean_FE = (e_NFE * has_NF1).sum(dim=0) / count_F1
    return (((e_NFE - mean_FE) * has_NF1).square().sum(dim=0) / count_F1).sqrt()
