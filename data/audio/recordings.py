"""From a recording to samples and log-mel frames.

Files of any sample rate and channel count are taken. What is done to them on the way is counted (`CHANGES`). A file
that gives no usable sound is reported with one of `PROBLEMS`, and its song goes on without audio.

torch is imported by the functions that need it: a process that only decodes starts in a tenth of the time and memory.

Shapes: C channels, N samples.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from tqdm import tqdm

from configs.errors import UserError
from data.arrays import AnyArray, FloatArray
from data.audio.sound_files import HIGHEST_RATE, AudioError, opened

if TYPE_CHECKING:
    from models.log_mel import LogMel

__all__ = ["HIGHEST_RATE", "AudioError"]

# reason → meaning and, below, what to do; `prepare` reports both, the service the meaning
PROBLEMS = {
    "missing": "no such file",
    "unreadable": "not audio, damaged at its beginning, protected, or of a format that FFmpeg does not know",
    "zero length": "the file holds no samples",
    "damaged": "a part that is needed cannot be decoded",
    "not finite": "NaN or infinite samples",
    "out of range": "single samples far beyond full scale",
    "silent": "nothing above -80 dB of full scale",
    "too short": "shorter than audio.min_seconds",
    "too long": "longer than the longest recording that is taken",
}
REMEDIES = {
    "missing": "correct audio_path, or put the file there",
    "unreadable": "get the file again, or convert it to FLAC",
    "zero length": "get the file again",
    "damaged": "get the file again",
    "not finite": "write the file again from its source",
    "out of range": "write the file again from its source",
    "silent": "check that it is the right file",
    "too short": "lower audio.min_seconds if it is a song",
}
# what is done to a recording → meaning; beyond what is USUAL, `prepare` notes it
CHANGES = {
    "resampled": "have another sample rate",
    "downmixed": "have several channels",
    "one_channel": "cancel out when their channels are averaged: the loudest channel is taken alone",
    "scaled": "hold integers as floating-point samples: divided by their full scale",
    "cut_short": "are cut short: what is there is used",
    "gaps": "have parts within that cannot be decoded: the rest is used",
}
USUAL = ("resampled", "downmixed")
SILENCE = 1e-4  # peak, as a share of full scale (-80 dB)
LOUDEST = 8.0  # peak, as a multiple of full scale: lossy formats overshoot, but not by 18 dB
FULL_SCALES = [2.0**bits for bits in (7, 15, 23, 31)]  # of integers
FILTER = 7  # half the width of the resampling filter, in samples of the lower rate
TREBLE = 5500  # Hz
LOST = 0.01  # power of the channels' mean, as a share of the loudest channel's, below which they cancel out
CHUNK = 8  # files decoded ahead by each worker
Bring = Callable[[Any], AbstractContextManager[Path]]


@dataclass(frozen=True)
class Place:
    """What is heard of a file: from which sample on, at the file's own rate, and the weights of its channels."""

    start: int
    mix_C: tuple[float, ...]


@dataclass(frozen=True)
class Heard:
    """Mono samples of a recording at its own rate, where they are, and what was done (keys of CHANGES)."""

    wave: FloatArray
    rate: int
    place: Place
    changes: list[str]


@dataclass(frozen=True)
class Kept:
    """What is kept of a recording: its problem (a key of PROBLEMS) or its frames (T, M), samples (L, 1) or (L, 0).

    `length` counts frames or samples, `content` is a checksum of them.
    """

    problem: str | None
    steps: AnyArray
    changes: list[str] = field(default_factory=list)
    place: Place = Place(0, ())
    content: int = 0


def decode(file: Path | BinaryIO, sample_rate: int, max_seconds: float) -> FloatArray:
    """The middle `max_seconds` of a recording as mono float32 samples in about [-1, 1] at `sample_rate` Hz.

    Silence is returned as it is.

    Raises:
        AudioError: missing, unreadable, zero length, damaged, not finite, out of range.
    """
    heard = read(file, max_seconds)
    return resample(heard.wave, heard.rate, sample_rate)


def decode_part(file: Path, sample_rate: int, max_seconds: float, place: Place, first: int, count: int) -> FloatArray:
    """`count` samples from `first` on of what `decode` gives, without decoding more of the file than they need.

    Raises:
        AudioError: as `decode`.
    """
    with opened(file) as sound:
        end, old, new, margin = round(max_seconds * sound.rate), 1, 1, 0
        rounded = _rounded(sound.rate)
        if rounded != sample_rate:  # whole periods of the filter bank, and what it sees beside them
            step = math.gcd(rounded, sample_rate)
            old, new = rounded // step, sample_rate // step
            margin = 2 + math.ceil(FILTER * old / min(old, new)) // old
        block = max(first // new - margin, 0)
        at, until = block * old, min((-(-(first + count) // new) + margin) * old, end)
        samples_CN = sound.read(place.start + at, max(until - at, 0))
    if len(samples_CN) != len(place.mix_C):
        raise AudioError("damaged")  # another file by now
    wave = resample(mixed(samples_CN, place.mix_C), sound.rate, sample_rate)
    return wave[first - block * new :][:count]


def log_mel(wave: FloatArray, sample_rate: int, n_mels: int, win_length: int, hop_length: int) -> FloatArray:
    """Log-mel frames of one wave, float32 (1 + samples // hop_length, n_mels), by `models.log_mel.LogMel`."""
    import torch

    found: FloatArray = _log_mel(sample_rate, n_mels, win_length, hop_length)(torch.from_numpy(wave)[None])[0].numpy()
    return found


def step_type(options: dict[str, Any]) -> tuple[np.dtype[Any], int]:
    """Type and width of a kept step along time: a log-mel frame, a 16-bit sample, or nothing (store=files)."""
    if options["store"] == "logmel":
        return np.dtype(np.float16), int(options["n_mels"])
    return np.dtype(np.int16), int(options["store"] == "samples")


def to_steps(wave: FloatArray, options: dict[str, Any]) -> AnyArray:
    """What is kept of a recording's samples: log-mel frames (T, M) or samples (L, 1), of the type of `step_type`."""
    if options["store"] != "logmel":
        return as_int16(wave)[:, None]
    shape = [int(options[name]) for name in ("sample_rate", "n_mels", "win_length", "hop_length")]
    return log_mel(wave, *shape).astype(step_type(options)[0])


def decoded(
    files: Sequence[Path | str], options: dict[str, Any], workers: int, bring: Bring = nullcontext
) -> Iterator[Kept]:
    """Every recording in order.

    Args:
        files: paths, or what `bring` makes a path of.
        options: store, sample_rate, max_seconds, min_seconds; with store=logmel also n_mels, win_length and hop_length
            (configs/data.py: AudioConfig).
        workers: decoding processes of one thread each (0: in this process), CHUNK files ahead.
        bring: gives a file as a path on disk until it is decoded.

    Raises:
        UserError: of `bring`.
    """
    from torch.utils.data import DataLoader

    dataset: Any = files  # DataLoader asks no more of a dataset than to be a sequence
    workers = min(workers, len(files))
    ahead = CHUNK if workers else None
    how = "spawn" if workers and bring is not nullcontext else None  # a client of an object store survives no fork
    kept = partial(_kept, options=options, bring=bring)  # run by the workers
    loader = DataLoader(
        dataset,
        batch_size=None,
        num_workers=workers,
        prefetch_factor=ahead,
        collate_fn=kept,
        multiprocessing_context=how,
    )
    for one in tqdm(loader, "audio", unit="file", disable=not files):
        if isinstance(one, UserError):
            raise one
        yield one


def _kept(file: Path | str, options: dict[str, Any], bring: Bring) -> Kept | UserError:
    sample_rate, changes = options["sample_rate"], list[str]()
    dtype, width = step_type(options)
    window = int(options["win_length"]) if options["store"] == "logmel" else 1
    try:
        with bring(file) as path:
            heard = read(path, options["max_seconds"])
        changes = heard.changes + ["resampled"] * (heard.rate != sample_rate)
        wave = resample(heard.wave, heard.rate, sample_rate)
        check(wave, max(options["min_seconds"] * sample_rate, window))
    except AudioError as error:
        return Kept(error.reason, np.empty((0, width), dtype), changes)
    except UserError as error:  # returned: a worker's exceptions come with its traceback as their text
        return error
    steps = to_steps(wave, options)
    content = zlib.crc32(steps.tobytes())
    return Kept(None, steps[:, :width], changes, heard.place, content)


def as_int16(wave: FloatArray) -> AnyArray:
    """Samples in [-1, 1] as 16-bit numbers; what is beyond is clipped."""
    from models.audio_front import FULL_SCALE

    return np.rint(np.clip(wave * FULL_SCALE, -FULL_SCALE, FULL_SCALE - 1)).astype(np.int16)


def check(wave: FloatArray, min_samples: float) -> None:
    """Refuse a wave that is not worth keeping.

    Raises:
        AudioError: too short (fewer than `min_samples`, or none), silent.
    """
    if len(wave) < max(min_samples, 1):
        raise AudioError("too short")
    if np.abs(wave).max() < SILENCE:
        raise AudioError("silent")


def read(file: Path | BinaryIO, max_seconds: float, longest_seconds: float = math.inf) -> Heard:
    """What `decode` resamples: the middle `max_seconds` of a path or of a binary stream that can seek.

    Raises:
        AudioError: as `decode`; too long: of more than `longest_seconds`.
    """
    with opened(file, longest_seconds) as sound:
        wanted = min(sound.length, round(max_seconds * sound.rate))
        start = (sound.length - wanted) // 2
        samples_CN = sound.read(start, wanted)
        changes = ["cut_short"] * sound.is_cut + ["gaps"] * sound.has_gaps
    mix_C, made = mix_of(samples_CN, sound.rate)
    return Heard(mixed(samples_CN, mix_C), sound.rate, Place(start, mix_C), changes + made)


def mix_of(samples_CN: FloatArray, rate: int) -> tuple[tuple[float, ...], list[str]]:
    """The weights by which channels become one with full scale 1, and what was special (keys of CHANGES).

    Whether channels cancel out is asked below TREBLE: of what is above, lossy formats keep the power and not the phase.

    Raises:
        AudioError: not finite, out of range.
    """
    channels, changes = len(samples_CN), list[str]()
    if not samples_CN.size:
        return (1 / channels,) * channels, changes
    peak, scale = float(max(samples_CN.max(), -samples_CN.min())), 1.0
    if not math.isfinite(peak):
        raise AudioError("not finite")
    if peak > LOUDEST:
        fits = [1 / full for full in FULL_SCALES if peak <= full]
        if not fits or np.mean(np.abs(samples_CN) > 1) < 0.01:
            raise AudioError("out of range")
        scale, changes = fits[0], ["scaled"]
    mean_C = (scale / channels,) * channels
    if channels > 1:
        changes.append("downmixed")
        step = max(1, round(rate / (2 * TREBLE)))
        bass_CN = samples_CN[:, : samples_CN.shape[1] // step * step].reshape(channels, -1, step).mean(axis=2)
        power_C = [float(np.dot(bass_N, bass_N)) for bass_N in bass_CN]
        wave = bass_CN.mean(axis=0)
        if float(np.dot(wave, wave)) < LOST * max(power_C):
            loudest = int(np.argmax(power_C))
            return tuple(scale * (channel == loudest) for channel in range(channels)), [*changes, "one_channel"]
    return mean_C, changes


def mixed(samples_CN: FloatArray, mix_C: Sequence[float]) -> FloatArray:
    """One channel of several, each with its weight."""
    wave = np.zeros(samples_CN.shape[1], np.float32)
    for samples_N, weight in zip(samples_CN, mix_C, strict=True):
        if weight:
            wave += samples_N * np.float32(weight)
    return wave


def resample(wave: FloatArray, rate: int, sample_rate: int) -> FloatArray:
    """Samples at `rate` Hz (1 … HIGHEST_RATE) as samples at `sample_rate` Hz."""
    rate = _rounded(rate)
    if rate == sample_rate:
        return wave
    import torch

    from models.audio_functions import functional

    # The plans that oneDNN keeps, one for each length, would fill 300 MB: whole seconds, so that there are few lengths.
    seconds = torch.from_numpy(np.pad(wave, (0, -len(wave) % rate)))
    length = int(np.ceil(np.float32(sample_rate * len(wave) / rate)))  # as torchaudio has it
    return functional.resample(seconds, rate, sample_rate)[:length].numpy()


def _rounded(rate: int) -> int:
    # The filter bank grows with rate / gcd: an odd rate such as 44,101 Hz would need gigabytes. Rounding the rate to
    # 25 Hz (200 Hz from 100 kHz up) leaves every usual one as it is and moves the others by less than a fiftieth of a
    # semitone from 11 kHz up.
    step = 25 if rate < 100_000 else 200
    return max(step * round(rate / step), step)


@lru_cache(maxsize=4)
def _log_mel(sample_rate: int, n_mels: int, win_length: int, hop_length: int) -> LogMel:
    from models.log_mel import LogMel

    return LogMel(sample_rate, n_mels, win_length, hop_length)
