"""Mel filters and resampling: torchaudio's, or ours, equal to the last bit, where torchaudio does not load.

`functional` is what the code calls. torchaudio 2.11 loads beside every later version of torch, but not beside every
build: its CUDA build needs the CUDA libraries of torch, which a CPU build of torch does not have.

Shapes: N waves, L samples, F frequency bins, M mel bands, P phases of the filter, K taps, B blocks of P new samples.
"""

from __future__ import annotations

import math
import sys
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

CROSSINGS = 6  # zero crossings of the sinc on each side
ROLLOFF = 0.99  # cut-off, as a share of the lower Nyquist frequency
# Slaney's mel scale: STEP Hz a mel up to KNEE Hz, from there a factor of exp(LOG_STEP) a mel
KNEE, STEP, LOG_STEP = 1000.0, 200.0 / 3, math.log(6.4) / 27.0


def melscale_fbanks(
    n_freqs: int,
    f_min: float,
    f_max: float,
    n_mels: int,
    sample_rate: int,
    norm: str | None = None,
    mel_scale: str = "htk",
) -> Tensor:
    """Triangular mel filters, float32 (F, M), of peak 1, or of equal area with norm="slaney".

    `n_freqs` bins lie evenly on 0 … sample_rate / 2 Hz, the corners of the filters evenly on `f_min` … `f_max` Hz of
    the mel scale: "htk" (O'Shaughnessy: 2595 log10(1 + f / 700)) or "slaney" (Auditory Toolbox, 1998).
    """
    to_mel, to_hertz = (_htk_mel, _htk_hertz) if mel_scale == "htk" else (_slaney_mel, _slaney_hertz)
    bins_F = torch.linspace(0, sample_rate // 2, n_freqs)
    corners = to_hertz(torch.linspace(to_mel(f_min), to_mel(f_max), n_mels + 2))
    width, beyond = corners.diff(), corners - bins_F[:, None]
    filters_FM = torch.minimum(-beyond[:, :-2] / width[:-1], beyond[:, 2:] / width[1:]).clamp(min=0)
    return filters_FM * (2.0 / (corners[2:] - corners[:-2])) if norm == "slaney" else filters_FM


def resample(wave: Tensor, rate: int, new_rate: int) -> Tensor:
    """Floating-point waves (…, L) at `rate` Hz as (…, ceil(L * new_rate / rate)) at `new_rate` Hz, on their device.

    Band-limited interpolation (J. O. Smith, ccrma.stanford.edu/~jos/resample): each new sample is a sum of the old ones
    around it, weighted by a sinc under a Hann window. Beyond the ends is silence.
    """
    if rate == new_rate:
        return wave
    step = math.gcd(rate, new_rate)
    old, new = rate // step, new_rate // step
    filters_P1K, reach = _sinc_filters(old, new, wave)
    wave_NL = wave.reshape(-1, wave.shape[-1])
    padded_N1L = F.pad(wave_NL, (reach, reach + old)).unsqueeze(1)
    found_NPB = F.conv1d(padded_N1L, filters_P1K, stride=old)
    length = int(torch.ceil(torch.as_tensor(new * wave.shape[-1] / old)))  # in float32, as torchaudio has it
    found_NL = found_NPB.transpose(1, 2).reshape(len(wave_NL), -1)[:, :length]
    return found_NL.reshape(*wave.shape[:-1], -1)


def _sinc_filters(old: int, new: int, like: Tensor) -> tuple[Tensor, int]:
    # One filter for each of the `new` phases, (P, 1, K), of the type and on the device of `like`, and how many old
    # samples it reaches to each side. Operations are in torchaudio's order, in the waves' own precision.
    cutoff = min(old, new) * ROLLOFF
    reach = math.ceil(CROSSINGS * old / cutoff)
    kind: Any = {"dtype": like.dtype, "device": like.device}
    old_at_K = torch.arange(-reach, reach + old, **kind) / old
    new_at_P = torch.arange(0, -new, -1, **kind) / new
    at_P1K = ((new_at_P[:, None, None] + old_at_K) * cutoff).clamp(-CROSSINGS, CROSSINGS)  # in zero crossings
    window_P1K = torch.cos(at_P1K * math.pi / CROSSINGS / 2) ** 2
    angle_P1K = at_P1K * math.pi
    sinc_P1K = torch.where(angle_P1K == 0, 1.0, angle_P1K.sin() / angle_P1K)
    return sinc_P1K * (window_P1K * (cutoff / old)), reach


def _htk_mel(hertz: float) -> float:
    return 2595.0 * math.log10(1.0 + hertz / 700.0)


def _htk_hertz(mel: Tensor) -> Tensor:
    return 700.0 * (10.0 ** (mel / 2595.0) - 1.0)


def _slaney_mel(hertz: float) -> float:
    return hertz / STEP if hertz < KNEE else KNEE / STEP + math.log(hertz / KNEE) / LOG_STEP


def _slaney_hertz(mel: Tensor) -> Tensor:
    knee = KNEE / STEP
    return torch.where(mel >= knee, KNEE * torch.exp(LOG_STEP * (mel - knee)), mel * STEP)


try:
    from torchaudio import functional
except (ImportError, OSError, RuntimeError):  # not installed, or of another build than torch
    functional: Any = sys.modules[__name__]  # type: ignore[no-redef]
