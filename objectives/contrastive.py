"""Contrastive losses: audio against text (CLIP, SigLIP), and two views of a song against those of other songs.

Shapes: N songs of the global batch, D vector size, V = 2N views. Vectors are normalised here. All
losses are computed in float32 outside autocast: at a temperature of 0.01, bfloat16 logits would be off by 0.5.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def clip_loss(
    audio_ND: Tensor,
    text_ND: Tensor,
    logit_scale: Tensor | float,
    same_NN: Tensor | None = None,
    has_audio_N: Tensor | None = None,
    has_text_N: Tensor | None = None,
) -> Tensor:
    """Symmetric InfoNCE: the mean cross-entropy of audio → text and text → audio (Radford et al., arXiv 2103.00020).

    A song with only one of the two is a negative for other songs, never an anchor.

    Args:
        audio_ND: audio vectors.
        text_ND: text vectors, row n of the same song as audio row n.
        logit_scale: 1 / temperature, positive.
        same_NN: True where row and column are the same song or have the same text; such pairs are no negatives. The
            diagonal always counts.
        has_audio_N: False where a song has no audio; its row of `audio_ND` may hold anything. None: all have.
        has_text_N: the same of text. At least one song must have both.
    """
    with torch.autocast(audio_ND.device.type, enabled=False):
        has_audio_N, has_text_N = _present(audio_ND, has_audio_N), _present(text_ND, has_text_N)
        cosine_NN, itself_NN = _cosines(audio_ND, text_ND, has_audio_N, has_text_N)
        logits_NN = logit_scale * cosine_NN
        if same_NN is not None:
            logits_NN = logits_NN.masked_fill(same_NN & ~itself_NN, -torch.inf)
        both_N = has_audio_N & has_text_N
        to_text_PN = logits_NN[both_N].masked_fill(~has_text_N, -torch.inf)
        to_audio_PN = logits_NN.T[both_N].masked_fill(~has_audio_N, -torch.inf)
        target_P = both_N.nonzero().squeeze(1)
        return (F.cross_entropy(to_text_PN, target_P) + F.cross_entropy(to_audio_PN, target_P)) / 2


def siglip_loss(
    audio_ND: Tensor,
    text_ND: Tensor,
    logit_scale: Tensor | float,
    logit_bias: Tensor | float,
    same_NN: Tensor | None = None,
    has_audio_N: Tensor | None = None,
    has_text_N: Tensor | None = None,
) -> Tensor:
    """Sigmoid loss: binary classification of every pair (SigLIP, Zhai et al., arXiv 2303.15343, equation 1).

    −1/N Σ_ij log σ(y_ij (logit_scale · cos(a_i, t_j) + logit_bias)), y = 1 on the diagonal and −1 elsewhere. Where
    songs lack one of the two, the sum is over existing pairs and N counts the songs that have both. `logit_bias` is
    added to every logit; the other arguments are those of `clip_loss`.
    """
    with torch.autocast(audio_ND.device.type, enabled=False):
        has_audio_N, has_text_N = _present(audio_ND, has_audio_N), _present(text_ND, has_text_N)
        cosine_NN, itself_NN = _cosines(audio_ND, text_ND, has_audio_N, has_text_N)
        logits_NN = logit_scale * cosine_NN + logit_bias
        loss_NN = -F.logsigmoid(torch.where(itself_NN, logits_NN, -logits_NN))
        counts_NN = has_audio_N[:, None] & has_text_N
        if same_NN is not None:
            counts_NN = counts_NN & (itself_NN | ~same_NN)
        return (loss_NN * counts_NN).sum() / (has_audio_N & has_text_N).sum()


def info_nce(
    z1_ND: Tensor,
    z2_ND: Tensor,
    temperature: float,
    ids_N: Tensor | None = None,
    valid_N: Tensor | None = None,
) -> Tensor:
    """InfoNCE over 2N views: the other view of the song is the positive, every view of another song a negative.

    NT-Xent (Chen et al., arXiv 2002.05709), which the article (Q2) applies to feature views of songs.

    Args:
        z1_ND: first views, after the projection head.
        z2_ND: second views, row n of the same song.
        temperature: τ > 0.
        ids_N: song ids; rows of the same song are no negatives of each other.
        valid_N: False where a view of the song is empty; such a song is neither anchor nor negative.

    Returns:
        The mean over valid views; zero, still attached to the graph, where no song is valid.
    """
    n, device = len(z1_ND), z1_ND.device
    with torch.autocast(device.type, enabled=False):
        song_V = (torch.arange(n, device=device) if ids_N is None else ids_N).repeat(2)
        valid_V = _present(z1_ND, valid_N).repeat(2)
        # An invalid view may be NaN, and 0 · NaN is NaN: replace it before the products.
        z_VD = _unit(torch.where(valid_V[:, None], torch.cat([z1_ND, z2_ND]), 0.0))
        positive_V = torch.arange(2 * n, device=device).roll(n)
        negative_VV = (song_V[:, None] != song_V) & valid_V
        shown_VV = negative_VV.scatter(1, positive_V[:, None], True)
        logits_VV = (z_VD @ z_VD.T / temperature).masked_fill(~shown_VV, -torch.inf)
        loss_V = F.cross_entropy(logits_VV, positive_V, reduction="none")
        return (loss_V * valid_V).sum() / valid_V.sum().clamp(min=1) + 0.0 * z_VD.sum()


def _present(x_ND: Tensor, has_N: Tensor | None) -> Tensor:
    """Mask (N,) of rows that exist; all without `has_N`."""
    return torch.ones(len(x_ND), dtype=torch.bool, device=x_ND.device) if has_N is None else has_N.bool()


def _cosines(audio_ND: Tensor, text_ND: Tensor, has_audio_N: Tensor, has_text_N: Tensor) -> tuple[Tensor, Tensor]:
    """Cosine of every audio and text, (N, N), and the diagonal mask of matching pairs."""
    # A missing row may be NaN, and 0 · NaN is NaN: replace it before the products.
    audio_ND = torch.where(has_audio_N[:, None], audio_ND, 0.0)
    text_ND = torch.where(has_text_N[:, None], text_ND, 0.0)
    cosine_NN = _unit(audio_ND) @ _unit(text_ND).T
    return cosine_NN, torch.eye(len(cosine_NN), dtype=torch.bool, device=cosine_NN.device)


def _unit(x_ND: Tensor) -> Tensor:
    return F.normalize(x_ND.float(), dim=-1)
