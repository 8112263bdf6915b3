"""Log-mel frames from samples, on the samples' device.

Shapes: N waves, L samples, F frequency bins, M mel bands, T frames.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.audio_functions import functional

# Mean and standard deviation of ln(mel + 1e-6), measured once on real music at the default options and then fixed, so
# that a file gives the same frames in every catalogue.
LOG_FLOOR, LOG_MEAN, LOG_STD = 1e-6, 1.0, 4.0


class LogMel(nn.Module):
    """Samples (N, L) in about [-1, 1] → (ln(mel + 1e-6) - mean) / std, float32 (N, 1 + L // hop_length, M).

    mel: power spectrum under a Hann window of `win_length` samples, frames centred with reflected ends, triangular
    filters of peak 1 evenly spaced from 0 to sample_rate / 2 on the HTK mel scale (2595 log10(1 + f / 700)).
    L must be more than win_length / 2. `scale` may give the filters' `norm` and `mel_scale`, as torchaudio calls them.
    """

    window: Tensor
    filters_FM: Tensor

    def __init__(self, sample_rate: int, n_mels: int, win_length: int, hop_length: int, **scale: str) -> None:
        super().__init__()
        self.hop_length = hop_length
        bins = win_length // 2 + 1
        filters_FM = functional.melscale_fbanks(bins, 0, sample_rate / 2, n_mels, sample_rate, **scale)
        # Constants, on the device with the weights and not in checkpoints.
        self.register_buffer("filters_FM", filters_FM, persistent=False)
        self.register_buffer("window", torch.hann_window(win_length), persistent=False)

    def forward(self, wave_NL: Tensor) -> Tensor:
        """Log-mel frames of N waves."""
        return (torch.log(self.power(wave_NL) + LOG_FLOOR) - LOG_MEAN) / LOG_STD

    def power(self, wave_NL: Tensor) -> Tensor:
        """Power of each mel band, float32 (N, 1 + L // hop_length, M).

        Autocast is disabled: there is no Fourier transform in bfloat16.
        """
        with torch.autocast(wave_NL.device.type, enabled=False):
            sizes = len(self.window), self.hop_length, len(self.window)
            spectrum_NFT = torch.stft(wave_NL.float(), *sizes, self.window, return_complex=True)
            return spectrum_NFT.abs().pow(2.0).transpose(1, 2) @ self.filters_FM
