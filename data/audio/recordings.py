"""From a recording to samples and log-mel frames. The only module that decodes audio.

Files of any sample rate and channel count are taken (resampled, down-mixed, both counted); a file that gives no usable
sound is reported with one of `PROBLEMS` and its song goes on without audio.

torch is imported by the functions that need it: a process that only decodes starts in a tenth of the time and memory.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import soundfile
from tqdm import tqdm

from data.arrays import AnyArray, FloatArray

if TYPE_CHECKING:
    from models.log_mel import LogMel

# reason → meaning, as `prepare` reports it
PROBLEMS = {
    "missing": "no such file",
    "unreadable": "not audio, damaged, or a format that libsndfile does not know",
    "zero length": "the file holds no samples, or cannot say how many (an Ogg file that was cut short)",
    "truncated": "fewer samples can be decoded than the file announces",
    "not finite": "NaN or infinite samples",
    "silent": "nothing above -80 dB of full scale",
    "too short": "shorter than audio.min_seconds",
    "too long": "announces more than the longest recording that is taken",
}
SILENCE = 1e-4  # peak, as a share of full scale (-80 dB)
CHUNK = 8  # files decoded ahead by each worker
HIGHEST_RATE = 768_000  # Hz; a header that announces more is damaged
UNKNOWN = 2**63 - 1  # libsndfile's number of frames of a file that cannot say how many


class AudioError(Exception):
    """A recording that cannot be used; `reason` is a key of `PROBLEMS`."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def decode(
    file: Path | BinaryIO, sample_rate: int, max_seconds: float, part: tuple[int, int] | None = None
) -> FloatArray:
    """The middle `max_seconds` of a recording as mono float32 samples in about [-1, 1] at `sample_rate` Hz.

    `part`: only the samples from a first one on, and their number. No more of the file is decoded. Silence is returned
    as it is.

    Raises:
        AudioError: missing, unreadable, zero length, truncated, not finite.
    """
    wave, rate, _ = read(file, max_seconds, part and (*part, sample_rate))
    return resample(wave, rate, sample_rate)


def log_mel(wave: FloatArray, sample_rate: int, n_mels: int, win_length: int, hop_length: int) -> FloatArray:
    """Log-mel frames of one wave, float32 (1 + samples // hop_length, n_mels), by `models.log_mel.LogMel`."""
    import torch

    found: FloatArray = _log_mel(sample_rate, n_mels, win_length, hop_length)(torch.from_numpy(wave)[None])[0].numpy()
    return found


def step_type(options: dict[str, Any]) -> tuple[np.dtype[Any], int]:
    """Type and width of a step along time: a log-mel frame (store=logmel), else one 16-bit sample."""
    logmel = options["store"] == "logmel"
    return (np.dtype(np.float16), int(options["n_mels"])) if logmel else (np.dtype(np.int16), 1)


def to_steps(wave: FloatArray, options: dict[str, Any]) -> AnyArray:
    """What is kept of a recording's samples: log-mel frames (T, M) or samples (L, 1), of the type of `step_type`."""
    if options["store"] != "logmel":
        return as_int16(wave)[:, None]
    shape = [int(options[name]) for name in ("sample_rate", "n_mels", "win_length", "hop_length")]
    return log_mel(wave, *shape).astype(step_type(options)[0])


def announced(path: Path, options: dict[str, Any]) -> tuple[str | None, int]:
    """Read from a file's header its problem (a key of `PROBLEMS`) or None, and how many samples `decode` will give."""
    try:
        file = soundfile.info(path) if path.is_file() else None
    except (soundfile.SoundFileError, RuntimeError, TypeError, ValueError, OSError):
        return "unreadable", 0
    if file is None or not file.frames:
        return ("missing" if file is None else "zero length"), 0
    seconds = min(file.frames / file.samplerate, options["max_seconds"])
    return ("too short", 0) if seconds < options["min_seconds"] else (None, int(seconds * options["sample_rate"]))


def decoded(
    paths: list[Path], options: dict[str, Any], workers: int
) -> Iterator[tuple[str | None, AnyArray, list[str]]]:
    """Every recording in order: (key of `PROBLEMS` or None, its frames (T, M) or samples (L, 1), what was changed).

    Args:
        paths: files.
        options: store, sample_rate, max_seconds, min_seconds; with store=logmel also n_mels, win_length and hop_length
            (configs/data.py: AudioConfig).
        workers: decoding processes of one thread each (0: in this process), CHUNK files ahead.
    """
    from torch.utils.data import DataLoader

    dataset: Any = paths  # DataLoader asks no more of a dataset than to be a sequence
    workers = min(workers, len(paths))
    ahead = CHUNK if workers else None
    kept = partial(_kept, options=options)  # run by the workers
    loader = DataLoader(dataset, batch_size=None, num_workers=workers, prefetch_factor=ahead, collate_fn=kept)
    return iter(tqdm(loader, "audio", unit="file", disable=not paths))


def _kept(path: Path, options: dict[str, Any]) -> tuple[str | None, AnyArray, list[str]]:
    sample_rate, changes = options["sample_rate"], list[str]()
    dtype, width = step_type(options)
    window = int(options["win_length"]) if options["store"] == "logmel" else 1
    try:
        wave, rate, channels = read(path, options["max_seconds"])
        changes = ["downmixed"] * (channels > 1) + ["resampled"] * (rate != sample_rate)
        wave = resample(wave, rate, sample_rate)
        check(wave, max(options["min_seconds"] * sample_rate, window, 1))
    except AudioError as error:
        return error.reason, np.empty((0, width), dtype), changes
    return None, to_steps(wave, options), changes


def as_int16(wave: FloatArray) -> AnyArray:
    """Samples in [-1, 1] as 16-bit numbers; what is beyond is clipped."""
    from models.audio_front import FULL_SCALE

    return np.rint(np.clip(wave * FULL_SCALE, -FULL_SCALE, FULL_SCALE - 1)).astype(np.int16)


def check(wave: FloatArray, min_samples: float) -> None:
    """Refuse a wave that is not worth keeping.

    Raises:
        AudioError: too short (fewer than `min_samples`, which is at least 1), silent.
    """
    if len(wave) < min_samples:
        raise AudioError("too short")
    if np.abs(wave).max() < SILENCE:
        raise AudioError("silent")


def read(
    file: Path | BinaryIO,
    max_seconds: float,
    part: tuple[int, int, int] | None = None,
    longest_seconds: float = math.inf,
) -> tuple[FloatArray, int, int]:
    """What `decode` resamples: mono samples at the file's own rate, that rate, and its number of channels.

    The middle `max_seconds` of a path or of a binary stream that can seek; of them `part`: first sample, number of
    samples, and the rate at which these are counted. A file that announces more than `longest_seconds` is not decoded.

    Raises:
        AudioError: as `decode`; too long.
    """
    if isinstance(file, Path) and not file.is_file():
        raise AudioError("missing")
    try:
        with soundfile.SoundFile(file) as sound:
            rate, whole = sound.samplerate, sound.frames
            if rate > HIGHEST_RATE:
                raise AudioError("unreadable")
            if whole in (0, UNKNOWN):
                raise AudioError("zero length")
            if whole > longest_seconds * rate:
                raise AudioError("too long")
            wanted = min(whole, round(max_seconds * rate))
            start = (whole - wanted) // 2
            if part is not None:
                first, last = (min(round(at * rate / part[2]), wanted) for at in (part[0], part[0] + part[1]))
                start, wanted = start + first, last - first
            sound.seek(start)
            samples_NC = sound.read(wanted, dtype="float32", always_2d=True)
    except (soundfile.SoundFileError, RuntimeError, TypeError, ValueError, OSError) as error:
        raise AudioError("unreadable") from error
    if len(samples_NC) < 0.95 * wanted:  # compressed formats may announce a few samples too many
        raise AudioError("truncated")
    wave = samples_NC.mean(axis=1)
    if not np.isfinite(wave).all():
        raise AudioError("not finite")
    return wave, rate, samples_NC.shape[1]


def resample(wave: FloatArray, rate: int, sample_rate: int) -> FloatArray:
    """Samples at `rate` Hz (1 … HIGHEST_RATE) as samples at `sample_rate` Hz."""
    # The filter bank grows with rate / gcd: an odd rate such as 44,101 Hz would need gigabytes. Rounding the rate to
    # 25 Hz (200 Hz from 100 kHz up) leaves every usual one as it is and moves the others by less than a fiftieth of a
    # semitone from 11 kHz up.
    step = 25 if rate < 100_000 else 200
    rate = max(step * round(rate / step), step)
    if rate == sample_rate:
        return wave
    import torch
    import torchaudio

    # The plans that oneDNN keeps, one for each length, would fill 300 MB: whole seconds, so that there are few lengths.
    seconds = torch.from_numpy(np.pad(wave, (0, -len(wave) % rate)))
    length = int(np.ceil(np.float32(sample_rate * len(wave) / rate)))  # as torchaudio has it
    return torchaudio.functional.resample(seconds, rate, sample_rate)[:length].numpy()


@lru_cache(maxsize=4)
def _log_mel(sample_rate: int, n_mels: int, win_length: int, hop_length: int) -> LogMel:
    from models.log_mel import LogMel

    return LogMel(sample_rate, n_mels, win_length, hop_length)
