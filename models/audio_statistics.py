"""Tempo and loudness statistics of recordings, from their log-mel frames.

They follow from a recording alone, whatever the batch, and hardly from the number of mel bands. All but `level` and
`silence` stay as they are if the recording is made louder or softer.

Shapes: N recordings, T frames, M mel bands, S statistics, P tempi, L lags.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from models.log_mel import LOG_FLOOR, LOG_MEAN, LOG_STD

# In units in which recordings differ by about one, since a song encoder scales a field as a whole.
STATISTICS = {
    "level": "root mean square, in 10 dB re a full-scale square wave (a sine of amplitude 1: -0.301)",
    "spread": "standard deviation of the frames' levels, in 10 dB",
    "range": "from the 10th to the 95th percentile of the frames' levels, in 10 dB",
    "silence": "share of the frames below -60 dB",
    "centroid": "of the mean power spectrum over the mel bands, in octaves from 1 kHz",
    "tempo": "in octaves from 120 beats a minute (60: -1, 180: 0.585); 0 where there is no beat",
    "beat": "autocorrelation of the onsets at the tempo: 1 for a metronome, 0 without any beat",
}
QUIETEST, SILENT = -80.0, -60.0  # dB: lower levels count as this; a frame below is silence
LOUD_TO_SOFT = 60.0  # dB below a recording's loudest band and frame: onsets are looked for down to there
SLOWEST, FASTEST, TEMPI = 50.0, 200.0, 281  # beats a minute, in steps of half a percent
FINER = 4  # lags a frame


def audio_statistics(
    logmel_NTM: Tensor, frames_N: Tensor, sample_rate: int, win_length: int, hop_length: int, longest: int
) -> Tensor:
    """STATISTICS of N recordings, float32 (N, S); NaN where there is no frame.

    Args:
        logmel_NTM: as `models.log_mel.LogMel` makes them.
        frames_N: how many frames are real; the last few are left out, which may reach beyond the recording.
        sample_rate, win_length, hop_length: of these frames, Hz and samples.
        longest: frames of the longest recording of all batches.
    """
    last_N = (frames_N - math.ceil(win_length / 2 / hop_length)).clamp(min=1)
    given_NTM = logmel_NTM[:, : max(int(last_N.max()), 2)].float()
    real_NT = torch.arange(given_NTM.shape[1], device=given_NTM.device) < last_N[:, None]
    power_NTM = (given_NTM * LOG_STD).add_(LOG_MEAN).exp_().sub_(LOG_FLOOR).clamp_(min=0)
    # The triangles add up to 1: this is Parseval's sum under a Hann window, whose squares have the mean 3/8.
    square_NT = power_NTM.sum(dim=2).double() * (2 / (3 / 8 * win_length**2)) * real_NT
    spectrum_NM = (real_NT[:, None].float() @ power_NTM).squeeze(1)
    db_NT = decibel(square_NT)
    n_N = last_N.double()
    mean_N = (db_NT * real_NT).sum(dim=1) / n_N
    deviation_NT = (db_NT - mean_N[:, None]) * real_NT
    soft_N, loud_N = quantiles(db_NT, last_N, (0.1, 0.95))
    onset_NT = onsets(given_NTM, real_NT)
    tempo_N, beat_N = tempo(onset_NT, last_N, sample_rate / hop_length, longest)
    found_NS = torch.stack(
        [
            decibel(square_NT.sum(dim=1) / n_N) / 10,
            (deviation_NT.square().sum(dim=1) / n_N).sqrt() / 10,
            (loud_N - soft_N) / 10,
            ((db_NT < SILENT) & real_NT).sum(dim=1) / n_N,
            centroid(spectrum_NM.double(), sample_rate),
            tempo_N,
            beat_N,
        ],
        dim=1,
    )
    return torch.where(frames_N[:, None] > 0, found_NS, torch.nan).float()


def decibel(square: Tensor) -> Tensor:
    """Level of mean squares, in dB re 1."""
    return (10 * square.clamp(min=1e-30).log10()).clamp(min=QUIETEST)


def quantiles(values_NT: Tensor, real_N: Tensor, shares: tuple[float, ...]) -> list[Tensor]:
    """Quantiles (N,) of the first `real` values of each row, linear between two values."""
    real_NT = torch.arange(values_NT.shape[1], device=values_NT.device) < real_N[:, None]
    sorted_NT = torch.where(real_NT, values_NT, torch.inf).sort(dim=1).values
    found = []
    for share in shares:
        place_N1 = ((real_N - 1).double() * share)[:, None]
        below_N1, above_N1 = (sorted_NT.gather(1, place.long()) for place in (place_N1.floor(), place_N1.ceil()))
        found.append(torch.lerp(below_N1, above_N1, place_N1 - place_N1.floor()).squeeze(1))
    return found


def centroid(power_NM: Tensor, sample_rate: int) -> Tensor:
    """Octaves (N,) from 1 kHz to the centre of mass of a spectrum of mel bands, each at its filter's peak."""
    top = 2595 * math.log10(1 + sample_rate / 2 / 700)
    mel_M = torch.linspace(0, top, power_NM.shape[1] + 2, dtype=torch.float64, device=power_NM.device)[1:-1]
    hertz_M = 700 * (10 ** (mel_M / 2595) - 1)
    sum_N = power_NM.sum(dim=1)
    centre_N = (power_NM @ hertz_M) / sum_N.clamp(min=1e-30)
    return torch.where(sum_N > 0, (centre_N.clamp(min=1) / 1000).log2(), 0.0)


def onsets(logmel_NTM: Tensor, real_NT: Tensor) -> Tensor:
    """Onset strength (N, T): the bands' mean rise since the frame before, as log-mel frames have it; 0 in the first."""
    top_N = logmel_NTM.amax(dim=2).masked_fill(~real_NT, -torch.inf).amax(dim=1)
    softest_N = top_N - LOUD_TO_SOFT * math.log(10) / 10 / LOG_STD
    rise_NTM = logmel_NTM.maximum(softest_N[:, None, None]).diff(dim=1).clamp_(min=0)
    return torch.nn.functional.pad(rise_NTM.mean(dim=2), (1, 0)).double() * real_NT


def tempo(onset_NT: Tensor, real_N: Tensor, per_second: float, longest: int) -> tuple[Tensor, Tensor]:
    """Tempo in octaves from 120 beats a minute, and the autocorrelation of the onsets there; 0 and 0 without a beat.

    The tempo between SLOWEST and FASTEST, two beats of which fit into the recording, at which the product of
    autocorrelation and spectrum of the onset strength is largest. The former is large at a half and a third of the
    tempo too, the latter at two and three times it: the product is at none of them (Peeters, EURASIP JASP 2007).
    """
    device, n_N1 = onset_NT.device, real_N.double()[:, None]
    real_NT = torch.arange(onset_NT.shape[1], device=device) < real_N[:, None]
    centred_NT = (onset_NT - onset_NT.sum(dim=1, keepdim=True) / n_N1) * real_NT
    size = 2 ** math.ceil(math.log2(2 * longest))
    power_NF = torch.fft.rfft(centred_NT, size).abs().square()
    steps = torch.linspace(0, 1, TEMPI, dtype=torch.float64, device=device)
    hertz_P = SLOWEST / 60 * (FASTEST / SLOWEST) ** steps
    lag_P = per_second / hertz_P
    product_NL = torch.fft.irfft(power_NF, size * FINER) * FINER
    unbiased_NP = between(product_NL, lag_P * FINER) / (n_N1 - lag_P).clamp(min=1)
    variance_N1 = product_NL[:, :1] / n_N1
    likeness_NP = (unbiased_NP / variance_N1.clamp(min=1e-30)).clamp(0, 1)
    strength_NP = likeness_NP * between(power_NF.sqrt(), hertz_P * size / per_second)
    best_N1 = torch.where(2 * lag_P <= n_N1, strength_NP, 0).argmax(dim=1, keepdim=True)
    beat_N = torch.where(2 * lag_P <= n_N1, likeness_NP, 0).gather(1, best_N1).squeeze(1)
    octaves_N = (hertz_P[best_N1.squeeze(1)] / 2).log2()
    return torch.where(beat_N > 0, octaves_N, 0.0), beat_N


def between(values_NX: Tensor, place_P: Tensor) -> Tensor:
    """Values (N, P) at fractional places, linear between two values."""
    last = values_NX.shape[1] - 1
    below_P, above_P = (place.long().clamp(max=last) for place in (place_P.floor(), place_P.ceil()))
    return torch.lerp(values_NX[:, below_P], values_NX[:, above_P], place_P - place_P.floor())
