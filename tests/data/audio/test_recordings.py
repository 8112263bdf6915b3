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

from benchmarks.speed.formats import by_ffmpeg, by_soundfile
from data.audio import recordings as audio
from models import log_mel

RATE, MELS, WIN, HOP = 16000, 64, 800, 320


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
    soundfile.write(tmp_path / "holes.flac", noise(3), RATE)
    data = bytearray((tmp_path / "holes.flac").read_bytes())
    data[20_000:60_000:500] = bytes(byte ^ 0xFF for byte in data[20_000:60_000:500])
    (tmp_path / "holes.flac").write_bytes(data)
    for name, value in (("nan", np.nan), ("inf", np.inf), ("spike", 1e30), ("spike9", 9)):
        wave = noise(2)
        wave[1000] = value
        soundfile.write(tmp_path / f"{name}.wav", wave, RATE, subtype="FLOAT")
    soundfile.write(tmp_path / "huge.wav", noise(2) * 1e12, RATE, subtype="FLOAT")
    return tmp_path


@pytest.mark.parametrize(
    ("file", "reasons"),
    [
        ("missing.wav", {"missing"}),
        ("", {"missing"}),  # the folder itself
        ("text.wav", {"unreadable"}),
        ("empty.wav", {"unreadable"}),
        ("no_samples.wav", {"zero length"}),
        ("holes.flac", {"damaged"}),
        ("nan.wav", {"not finite"}),
        ("inf.wav", {"not finite"}),
        ("spike.wav", {"out of range"}),
        ("spike9.wav", {"out of range"}),
        ("huge.wav", {"out of range"}),
    ],
)
def test_bad_files_have_a_reason(bad_files: Path, file: str, reasons: set[str]) -> None:
    with pytest.raises(audio.AudioError) as error:
        audio.decode(bad_files / file, RATE, 30.0)
    assert error.value.reason in reasons <= audio.PROBLEMS.keys()


def test_every_problem_of_prepare_has_a_remedy() -> None:
    assert audio.PROBLEMS.keys() - {"too long"} == audio.REMEDIES.keys(), "prepare takes any length"


@pytest.mark.parametrize("bits", [15, 23, 31])
def test_floats_in_the_scale_of_integers_are_scaled(tmp_path: Path, bits: int) -> None:
    wave = np.clip(5 * noise(2), -1, 1)
    soundfile.write(tmp_path / "a.wav", wave * 2.0**bits, RATE, subtype="FLOAT")
    heard = audio.read(tmp_path / "a.wav", 30.0)
    assert heard.changes == ["scaled"]
    np.testing.assert_allclose(heard.wave, wave, rtol=1e-5)
    soundfile.write(tmp_path / "loud.wav", wave * 1.5, RATE, subtype="FLOAT")
    assert audio.read(tmp_path / "loud.wav", 30.0).changes == [], "a loud master is no integer"


def test_what_is_lost_within_a_recording_is_counted(tmp_path: Path) -> None:
    """Random bytes in an MP3, within what is kept of it and beyond; the rest is heard as it was."""
    wave = np.random.default_rng(0).normal(0, 0.1, (10 * RATE, 1)).astype(np.float32)
    data = by_ffmpeg(wave, "libmp3lame", "mp3", rate=RATE)
    middle, noise = len(data) // 2, np.random.default_rng(1).bytes(600)
    for name, part in (("whole", data), ("holes", data[:middle] + noise + data[middle + len(noise) :])):
        (tmp_path / name).write_bytes(part)
    whole, holes = (audio.read(tmp_path / name, 30.0) for name in ("whole", "holes"))
    assert whole.changes == [] and holes.changes == ["gaps"]
    np.testing.assert_array_equal(holes.wave[: 4 * RATE], whole.wave[: 4 * RATE])
    options = {"store": "samples", "sample_rate": RATE, "max_seconds": 30.0, "min_seconds": 1.0}
    kept = list(audio.decoded([tmp_path / "holes"], options, workers=0))
    assert kept[0].problem is None and kept[0].changes == ["gaps"]


def inverted(kind: str) -> bytes:
    """A tone whose second channel is the first one upside down, a fifth louder."""
    wave = np.stack([tone(3, 44100), -1.2 * tone(3, 44100)], axis=1)
    return {
        "wav": lambda: by_soundfile(wave, "WAV", "PCM_16"),
        "flac": lambda: by_soundfile(wave, "FLAC", "PCM_16"),
        "ogg": lambda: by_soundfile(wave, "OGG", "VORBIS"),
        "mp3": lambda: by_ffmpeg(wave, "libmp3lame", "mp3", b="192000", joint_stereo="0"),
        "m4a": lambda: by_ffmpeg(wave, "aac", "ipod"),
    }[kind]()


@pytest.mark.parametrize("kind", ["wav", "flac", "ogg", "mp3", "m4a"])
def test_channels_in_opposite_phase_are_heard(kind: str) -> None:
    """Their mean is ten times as soft as either; of coded ones that are equally loud it is the coder's noise."""
    heard = audio.read(io.BytesIO(inverted(kind)), 30.0)
    assert heard.changes == ["downmixed", "one_channel"]
    assert heard.place.mix_C == (0.0, 1.0)
    assert np.abs(heard.wave).max() == pytest.approx(0.6, abs=0.05)


@pytest.mark.parametrize("codec", ["vorbis", "opus"])
def test_treble_of_lossy_formats_does_not_hide_channels_that_cancel_out(codec: str) -> None:
    """Of a sound in opposite phase with broad-band noise their encoders keep the power of the treble, not its phase."""
    rng = np.random.default_rng(0)
    one = tone(6, 48000) * 0.5 + 0.05 * rng.standard_normal(6 * 48000).astype(np.float32)
    made = by_soundfile(np.stack([one, -one], axis=1), "OGG", codec.upper(), rate=48000)
    heard = audio.read(io.BytesIO(made), 30.0)
    assert heard.changes == ["downmixed", "one_channel"]
    assert np.sqrt(np.mean(heard.wave**2)) == pytest.approx(np.sqrt(np.mean(one**2)), rel=0.05)


@pytest.mark.parametrize("share", [-0.7, 0.0, 0.5, 1.0])
def test_channels_that_are_merely_unlike_are_averaged(share: float) -> None:
    samples_CN = np.stack([noise(2), share * noise(2)])
    mix_C, changes = audio.mix_of(samples_CN, RATE)
    assert mix_C == (0.5, 0.5) and changes == ["downmixed"]
    np.testing.assert_allclose(audio.mixed(samples_CN, mix_C), samples_CN.mean(axis=0), atol=1e-7)
    six_CN = np.zeros((6, RATE), np.float32)
    six_CN[2] = noise(1)
    assert audio.mix_of(six_CN, RATE)[1] == ["downmixed"], "one channel of six that is used"


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
    place = audio.read(tmp_path / name, 30.0).place
    middle = audio.decode_part(tmp_path / name, RATE, 30.0, place, 20000, 8000)
    for heard, hertz in ((whole[4000:12000], 300), (whole[20000:28000], 600), (whole[36000:44000], 900), (middle, 600)):
        peak = np.abs(np.fft.rfft(heard)).argmax() * RATE / len(heard)
        assert peak == pytest.approx(hertz, abs=3.0)
        assert np.abs(heard).max() == pytest.approx(0.5, abs=0.06)
    np.testing.assert_array_equal(audio.decode(io.BytesIO((tmp_path / name).read_bytes()), RATE, 30.0), whole)
    cut = tmp_path / f"cut_{name}"
    cut.write_bytes((tmp_path / name).read_bytes()[: (tmp_path / name).stat().st_size // 2])
    try:
        assert RATE / 2 < len(audio.decode(cut, RATE, 30.0)) < 0.75 * len(whole), "what is left of it"
    except audio.AudioError as error:
        assert error.reason == "unreadable" and "OGG" in kind, "its first page of sound is not whole"


@pytest.mark.parametrize("rate", [11025, 22050, 44100, 44101, 48000, 96000, 192000])
@pytest.mark.parametrize("max_seconds", [2.0, 30.0])
def test_a_part_is_the_same_as_in_the_whole(tmp_path: Path, rate: int, max_seconds: float) -> None:
    """Resampled too: what is decoded for a crop reaches as far beyond it as the filter sees."""
    soundfile.write(tmp_path / "a.wav", noise(4, rate), rate, subtype="FLOAT")
    whole, place = (
        audio.decode(tmp_path / "a.wav", RATE, max_seconds),
        audio.read(tmp_path / "a.wav", max_seconds).place,
    )
    for first, count in ((0, 999), (1, 4000), (7001, 8000), (len(whole) - 500, 500), (len(whole) - 3, 99)):
        part = audio.decode_part(tmp_path / "a.wav", RATE, max_seconds, place, first, count)
        np.testing.assert_allclose(part, whole[first : first + count], atol=2e-6, err_msg=f"{first}, {count}")
