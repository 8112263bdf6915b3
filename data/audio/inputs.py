"""Turn crops into an audio tower's inputs, and cache the vectors of a frozen audio encoder.

Shapes: N songs, C crops a song, L samples, W width of the tower.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.lib.format import open_memmap
from tqdm import tqdm

from configs.errors import UserError
from data.arrays import FloatArray, IntArray
from data.audio.cache import of_ends
from data.audio.crops import CropReader, Crops
from data.text import folder_state, kept_whole, or_user_error
from models.chunked import embed_crops, embed_in_fixed_batches
from models.pretrained_audio import OWN, Extractor, PretrainedAudio, audio_width

SONGS = 16  # a batch of `compute`
HEARD = ("sample_rate", "max_seconds")  # what of audio.* decides how samples are read

Inputs = Callable[[Crops], Crops]


def audio_dim(model: str) -> int:
    """Width of the vectors of a published audio encoder; 0 for our own Transformer, whose width is an option.

    Raises:
        UserError: it cannot be loaded.
    """
    return 0 if model == OWN else or_user_error(audio_width, model, "audio.model")


def audio_inputs(model: str, audio: dict[str, Any], crop_seconds: float) -> Inputs:
    """The function from a catalogue's crops, (N, …) or (N, C, …), to the inputs of an audio tower.

    Raises:
        UserError: a published encoder without samples, or with crops longer than it can hear, or that cannot be loaded.
    """
    if model == OWN:
        return dict  # takes the crops as they are
    if audio["store"] == "logmel":
        raise UserError(
            f"audio.model={model} makes its own frames from samples: prepare the catalogue with audio.store=samples"
        )
    extract = or_user_error(Extractor, model, "audio.model")
    if crop_seconds > extract.longest_seconds():
        raise UserError(
            f"model.crop_seconds={crop_seconds:g}: {model} hears at most {extract.longest_seconds():g} s at once"
        )
    return partial(from_samples, extract, int(audio["sample_rate"]))


def from_samples(extract: Extractor, sample_rate: int, crops: Crops) -> Crops:
    """A published encoder's inputs of crops of samples, in the shape (N,) or (N, C) that `length` has."""
    shape = crops["length"].shape
    made = extract(crops["samples"].flatten(0, -2), crops["length"].flatten(), sample_rate)
    return {name: values.view(*shape, *values.shape[1:]) for name, values in made.items()}


class FrozenAudio:
    """Vectors of the fixed crops under a frozen published encoder, computed once for each recording.

    They lie beside the shards of decoded audio, one file a shard, so that a catalogue of other songs, tomorrow's or
    another split's, computes what is new alone; without shards (audio.store=files) in the catalogue, one file for all.
    A song's vectors do not depend on the others, to the last bit on a CPU.

    Raises:
        UserError: the encoder cannot be loaded, or the files cannot be written.
    """

    def __init__(self, reader: CropReader, model: str, inputs: Inputs, catalogue: Path) -> None:
        self.unit_N, self.row_N = np.where(reader.length > 0, reader.shard, -1), np.arange(len(reader.length))
        self.shape = reader.crops, audio_dim(model)
        self.paths = []
        state = folder_state(model)
        what = ("" if state else model, state, reader.crop, reader.crops, *(reader.audio[name] for name in HEARD))
        units: list[tuple[Path, str, CropReader]] = []
        if not reader.length.any():
            return
        if reader.shards is None:
            self.unit_N = np.where(reader.length > 0, 0, -1)
            paths = [path for path, length in zip(reader.paths or [], reader.length, strict=False) if length]
            content = repr([of_ends(path) for path in paths if path.is_file()])
            units = [(catalogue / "audio_vectors", content, reader)]
        else:
            for number, name in enumerate(reader.shards.names):
                recordings = reader.of_shard(number)
                here = np.flatnonzero(self.unit_N == number)
                self.row_N[here] = np.searchsorted(recordings.start, reader.start[here])
                units.append((reader.shards.folder / "vectors", name, recordings))
        for folder, name, recordings in units:
            self.paths.append(folder / f"{hashlib.sha256(repr((*what, name)).encode()).hexdigest()[:32]}.npy")
            if not is_whole(self.paths[-1], (len(recordings.length), *self.shape)):
                compute(recordings, model, inputs, self.paths[-1])

    def __getitem__(self, rows: IntArray) -> FloatArray:
        """Vectors of songs, (N, C, W); NaN for a song without audio."""
        found = np.full((len(rows), *self.shape), np.nan, dtype=np.float32)
        for unit in np.unique(self.unit_N[rows][self.unit_N[rows] >= 0]):
            at = np.flatnonzero(self.unit_N[rows] == unit)
            found[at] = np.load(self.paths[unit], mmap_mode="r")[self.row_N[rows[at]]]
        return found


def is_whole(path: Path, shape: tuple[int, ...]) -> bool:
    """Whether a file of vectors is there, in full."""
    try:
        return bool(np.load(path, mmap_mode="r").shape == shape)
    except (OSError, ValueError, EOFError):  # not there, cut short, or something else
        return False


def compute(reader: CropReader, model: str, inputs: Inputs, path: Path) -> None:
    """Write the vectors of all of a reader's recordings, (recordings, C, W)."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    encoder = PretrainedAudio(model).to(device)
    heard, shape = np.flatnonzero(reader.length), (len(reader.length), reader.crops, audio_dim(model))
    with kept_whole(path, "audio vectors") as aside, torch.inference_mode():
        vectors_NCW = open_memmap(aside, "w+", np.float32, shape)
        vectors_NCW[:] = np.nan
        for at in tqdm(range(0, len(heard), SONGS), "audio vectors", unit="batch", disable=not len(heard)):
            rows = heard[at : at + SONGS]
            crops = reader.fixed(rows)
            given = {name: values.to(device) for name, values in inputs(crops).items()}
            found_RCW = embed_crops(partial(embed_in_fixed_batches, encoder), given).float().cpu().numpy()
            read_R = (crops["length"].amax(dim=1) > 0).numpy()
            vectors_NCW[rows[read_R]] = found_RCW[read_R]
        vectors_NCW.flush()
