"""Shards of decoded audio, as they are read (`data.audio.cache` writes them)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.lib.stride_tricks import sliding_window_view

from configs.errors import UserError
from data.arrays import AnyArray, IntArray

SUFFIX = ".raw"


class Shards:
    """The shards of a catalogue, each (steps, width), memory-mapped when first asked for."""

    def __init__(self, folder: Path, names: Sequence[str], dtype: np.dtype[Any], width: int) -> None:
        self.folder, self.names, self.dtype, self.width = folder, list(names), dtype, width
        self.maps: dict[int, AnyArray] = {}

    def shard(self, number: int) -> AnyArray:
        """The frames or samples of one shard, (steps, width).

        Raises:
            UserError: it is gone.
        """
        if number not in self.maps:
            path = self.folder / f"{self.names[number]}{SUFFIX}"
            if not path.exists():
                raise UserError(f"{path} is gone: put the audio cache back, or prepare the catalogue again")
            self.maps[number] = np.memmap(path, dtype=self.dtype, mode="r").reshape(-1, self.width)
        return self.maps[number]

    def recordings(self, number: int) -> pl.DataFrame:
        """`start` and `length` of every recording in a shard, in their order."""
        table = pl.read_parquet(self.folder / f"{self.names[number]}.parquet", glob=False)
        return table.filter(pl.col("length") > 0).select("start", "length")

    def by_shard(self, shard: IntArray) -> Iterator[tuple[AnyArray, tuple[AnyArray, ...]]]:
        """For each shard that occurs in an array of any shape: its steps, and where in the array it is."""
        for number in np.unique(shard[shard >= 0]):
            yield self.shard(int(number)), np.nonzero(shard == number)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"maps": {}}  # a process that is spawned opens the files itself


def windows(steps: AnyArray, first_N: IntArray, real_N: IntArray, length: int) -> AnyArray:
    """Windows of frames or samples, (N, length, width): `real` of them from `first` on, then zeros.

    Whole stretches are copied: picking step by step is many times slower where a step is a single sample.
    """
    width = steps.shape[1]
    found = np.empty((len(first_N), length * width), dtype=steps.dtype)
    fits_N = first_N + length <= len(steps)
    if fits_N.any():
        found[fits_N] = sliding_window_view(steps.reshape(-1), length * width)[first_N[fits_N] * width]
    at = np.minimum(first_N[~fits_N][:, None] + np.arange(length), len(steps) - 1)
    found[~fits_N] = steps[at].reshape(len(at), length * width)
    windows_NLW = found.reshape(len(first_N), length, width)
    short_N = np.flatnonzero(real_N < length)  # beyond a recording's end is another one
    windows_NLW[short_N] *= (np.arange(length) < real_N[short_N, None])[:, :, None]
    return windows_NLW
