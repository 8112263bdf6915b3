"""From a recording to log-mel frames. The only module that decodes audio.

Files of any sample rate and channel count are taken (resampled, down-mixed, both counted); a file that gives no usable
sound is reported with one of `PROBLEMS` and its song goes on without audio.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
import torchaudio
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from datamodules.arrays import AnyArray, FloatArray

# reason → meaning, as `prepare` reports it
PROBLEMS = {
    "missing": "no such file",
    "unreadable": "not audio, damaged, or a format that libsndfile does not know",
    "zero length": "the file holds no samples",
    "truncated": "fewer samples can be decoded than the file announces",
    "not finite": "NaN or infinite samples",
    "silent": "nothing above -80 dB of full scale",
    "too short": "shorter than audio.min_seconds",
}
SILENCE = 1e-4  # peak, as a share of full scale (-80 dB)
# Mean and spread of ln(mel + 1e-6), measured once on real music at the default options and then fixed, so that a file
# gives the same frames whatever catalogue it is in.
LOG_FLOOR, LOG_MEAN, LOG_STD = 1e-6, 1.0, 4.0
CHUNK = 8  # files decoded ahead by each worker


class AudioError(Exception):
    """A recording that cannot be used; `reason` is a key of `PROBLEMS`."""

    def __init__(self, reason: str) -> None:
        """Name the reason."""
        super().__init__(reason)
        self.reason = reason


def decode(path: str | Path, sample_rate: int, max_seconds: float) -> FloatArray:
    """The middle `max_seconds` of a recording as mono float32 samples in about [-1, 1] at `sample_rate` Hz.

    Only that stretch is decoded. Silence is returned as it is.

    Raises:
        AudioError: missing, unreadable, zero length, truncated, not finite.
    """
    return _decode(Path(path), sample_rate, max_seconds)[0]


def log_mel(wave: FloatArray, sample_rate: int, n_mels: int, win_length: int, hop_length: int) -> FloatArray:
    """Log-mel frames, float32 (1 + samples // hop_length, n_mels): (ln(mel + 1e-6) - mean) / spread.

    mel: power spectrum under a Hann window of `win_length` samples, frames centred with reflected ends, triangular
    filters of peak 1 evenly spaced from 0 to sample_rate / 2 on the HTK mel scale (2595 log10(1 + f / 700)).
    `wave` needs more than win_length / 2 samples.
    """
    mel_MT = _mel_transform(sample_rate, n_mels, win_length, hop_length)(torch.from_numpy(wave))
    return ((torch.log(mel_MT + LOG_FLOOR) - LOG_MEAN) / LOG_STD).T.contiguous().numpy()


def decoded(
    paths: list[Path], options: dict[str, Any], workers: int
) -> Iterator[tuple[str | None, AnyArray, list[str]]]:
    """Every recording in order: (key of `PROBLEMS` or None, log-mel frames (T, M) float16, what was changed).

    Args:
        paths: files.
        options: sample_rate, n_mels, win_length, hop_length, max_seconds, min_seconds (configs/schema.py: AudioConfig).
        workers: decoding processes of one thread each (0: in this process), CHUNK files ahead.
    """
    mel = tuple(int(options[name]) for name in ("sample_rate", "n_mels", "win_length", "hop_length"))
    recordings = _Recordings(paths, (mel[0], float(options["max_seconds"]), float(options["min_seconds"])), mel)
    workers = min(workers, len(recordings))
    loader = DataLoader(
        recordings,
        batch_size=None,
        num_workers=workers,
        prefetch_factor=CHUNK if workers else None,
        collate_fn=_as_is,
    )
    return iter(tqdm(loader, "audio", unit="file", disable=not len(recordings)))


class _Recordings(Dataset[tuple[str | None, AnyArray, list[str]]]):
    """File number → (problem or None, float16 frames, what was changed); runs in the worker processes."""

    def __init__(self, paths: list[Path], decoding: tuple[int, float, float], mel: tuple[int, ...]) -> None:
        self.paths, self.decoding, self.mel = paths, decoding, mel

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[str | None, AnyArray, list[str]]:
        sample_rate, max_seconds, min_seconds = self.decoding
        changes: list[str] = []
        try:
            wave, changes = _decode(self.paths[index], sample_rate, max_seconds)
            if len(wave) < max(min_seconds * sample_rate, self.mel[2]):
                raise AudioError("too short")
            if np.abs(wave).max() < SILENCE:
                raise AudioError("silent")
        except AudioError as error:
            return error.reason, np.empty((0, 0), dtype=np.float16), changes
        return None, log_mel(wave, *self.mel).astype(np.float16), changes


def _decode(path: Path, sample_rate: int, max_seconds: float) -> tuple[FloatArray, list[str]]:
    if not path.is_file():
        raise AudioError("missing")
    try:
        with soundfile.SoundFile(path) as file:
            rate, announced = file.samplerate, file.frames
            wanted = min(announced, round(max_seconds * rate))
            file.seek((announced - wanted) // 2)
            samples_NC = file.read(wanted, dtype="float32", always_2d=True)
    except (soundfile.SoundFileError, RuntimeError, TypeError, ValueError, OSError) as error:
        raise AudioError("unreadable") from error
    if announced == 0:
        raise AudioError("zero length")
    if len(samples_NC) < 0.95 * wanted:  # compressed formats may announce a few samples too many
        raise AudioError("truncated")
    wave = samples_NC.mean(axis=1)
    if not np.isfinite(wave).all():
        raise AudioError("not finite")
    changes = ["downmixed"] * (samples_NC.shape[1] > 1) + ["resampled"] * (rate != sample_rate)
    return _resample(wave, rate, sample_rate), changes


def _resample(wave: FloatArray, rate: int, sample_rate: int) -> FloatArray:
    # The filter bank grows with rate / gcd: an odd rate such as 44,101 Hz would need gigabytes. Rounding the rate to
    # 25 Hz leaves every usual one as it is and moves the others by less than a fiftieth of a semitone from 11 kHz up.
    rate = max(25 * round(rate / 25), 25)
    if rate == sample_rate:
        return wave
    return torchaudio.functional.resample(torch.from_numpy(wave), rate, sample_rate).numpy()


@lru_cache(maxsize=4)
def _mel_transform(
    sample_rate: int, n_mels: int, win_length: int, hop_length: int
) -> torchaudio.transforms.MelSpectrogram:
    return torchaudio.transforms.MelSpectrogram(
        sample_rate, n_fft=win_length, win_length=win_length, hop_length=hop_length, n_mels=n_mels, power=2.0
    )


def _as_is(sample: Any) -> Any:
    return sample  # the default would turn arrays into tensors and use up shared memory
