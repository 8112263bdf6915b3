"""The field `audio_stats`: tempo and loudness of a recording's middle, of a catalogue and of recordings in memory.

Shapes: N songs, C crops, S statistics.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache, partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from data.arrays import AnyArray, FloatArray
from data.audio.crops import CropReader, Crops, fixed_crops
from data.audio.vectors import Encode, RecordingVectors
from data.catalogue import AUDIO_STATS, Catalogue
from models.audio_front import AudioFront
from models.audio_statistics import STATISTICS, audio_statistics

SECONDS, CROPS = 30.0, 1  # what is measured: the middle of a recording
VERSION = 1  # of the statistics: another one makes the kept ones void
FRAMES = ("sample_rate", "n_mels", "win_length", "hop_length")  # what of audio.* decides them


def catalogue_statistics(catalogue: Catalogue) -> FloatArray:
    """STATISTICS of all songs of a catalogue that keeps decoded audio, (N, S), NaN without audio.

    They are kept beside the decoded audio: a later catalogue computes those of new recordings alone.
    """
    reader = CropReader(catalogue, SECONDS, CROPS)
    options = {name: reader.audio[name] for name in ("store", "max_seconds", *FRAMES)}
    what = (AUDIO_STATS, VERSION, SECONDS, *options.values())
    of = (reader, len(STATISTICS), what, partial(encode, options), catalogue.folder)
    kept = RecordingVectors(*of, title="audio statistics")
    return kept[np.arange(catalogue.n_songs)][:, 0]


def recording_statistics(recordings: Sequence[AnyArray], audio: dict[str, Any]) -> FloatArray:
    """STATISTICS of recordings as a catalogue of these options keeps them (`to_steps`), (N, S)."""
    with torch.inference_mode():
        found: FloatArray = encode(audio)(fixed_crops(recordings, audio, SECONDS, CROPS))[:, 0].numpy()
    return found


def encode(audio: dict[str, Any]) -> Encode:
    """The function from crops, (N, C, …), to their statistics, (N, C, S)."""
    rate, bands, window, hop = (int(audio[name]) for name in FRAMES)
    front, longest = _front(rate, bands, window, hop), math.ceil(SECONDS * rate / hop)

    def of_crops(crops: Crops) -> Tensor:
        flat = {name: values.flatten(0, 1) for name, values in crops.items()}
        if "samples" in flat:  # the frames of what follows the longest are not looked at
            flat["samples"] = flat["samples"][:, : max(int(flat["length"].max()), window)]
        logmel_XTM, frames_X = front(flat)
        return audio_statistics(logmel_XTM, frames_X, rate, window, hop, longest).unflatten(0, (-1, CROPS))

    return of_crops


@lru_cache(maxsize=4)
def _front(sample_rate: int, n_mels: int, win_length: int, hop_length: int) -> AudioFront:
    return AudioFront(sample_rate, n_mels, win_length, hop_length).eval()
