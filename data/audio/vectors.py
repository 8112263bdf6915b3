"""Vectors of recordings, computed once for each.

Shapes: N songs, R recordings, C crops of each, W width of a vector.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.lib.format import open_memmap
from torch import Tensor
from tqdm import tqdm

from artifacts.folders import kept_whole
from data.arrays import FloatArray, IntArray
from data.audio.cache import of_ends
from data.audio.crops import CropReader, Crops
from data.row_shards import ALONE, Ranks

RECORDINGS = 16  # a batch of `compute`

Encode = Callable[[Crops], Tensor]  # R recordings' crops → (R, C, W)


class RecordingVectors:
    """Vectors of the fixed crops of a catalogue's recordings, computed once for each recording.

    They lie beside the shards of decoded audio, one file a shard, so that a catalogue of other songs, tomorrow's or
    another split's, computes what is new alone; without shards (audio.store=files) in the catalogue, one file for all.

    Args:
        reader: of the crops.
        width: of a vector.
        what: all that a vector depends on beside its recording.
        encoder: makes the function from crops to vectors, which judges each recording alone; called where some miss.
        catalogue: its folder.
        title: of the progress bar.
        ranks: share the files; all of them make this object, and read no vectors before all have.

    Raises:
        UserError: the files cannot be written.
    """

    def __init__(
        self,
        reader: CropReader,
        width: int,
        what: tuple[Any, ...],
        encoder: Callable[[], Encode],
        catalogue: Path,
        title: str = "audio vectors",
        ranks: Ranks = ALONE,
    ) -> None:
        self.unit_N, self.row_N = np.where(reader.length > 0, reader.shard, -1), np.arange(len(reader.length))
        self.shape = reader.crops, width
        self.paths = []
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
        for number, (folder, name, recordings) in enumerate(units):
            self.paths.append(folder / f"{hashlib.sha256(repr((*what, name)).encode()).hexdigest()[:32]}.npy")
            mine = number % ranks.size == ranks.rank
            if mine and not is_whole(self.paths[-1], (len(recordings.length), *self.shape)):
                compute(recordings, width, encoder(), self.paths[-1], title)

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


def compute(reader: CropReader, width: int, encode: Encode, path: Path, title: str) -> None:
    """Write the vectors of all of a reader's recordings, (recordings, C, W)."""
    heard, shape = np.flatnonzero(reader.length), (len(reader.length), reader.crops, width)
    with kept_whole(path, title) as aside, torch.inference_mode():
        vectors_NCW = open_memmap(aside, "w+", np.float32, shape)
        vectors_NCW[:] = np.nan
        for at in tqdm(range(0, len(heard), RECORDINGS), title, unit="batch", disable=not len(heard)):
            rows = heard[at : at + RECORDINGS]
            crops = reader.fixed(rows)
            found_RCW = encode(crops).float().cpu().numpy()
            real_RC = crops["frames" if "frames" in crops else "length"]
            read_R = (real_RC.amax(dim=1) > 0).numpy()
            vectors_NCW[rows[read_R]] = found_RCW[read_R]
        vectors_NCW.flush()
