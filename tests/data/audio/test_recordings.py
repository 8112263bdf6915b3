"""Decoding and log-mel frames: against an independent formula, and every kind of bad file."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from scipy.signal import get_window, stft

from data.audio import recordings as audio
from models import log_mel

RATE, MELS, WIN, HOP = 16000, 64, 800, 320
OPTIONS = {"sample_rate": RATE, "max_seconds": 30.0, "min_seconds": 1.0}


def noise(seconds: float, rate: int = RATE, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 0.1, round(seconds * rate)).astype(np.float32)


def tone(seconds: float, rate: int, hertz: float = 440.0) -> np.ndarray:
    return 0.5 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate).astype(np.float32)


def naive_mel(wave: np.ndarray) -> np.ndarray:
    """ln(mel + 1e-6) from the definition, in float64: scipy's STFT and triangles on the HTK scale."""
    padded = np.pad(wave.astype(np.float64), WIN // 2, mode="reflect")
    window = get_window("hann", WIN)
    _, _, spectrum_FT = stft(padded, window=window, nperseg=WIN, noverlap=WIN - HOP, boundary=None, padded=False)
    power_FT = np.abs(spectrum_FT * window.sum()) ** 2
    top = 2595 * np.log10(1 + RATE / 2 / 700)
    edges = 700 * (10 ** (np.linspace(0, top, MELS + 2) / 2595) - 1)
    hertz = np.linspace(0, RATE / 2, WIN // 2 + 1)
    filters_FM = np.stack(
        [np.interp(hertz, edges[band : band + 3], [0, 1, 0], left=0, right=0) for band in range(MELS)], axis=1
    )
    return np.log(power_FT.T @ filters_FM + 1e-6)


@pytest.mark.parametrize("wave", [noise(1.3), tone(1.0, RATE), np.zeros(RATE, dtype=np.float32)])
def test_log_mel_is_the_textbook_formula(wave: np.ndarray) -> None:
    mel = audio.log_mel(wave, RATE, MELS, WIN, HOP)
    assert mel.shape == (1 + len(wave) // HOP, MELS) and mel.dtype == np.float32
    np.testing.assert_allclose(mel, (naive_mel(wave) - log_mel.LOG_MEAN) / log_mel.LOG_STD, atol=2e-3)
    np.testing.assert_array_equal(mel, audio.log_mel(wave, RATE, MELS, WIN, HOP))


def test_decode_takes_the_middle(tmp_path: Path) -> None:
    wave = np.concatenate([np.full(n * RATE, level, dtype=np.float32) for n, level in [(3, 0.1), (2, 0.3), (3, 0.6)]])
    soundfile.write(tmp_path / "a.wav", wave, RATE, subtype="FLOAT")
    np.testing.assert_array_equal(audio.decode(tmp_path / "a.wav", RATE, 2.0), np.full(2 * RATE, 0.3, dtype=np.float32))
    np.testing.assert_array_equal(audio.decode(tmp_path / "a.wav", RATE, 60.0), wave)


@pytest.mark.parametrize("rate", [8000, 16000, 22050, 44100, 44101, 48000, 192000, 192001])
def test_any_sample_rate_gives_the_same_tone(tmp_path: Path, rate: int) -> None:
    path = tmp_path / "tone.wav"
    soundfile.write(path, np.stack([tone(2, rate), np.zeros(2 * rate)], axis=1), rate)
    wave = audio.decode(path, RATE, 30.0)
    assert abs(len(wave) - 2 * RATE) <= 2
    middle = wave[RATE // 2 : -RATE // 2]
    peak = np.abs(np.fft.rfft(middle)).argmax() * RATE / len(middle)
    assert peak == pytest.approx(440, abs=1.0)
    assert np.abs(middle).max() == pytest.approx(0.25, rel=0.02), "channels are averaged"


@pytest.fixture
def bad_files(tmp_path: Path) -> Path:
    """A folder with a file for each way a recording can be bad."""
    (tmp_path / "text.wav").write_text("this is not sound\n" * 100)
    (tmp_path / "empty.wav").write_bytes(b"")
    soundfile.write(tmp_path / "no_samples.wav", np.zeros(0), RATE)
    soundfile.write(tmp_path / "cut.flac", noise(3), RATE)
    (tmp_path / "cut.flac").write_bytes((tmp_path / "cut.flac").read_bytes()[:40_000])
    wave = noise(2)
    wave[1000] = np.nan
    soundfile.write(tmp_path / "nan.wav", wave, RATE, subtype="FLOAT")
    return tmp_path


@pytest.mark.parametrize(
    ("file", "reasons"),
    [
        ("missing.wav", {"missing"}),
        ("", {"missing"}),  # the folder itself
        ("text.wav", {"unreadable"}),
        ("empty.wav", {"unreadable"}),
        ("no_samples.wav", {"zero length"}),
        ("cut.flac", {"truncated", "unreadable"}),  # which one depends on the version of libsndfile
        ("nan.wav", {"not finite"}),
    ],
)
def test_bad_files_have_a_reason(bad_files: Path, file: str, reasons: set[str]) -> None:
    with pytest.raises(audio.AudioError) as error:
        audio.decode(bad_files / file, RATE, 30.0)
    assert error.value.reason in reasons <= audio.PROBLEMS.keys()


def test_a_sample_rate_that_nobody_records_at_is_damage(tmp_path: Path) -> None:
    """Resampling from 2,147,483,647 Hz would need 57 GB."""
    path = tmp_path / "rate.wav"
    soundfile.write(path, noise(2), RATE)
    whole = path.read_bytes()
    for rate in (audio.HIGHEST_RATE + 1, 2**31 - 1):
        path.write_bytes(whole[:24] + rate.to_bytes(4, "little") + whole[28:])
        with pytest.raises(audio.AudioError, match="unreadable"):
            audio.decode(path, RATE, 30.0)
    path.write_bytes(whole[:24] + audio.HIGHEST_RATE.to_bytes(4, "little") + whole[28:])
    assert len(audio.decode(path, RATE, 30.0)) == pytest.approx(2 * RATE * RATE / audio.HIGHEST_RATE, abs=1)


def test_a_flac_file_that_cannot_say_how_long_it_is(tmp_path: Path) -> None:
    path = tmp_path / "stream.flac"
    soundfile.write(path, noise(2), RATE)
    whole = path.read_bytes()
    path.write_bytes(whole[:21] + bytes([whole[21] & 0xF0]) + bytes(4) + whole[26:])  # 36 bits: number of samples
    with pytest.raises(audio.AudioError, match="zero length"):
        audio.decode(path, RATE, 30.0)


def test_only_what_computes_imports_torch() -> None:
    """A process that only decodes starts in a tenth of the time."""
    code = "import sys; from data.audio import recordings; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[3], check=True)


def test_cut_wav_is_used_as_far_as_it_goes(tmp_path: Path) -> None:
    path = tmp_path / "cut.wav"
    soundfile.write(path, noise(3), RATE, subtype="FLOAT")
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert len(audio.decode(path, RATE, 30.0)) == pytest.approx(1.5 * RATE, abs=100)


FORMATS = {  # name of the file → format and subtype that libsndfile writes
    "a.wav": ("WAV", "PCM_24"),
    "a.flac": ("FLAC", "PCM_16"),
    "a.aiff": ("AIFF", "PCM_16"),
    "a.ogg": ("OGG", "VORBIS"),
    "a.opus": ("OGG", "OPUS"),
    "a.mp3": ("MP3", "MPEG_LAYER_III"),
}


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_is_decoded_and_can_be_entered_anywhere(tmp_path: Path, name: str) -> None:
    """The pitch is right in the whole and in a stretch of it: tones of 300, 600 and 900 Hz, a second each."""
    kind, subtype = FORMATS[name]
    rate = 48000 if subtype == "OPUS" else 44100
    wave = np.concatenate([tone(1.0, rate, hertz) for hertz in (300, 600, 900)])
    soundfile.write(tmp_path / name, np.stack([wave, wave], axis=1), rate, format=kind, subtype=subtype)
    whole = audio.decode(tmp_path / name, RATE, 30.0)
    assert len(whole) == pytest.approx(3 * RATE, rel=0.03), "lossy formats add a little"
    middle = audio.decode(tmp_path / name, RATE, 30.0, (20000, 8000))
    for heard, hertz in ((whole[4000:12000], 300), (whole[20000:28000], 600), (whole[36000:44000], 900), (middle, 600)):
        peak = np.abs(np.fft.rfft(heard)).argmax() * RATE / len(heard)
        assert peak == pytest.approx(hertz, abs=3.0)
        assert np.abs(heard).max() == pytest.approx(0.5, abs=0.06)
    np.testing.assert_array_equal(audio.decode(io.BytesIO((tmp_path / name).read_bytes()), RATE, 30.0), whole)
    assert audio.announced(tmp_path / name, OPTIONS)[0] is None
    cut = tmp_path / f"cut_{name}"
    cut.write_bytes((tmp_path / name).read_bytes()[: (tmp_path / name).stat().st_size // 2])
    try:
        short = audio.decode(cut, RATE, 30.0)
        assert len(short) < 0.75 * len(whole), "what is left of it"
    except audio.AudioError as error:
        assert error.reason in ("truncated", "unreadable", "zero length")
