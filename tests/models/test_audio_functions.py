"""Our mel filters and resampling: torchaudio's to the last bit, right by themselves, and enough without it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from data.audio.recordings import HIGHEST_RATE, resample
from models import audio_functions
from models.log_mel import LogMel

ROOT = Path(__file__).parents[2]
ABSENT = audio_functions.functional is audio_functions
beside_torchaudio = pytest.mark.skipif(ABSENT, reason="torchaudio does not load here")
RATES = [(44100, 16000), (48000, 16000), (16000, 44100), (22050, 16000), (8000, 16000), (11025, 48000), (32000, 16000),
         (96000, 22050), (HIGHEST_RATE, 8000), (25, 16000)]  # fmt: skip
FRAMES = (16000, 64, 800, 320)  # rate, bands, window, hop


@beside_torchaudio
@pytest.mark.parametrize("scale", [{}, {"norm": "slaney", "mel_scale": "slaney"}, {"mel_scale": "slaney"}])
@pytest.mark.parametrize(
    ("rate", "bands", "window"), [FRAMES[:3], (16000, 96, 512), (44100, 128, 2048), (11025, 9, 99)]
)
def test_mel_filters_are_those_of_torchaudio(rate: int, bands: int, window: int, scale: dict[str, str]) -> None:
    asked = (window // 2 + 1, 0, rate / 2, bands, rate)
    expected = audio_functions.functional.melscale_fbanks(*asked, **scale)
    assert torch.equal(audio_functions.melscale_fbanks(*asked, **scale), expected)


@beside_torchaudio
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("rate", "new_rate"), RATES)
def test_resampling_is_that_of_torchaudio(rate: int, new_rate: int, dtype: torch.dtype) -> None:
    rng = np.random.default_rng(0)
    for shape in [(1,), (3, 160), (2, 1, 1001), (rate + 7,)]:
        wave = torch.from_numpy(rng.uniform(-1, 1, shape)).to(dtype)
        expected = audio_functions.functional.resample(wave, rate, new_rate)
        found = audio_functions.resample(wave, rate, new_rate)
        assert found.dtype == dtype and torch.equal(found, expected)


@beside_torchaudio
def test_power_is_that_of_torchaudio() -> None:
    made, wave = LogMel(*FRAMES), torch.rand(3, 5000) * 2 - 1
    power = audio_functions.functional.spectrogram(wave, 0, made.window, 800, 320, 800, 2.0, False)
    assert torch.equal(made.power(wave), power.transpose(1, 2) @ made.filters_FM)


@pytest.mark.parametrize(("rate", "new_rate"), RATES[:8])
def test_a_tone_stays_a_tone_and_what_the_new_rate_cannot_hold_goes(rate: int, new_rate: int) -> None:
    def tone(hertz: float, at: int) -> torch.Tensor:
        return torch.from_numpy(np.sin(2 * np.pi * hertz * np.arange(at) / at).astype(np.float32))

    low = audio_functions.resample(tone(440, rate), rate, new_rate)
    assert len(low) == new_rate
    inside = slice(new_rate // 10, -new_rate // 10)  # the ends meet silence
    torch.testing.assert_close(low[inside], tone(440, new_rate)[inside], atol=3e-3, rtol=0)
    if new_rate < 0.6 * rate:
        high = audio_functions.resample(tone(0.75 * new_rate, rate), rate, new_rate)
        assert high[inside].abs().max() < 0.01


@pytest.mark.parametrize(("scale", "to_mel"), [
    ("htk", lambda f: 2595 * np.log10(1 + f / 700)),
    ("slaney", lambda f: np.where(f < 1000, 3 * f / 200, 15 + 27 * np.log(np.maximum(f, 1) / 1000) / np.log(6.4))),
])  # fmt: skip
def test_mel_filters_are_triangles_evenly_spaced_on_the_scale(scale: str, to_mel: object) -> None:
    found = audio_functions.melscale_fbanks(4001, 0, 8000, 30, 16000, mel_scale=scale).numpy()
    mel = to_mel(np.linspace(0, 8000, 4001))  # type: ignore[operator]
    np.testing.assert_allclose(mel[found.argmax(axis=0)], np.linspace(mel[0], mel[-1], 32)[1:-1], atol=2 * 3.3)
    np.testing.assert_allclose(found.max(axis=0), 1, atol=0.05)
    np.testing.assert_allclose(found[(mel > mel[-1] / 31) & (mel < mel[-1] * 30 / 31)].sum(axis=1), 1, atol=1e-3)
    area = audio_functions.melscale_fbanks(4001, 0, 8000, 30, 16000, norm="slaney", mel_scale=scale).sum(dim=0)
    np.testing.assert_allclose(area * 2, 1, atol=0.01)  # bins are 2 Hz apart


WITHOUT = """
import sys
import numpy as np, torch
from data.audio.recordings import resample
from models import audio_functions
from models.log_mel import LogMel
assert audio_functions.functional is audio_functions
wave = resample(np.load("wave.npy"), 44100, 16000)
np.savez("found.npz", wave=wave, logmel=LogMel(*map(int, sys.argv[1:]))(torch.from_numpy(wave)[None]))
axes = ({0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC},)
program = torch.export.export(LogMel(*map(int, sys.argv[1:])), (torch.rand(2, 9000),), dynamic_shapes=axes)
torch.export.save(program, "log_mel.pt2")
"""


@pytest.mark.parametrize("error", ["ImportError('not installed')", "OSError('cannot open libc10_cuda.so')"])
def test_without_torchaudio_samples_frames_and_programs_are_the_same(error: str, tmp_path: Path) -> None:
    """torchaudio's place is taken by a package that fails on import as the real one does beside another build."""
    (tmp_path / "torchaudio").mkdir()
    (tmp_path / "torchaudio" / "__init__.py").write_text(f"raise {error}\n")
    wave = np.random.default_rng(0).uniform(-1, 1, 60000).astype(np.float32)
    np.save(tmp_path / "wave.npy", wave)
    search = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}
    argv = [sys.executable, "-c", WITHOUT, *map(str, FRAMES)]
    subprocess.run(argv, cwd=tmp_path, env=search, check=True, timeout=200)
    found, expected = np.load(tmp_path / "found.npz"), resample(wave, 44100, 16000)
    np.testing.assert_array_equal(found["wave"], expected)
    logmel = LogMel(*FRAMES)(torch.from_numpy(expected)[None])
    np.testing.assert_allclose(found["logmel"], logmel, atol=1e-5)
    program = torch.export.load(tmp_path / "log_mel.pt2").module()
    torch.testing.assert_close(program(torch.from_numpy(expected)[None]), logmel)
