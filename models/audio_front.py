"""Input of the audio Transformer: log-mel frames, computed from samples or as stored, augmented in training.

Shapes: N crops, L samples, T frames, M mel bands.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.audio_encoder import spec_augment, valid
from models.log_mel import LogMel

FULL_SCALE = 32768.0  # of int16 samples


class AudioFront(nn.Module):
    """Crops → log-mel frames (N, T, M), float32, and the number of real ones (N,).

    Crops are {"samples" (N, L) int16, "length" (N,)} or {"logmel" (N, T, M), "frames" (N,)}. In training mode samples
    get a random gain and white noise (`augment_wave`), and the frames of both kinds are masked (`spec_augment`).
    """

    def __init__(
        self,
        sample_rate: int,
        n_mels: int,
        win_length: int,
        hop_length: int,
        gain_db: float = 0.0,
        noise_db: float = 0.0,
        freq_mask: int = 0,
        time_mask: int = 0,
    ) -> None:
        super().__init__()
        self.log_mel = LogMel(sample_rate, n_mels, win_length, hop_length)
        self.gain_db, self.noise_db = gain_db, noise_db
        self.masks = freq_mask, time_mask

    def forward(self, crops: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Frames and their number; in evaluation mode independent of the rest of the batch."""
        if "samples" in crops:
            wave_NL = crops["samples"].float() / FULL_SCALE
            if self.training:
                wave_NL = augment_wave(wave_NL, crops["length"], self.gain_db, self.noise_db)
            frames_N = torch.where(crops["length"] > 0, 1 + crops["length"] // self.log_mel.hop_length, 0)
            logmel_NTM = self.log_mel(wave_NL)
        else:
            logmel_NTM, frames_N = crops["logmel"].float(), crops["frames"]
        return (spec_augment(logmel_NTM, frames_N, *self.masks) if self.training else logmel_NTM), frames_N


def augment_wave(wave_NL: Tensor, length_N: Tensor, gain_db: float, noise_db: float) -> Tensor:
    """Apply a random gain to each wave, uniform on ±`gain_db` decibel, and add white noise.

    The noise is `noise_db` to `noise_db` + 40 decibel below the wave's root mean square, uniformly. 0 disables either.
    Padding, from `length_N` on, stays zero.
    """
    n = len(wave_NL)
    if noise_db > 0:
        power_N1 = wave_NL.square().sum(dim=1, keepdim=True) / length_N.clamp(min=1).unsqueeze(1)
        below_N1 = noise_db + 40 * torch.rand(n, 1, device=wave_NL.device)
        level_N1 = power_N1.sqrt() * 10 ** (-below_N1 / 20)
        wave_NL = wave_NL + valid(length_N, wave_NL.shape[1]) * level_N1 * torch.randn_like(wave_NL)
    if gain_db > 0:
        wave_NL = wave_NL * 10 ** (gain_db * (2 * torch.rand(n, 1, device=wave_NL.device) - 1) / 20)
    return wave_NL
