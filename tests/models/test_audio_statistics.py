"""Tempo and loudness statistics of waves whose answers are known, against closed forms and loops."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from data.arrays import FloatArray
from models.audio_statistics import QUIETEST, STATISTICS, audio_statistics, quantiles
from models.log_mel import LogMel

RATE, FRAMES = 16000, (64, 800, 320)
LONGEST = 1500


def logmel(wave: FloatArray, rate: int = RATE, frames: tuple[int, int, int] = FRAMES) -> torch.Tensor:
    return LogMel(rate, *frames)(torch.from_numpy(wave.astype(np.float32))[None])[0]


def of(*waves: FloatArray, rate: int = RATE, frames: tuple[int, int, int] = FRAMES) -> list[dict[str, float]]:
    """The statistics of waves of any lengths, in one batch; what is missing is zero, as in crops."""
    made = [logmel(wave, rate, frames) for wave in waves]
    batch = torch.nn.utils.rnn.pad_sequence(made, batch_first=True)
    found = audio_statistics(batch, torch.tensor([len(one) for one in made]), rate, *frames[1:], LONGEST)
    assert found.dtype == torch.float32
    return [dict(zip(STATISTICS, row, strict=True)) for row in found.tolist()]


def sine(hertz: float, amplitude: float, seconds: float, rate: int = RATE) -> FloatArray:
    return amplitude * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)


def clicks(beats_a_minute: float, seconds: float, rng: np.random.Generator, rate: int = RATE) -> FloatArray:
    """Short bursts of noise, from a random moment on."""
    wave = np.zeros(round(seconds * rate) + rate)
    first, step = rng.random() * 60 / beats_a_minute, 60 / beats_a_minute
    for at in np.arange(first, seconds, step):
        burst = slice(round(at * rate), round(at * rate) + rate // 20)
        wave[burst] += rng.normal(0, 0.3, rate // 20) * np.exp(-np.arange(rate // 20) / (rate / 160))
    return wave[: round(seconds * rate)]


def beats_a_minute(found: dict[str, float]) -> float:
    return float(120 * 2 ** found["tempo"])


@pytest.mark.parametrize(("seconds", "tolerance"), [(5.0, 0.02), (30.0, 0.01)])
def test_the_tempo_of_click_tracks(seconds: float, tolerance: float) -> None:
    rng, tempi = np.random.default_rng(0), np.arange(60, 181, 3)
    found = of(*(clicks(tempo, seconds, rng) for tempo in tempi))
    np.testing.assert_allclose([beats_a_minute(one) for one in found], tempi, rtol=tolerance)
    assert min(one["beat"] for one in found) > 0.7


def test_the_tempo_in_noise_and_at_other_rates() -> None:
    rng = np.random.default_rng(1)
    tempi = (67, 93, 120, 174)
    noisy = of(*(clicks(tempo, 20, rng) + rng.normal(0, 0.01, 20 * RATE) for tempo in tempi))
    np.testing.assert_allclose([beats_a_minute(one) for one in noisy], tempi, rtol=0.01)
    other = of(*(clicks(tempo, 12, rng, 22050) for tempo in tempi), rate=22050, frames=(96, 1024, 256))
    np.testing.assert_allclose([beats_a_minute(one) for one in other], tempi, rtol=0.01)
    without = of(*(rng.normal(0, 0.1, 20 * RATE) for _ in range(8)), sine(440, 0.3, 20))
    assert max(one["beat"] for one in without) < 0.3 < min(one["beat"] for one in noisy)


def test_level_and_centroid_of_sines() -> None:
    sines = [(hertz, amplitude) for hertz in (100, 440, 1000, 5000) for amplitude in (1.0, 0.3, 0.01)]
    for (hertz, amplitude), found in zip(sines, of(*(sine(*one, 3) for one in sines)), strict=True):
        assert found["level"] == pytest.approx(np.log10(amplitude**2 / 2), abs=0.003), "in 10 dB"
        assert found["centroid"] == pytest.approx(np.log2(hertz / 1000), abs=0.06), "a band's width"
        assert found["spread"] < 0.01 and found["range"] < 0.01 and found["silence"] == 0


def test_a_louder_recording_differs_in_level_and_silence_alone() -> None:
    rng = np.random.default_rng(2)
    wave = clicks(100, 6, rng) + sine(300, 0.05, 6) * np.linspace(0.1, 1, 6 * RATE)
    soft, loud = of(0.2 * wave, wave)
    assert loud.pop("level") - soft.pop("level") == pytest.approx(2 * np.log10(5), abs=1e-3)
    assert loud.pop("silence") < soft.pop("silence")
    assert loud == pytest.approx(soft, abs=5e-3)


def test_parts_of_a_recording() -> None:
    """A loud, a soft and a silent third: level, share and range of three levels."""
    third = 4 * RATE
    found = of(np.concatenate([sine(1000, 0.5, 4), sine(1000, 0.05, 4), np.zeros(third)]))[0]
    levels = np.array([20 * np.log10(0.5) - 3.0103, 20 * np.log10(0.05) - 3.0103, QUIETEST]) / 10
    assert found["level"] == pytest.approx(np.log10(np.mean([0.5**2 / 2, 0.05**2 / 2, 0])), abs=0.01)
    assert found["silence"] == pytest.approx(1 / 3, abs=0.01)
    assert found["spread"] == pytest.approx(levels.std(), abs=0.05)
    assert found["range"] == pytest.approx(levels[0] - levels[2], abs=0.05)


def test_silence_has_finite_numbers() -> None:
    silent = of(np.zeros(3 * RATE))[0]
    assert silent == dict.fromkeys(STATISTICS, 0.0) | {"level": QUIETEST / 10, "silence": 1.0}


@pytest.mark.parametrize("samples", [800, 1119, 1120, 1600, 8000])
def test_a_short_recording_has_finite_numbers_and_no_tempo_below_two_beats(samples: int) -> None:
    found = of(clicks(240, samples / RATE, np.random.default_rng(3)) + sine(500, 0.1, samples / RATE))[0]
    assert np.isfinite(list(found.values())).all()
    slowest = 2 * 60 * RATE / samples
    assert beats_a_minute(found) >= slowest or (found["tempo"], found["beat"]) == (0, 0)


def test_a_recording_is_measured_alone() -> None:
    rng = np.random.default_rng(4)
    waves = [clicks(tempo, seconds, rng) for tempo, seconds in ((70, 9), (130, 2), (100, 4), (60, 0.1), (150, 25))]
    for together, wave in zip(of(*waves), waves, strict=True):
        assert together == pytest.approx(of(wave)[0], abs=1e-5)
    none = audio_statistics(torch.zeros(2, 9, 64), torch.tensor([0, 9]), RATE, *FRAMES[1:], LONGEST)
    assert torch.isnan(none).all(dim=1).tolist() == [True, False]


def test_quantiles_against_numpy() -> None:
    rng = np.random.default_rng(5)
    values, real = torch.from_numpy(rng.normal(size=(20, 30))), torch.from_numpy(rng.integers(1, 31, 20))
    found = quantiles(values, real, (0.1, 0.5, 0.95))
    expected = [np.quantile(row[:n], (0.1, 0.5, 0.95)) for row, n in zip(values.numpy(), real.tolist(), strict=True)]
    np.testing.assert_allclose(torch.stack(found, dim=1).numpy(), expected)
