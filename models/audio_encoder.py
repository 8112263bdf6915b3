"""Audio encoder: log-mel frames → strided convolutions → Transformer, plus statistics of each mel band → one vector.

Shapes: N crops, T frames, M mel bands, S tokens (T / 4 of them), W width, C stem channels, H heads, K statistics.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

STRIDE, CHANNELS = 4, 16  # frames a token; C
SCALES = (1, 8, 32)  # frames between which `mel_statistics` measures change: 20 ms, 160 ms, 640 ms at the usual hop
# Mean and standard deviation of the K = 5 statistics over bands, measured once on real music and then fixed.
STATISTIC_MEAN, STATISTIC_STD = (0.13, 0.48, 0.26, 0.37, 0.32), (0.72, 0.20, 0.07, 0.17, 0.18)


class AudioEncoder(nn.Module):
    """Pre-norm Transformer over tokens of four frames, masked mean pooling, plus an MLP of `mel_statistics`: (N, W).

    The Transformer sees every example standardised by its own mean and spread over all frames and bands, so it hears
    spectral shape and course, not how loud a master is; the statistics keep the level, and bring what a Transformer
    needs many more songs to learn (docs/results/). There is no batch norm, so a song's vector never depends on its
    batch. Positions are sinusoids, so any length goes in. With `recompute` the activations within a block are computed
    again in the backward pass, instead of being kept (Chen et al., arXiv 1604.06174): the same gradient, less memory.
    """

    statistic_mean_K1: Tensor
    statistic_std_K1: Tensor

    def __init__(
        self, n_mels: int, width: int, layers: int, heads: int, dropout: float, recompute: bool = False
    ) -> None:
        super().__init__()
        if width % heads or width % 2:
            raise ValueError(f"width must be even and a multiple of heads, got width={width}, heads={heads}")
        self.width, self.recompute = width, recompute
        self.conv1 = nn.Conv2d(1, CHANNELS, 3, stride=2, padding=1)
        self.conv2 = nn.Conv2d(CHANNELS, CHANNELS, 3, stride=2, padding=1)
        self.project = nn.Linear(CHANNELS * math.ceil(n_mels / STRIDE), width)
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(Block(width, heads, dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        # Constants, on the device with the weights and not in checkpoints.
        self.register_buffer("statistic_mean_K1", torch.tensor(STATISTIC_MEAN).unsqueeze(1), persistent=False)
        self.register_buffer("statistic_std_K1", torch.tensor(STATISTIC_STD).unsqueeze(1), persistent=False)
        self.statistics = nn.Sequential(
            nn.Dropout(dropout),
            nn.Linear(len(STATISTIC_MEAN) * n_mels, 2 * width),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(2 * width, width),
        )

    def forward(self, logmel_NTM: Tensor, frames_N: Tensor) -> Tensor:
        """Encode N crops to (N, W); frames from `frames_N` on are padding and are masked."""
        x_NTM = standardise(logmel_NTM, frames_N)
        x_NCTM = F.gelu(self.conv1(x_NTM.unsqueeze(1)))
        # Padding is zeroed again: the convolution's bias would leak into the last tokens.
        x_NCTM = x_NCTM * valid(ceil_div(frames_N, 2), x_NCTM.shape[2])[:, None, :, None]
        x_NCSM = F.gelu(self.conv2(x_NCTM))
        x_NSW = self.project(x_NCSM.transpose(1, 2).flatten(2))
        x_NSW = self.dropout(x_NSW + sinusoids(x_NSW.shape[1], self.width, x_NSW.device))
        # A crop without frames keeps one token, so that no softmax is empty; its vector is meaningless.
        seen_NS = valid(ceil_div(frames_N, STRIDE).clamp(min=1), x_NSW.shape[1])
        for block in self.blocks:
            if self.recompute and torch.is_grad_enabled():
                x_NSW = checkpoint(block, x_NSW, seen_NS, use_reentrant=False)
            else:
                x_NSW = block(x_NSW, seen_NS)
        x_NSW = self.norm(x_NSW) * seen_NS.unsqueeze(-1)
        pooled_NW = x_NSW.sum(dim=1) / seen_NS.sum(dim=1, keepdim=True)
        measured_NKM = (mel_statistics(logmel_NTM, frames_N) - self.statistic_mean_K1) / self.statistic_std_K1
        summary_NW: Tensor = self.statistics(measured_NKM.flatten(1))
        return pooled_NW + summary_NW


class Block(nn.Module):
    """Pre-norm self-attention and GELU feed-forward, both with residual (Xiong et al., arXiv 2002.04745).

    Dropout is on the residual branches, not on attention weights, which would rule out the fused kernels.
    """

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.feed = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x_NSW: Tensor, seen_NS: Tensor) -> Tensor:
        """Transform tokens (N, S, W); attention is limited to tokens where `seen_NS`."""
        n, s, _ = x_NSW.shape
        q, k, v = self.qkv(self.norm1(x_NSW)).view(n, s, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        y_NHSw = F.scaled_dot_product_attention(q, k, v, attn_mask=seen_NS[:, None, None, :])
        x_NSW = x_NSW + self.dropout(self.out(y_NHSw.transpose(1, 2).flatten(2)))
        y_NSW: Tensor = self.dropout(self.feed(self.norm2(x_NSW)))
        return x_NSW + y_NSW


def standardise(logmel_NTM: Tensor, frames_N: Tensor) -> Tensor:
    """Scale each example to zero mean and unit variance over its real frames; padding becomes zero."""
    seen_NT1 = valid(frames_N, logmel_NTM.shape[1]).unsqueeze(-1)
    x_NTM = torch.where(seen_NT1, logmel_NTM.float(), 0.0)
    count_N11 = (frames_N.clamp(min=1) * logmel_NTM.shape[2]).view(-1, 1, 1)
    x_NTM = torch.where(seen_NT1, x_NTM - x_NTM.sum(dim=(1, 2), keepdim=True) / count_N11, 0.0)
    std_N11 = (x_NTM.square().sum(dim=(1, 2), keepdim=True) / count_N11).sqrt()
    return x_NTM / std_N11.clamp(min=1e-3)


def mel_statistics(logmel_NTM: Tensor, frames_N: Tensor) -> Tensor:
    """Mean and standard deviation of each band over a crop's real frames, and that of its change at each of `SCALES`.

    (N, K, M), float32, K = 2 + scales. The change at scale s is the difference between the means of adjacent segments
    of s frames. Zero where a crop is too short.
    """
    x_NTM = logmel_NTM.float()
    n, t, m = x_NTM.shape
    statistics = list(mean_and_std(x_NTM, frames_N))
    for scale in SCALES:
        segments = -(-t // scale)
        padded_NTM = F.pad(x_NTM, (0, 0, 0, segments * scale - t))  # incomplete segments are masked below
        mean_NTM = padded_NTM.view(n, segments, scale, m).mean(dim=2)
        changes_N = torch.div(frames_N, scale, rounding_mode="floor") - 1
        statistics.append(mean_and_std(mean_NTM[:, 1:] - mean_NTM[:, :-1], changes_N)[1])
    return torch.stack(statistics, dim=1)


def mean_and_std(x_NTM: Tensor, count_N: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each band, (N, M), over the first `count_N` frames of each row."""
    seen_NT1 = valid(count_N, x_NTM.shape[1]).unsqueeze(-1)
    count_N1 = count_N.clamp(min=1).unsqueeze(-1)
    mean_NM = torch.where(seen_NT1, x_NTM, 0.0).sum(dim=1) / count_N1
    square_NM = torch.where(seen_NT1, x_NTM - mean_NM.unsqueeze(1), 0.0).square().sum(dim=1) / count_N1
    # The gradient of the root is infinite at zero, which a constant band would reach.
    return mean_NM, (square_NM + 1e-12).sqrt()


def spec_augment(logmel_NTM: Tensor, frames_N: Tensor, freq_mask: int, time_mask: int) -> Tensor:
    """Mask one frequency band and one time span of every example (SpecAugment, Park et al., arXiv 1904.08779).

    Widths are uniform on 0 … `freq_mask` mel bins and 0 … `time_mask` frames. Masked values become the example's mean,
    which standardisation turns into zero.
    """
    n, t, m = logmel_NTM.shape
    if freq_mask <= 0 and time_mask <= 0:
        return logmel_NTM
    hidden_NTM = (
        _random_span(n, t, time_mask, logmel_NTM.device)[:, :, None]
        | _random_span(n, m, freq_mask, logmel_NTM.device)[:, None, :]
    )
    seen_NT1 = valid(frames_N, t).unsqueeze(-1)
    mean_N11 = torch.where(seen_NT1, logmel_NTM, 0.0).sum(dim=(1, 2), keepdim=True) / (frames_N.clamp(min=1) * m).view(
        -1, 1, 1
    )
    return torch.where(hidden_NTM, mean_N11, logmel_NTM)


def sinusoids(length: int, width: int, device: torch.device | None = None) -> Tensor:
    """Position encodings (length, width) of Vaswani et al. (arXiv 1706.03762, §3.5), sines first, then cosines."""
    rate = torch.exp(torch.arange(0, width, 2, device=device) * (-math.log(10000.0) / width))
    angle = torch.arange(length, device=device)[:, None] * rate
    return torch.cat([angle.sin(), angle.cos()], dim=1)


def valid(lengths_N: Tensor, size: int) -> Tensor:
    """Mask (N, size), True on the first `lengths_N` places of each row."""
    return torch.arange(size, device=lengths_N.device) < lengths_N[:, None]


def ceil_div(x: Tensor, by: int) -> Tensor:
    """Integer division, rounded up."""
    return -torch.div(-x, by, rounding_mode="floor")


def _random_span(n: int, size: int, longest: int, device: torch.device) -> Tensor:
    """Mask (n, size) of one random span a row, 0 … `longest` places long."""
    length_N1 = (torch.rand(n, 1, device=device) * (min(longest, size) + 1)).long()
    start_N1 = (torch.rand(n, 1, device=device) * (size - length_N1 + 1)).long()
    at = torch.arange(size, device=device)
    return (at >= start_N1) & (at < start_N1 + length_N1)
