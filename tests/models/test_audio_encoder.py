"""Statistics of a crop against loops, and what of a recording the encoder hears."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch

from models.audio_encoder import SCALES, STATISTIC_MEAN, STATISTIC_STD, AudioEncoder, mel_statistics

BANDS = 3


def naive(frames: np.ndarray) -> list[list[float]]:
    """Statistics of one crop's real frames (T, M), band by band."""
    rows = [[float(np.mean(band)) for band in frames.T], [float(np.std(band)) for band in frames.T]]
    for scale in SCALES:
        row = []
        for band in frames.T:
            means = [np.mean(band[at : at + scale]) for at in range(0, len(band) - scale + 1, scale)]
            change = [after - before for before, after in pairwise(means)]
            row.append(float(np.std(change)) if change else 0.0)
        rows.append(row)
    return rows


@pytest.mark.parametrize("width", [1, 7, 64, 130])
def test_statistics_are_the_loops_whatever_the_padding(width: int) -> None:
    lengths = [one for one in (1, 2, 7, 8, 31, 63, 64, 100, 130) if one <= width]
    x = torch.randn(len(lengths), width, BANDS, generator=torch.Generator().manual_seed(0)) * 2 + 1
    found = mel_statistics(x, torch.tensor(lengths))
    assert found.shape == (len(lengths), 2 + len(SCALES), BANDS) == (len(lengths), len(STATISTIC_MEAN), BANDS)
    for row, length in enumerate(lengths):
        np.testing.assert_allclose(found[row], naive(x[row, :length].numpy()), atol=1e-4)


def test_no_frame_and_no_change_have_finite_statistics_and_slopes() -> None:
    x = torch.ones(2, 70, BANDS, requires_grad=True)
    found = mel_statistics(x, torch.tensor([70, 0]))
    found.sum().backward()
    assert x.grad is not None and torch.isfinite(found).all() and torch.isfinite(x.grad).all()
    assert found[0, 0].tolist() == [1.0] * BANDS and found[1].abs().max() < 1e-5 and not x.grad[1].any()


def test_half_precision_comes_in_and_float_goes_out() -> None:
    x = torch.randn(1, 40, BANDS).half()
    exact = mel_statistics(x.double(), torch.tensor([40]))
    assert exact.dtype == torch.float32
    torch.testing.assert_close(mel_statistics(x, torch.tensor([40])), exact)


def test_level_reaches_the_vector_by_the_statistics_alone() -> None:
    """A louder master is the same to the Transformer, and order is nothing to the mean and spread of a band."""
    torch.manual_seed(0)
    encoder = AudioEncoder(n_mels=10, width=16, layers=2, heads=2, dropout=0.1).eval()
    x, frames = torch.randn(1, 40, 10), torch.tensor([40])

    def both(logmel: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        middle, spread = torch.tensor(STATISTIC_MEAN)[:, None], torch.tensor(STATISTIC_STD)[:, None]
        summary = encoder.statistics(((mel_statistics(logmel, frames) - middle) / spread).flatten(1))
        return encoder(logmel, frames) - summary, summary

    (heard, measured), (heard_louder, measured_louder), (backwards, _) = both(x), both(3 * x + 2), both(x.flip(1))
    torch.testing.assert_close(heard_louder, heard, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(measured_louder, measured, atol=0.1)
    assert not torch.allclose(backwards, heard, atol=1e-3)
