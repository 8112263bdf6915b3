"""Shards of decoded audio, as they are read (`datamodules.audio_cache` writes them)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from configs.errors import UserError
from datamodules.arrays import AnyArray, IntArray

SUFFIX = ".raw"


class Shards:
    """The shards of a catalogue, each (lines, width), memory-mapped when first asked for."""

    def __init__(self, folder: Path, names: Sequence[str], dtype: np.dtype[Any], width: int) -> None:
        self.folder, self.names, self.dtype, self.width = folder, list(names), dtype, width
        self.maps: dict[int, AnyArray] = {}

    def shard(self, number: int) -> AnyArray:
        """Lines of one shard.

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
        table = pl.read_parquet(self.folder / f"{self.names[number]}.parquet")
        return table.filter(pl.col("length") > 0).select("start", "length")

    def by_shard(self, shard: IntArray) -> Iterator[tuple[AnyArray, tuple[AnyArray, ...]]]:
        """For each shard that occurs in an array of any shape: its lines, and where in the array it is."""
        for number in np.unique(shard[shard >= 0]):
            yield self.shard(int(number)), np.nonzero(shard == number)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"maps": {}}  # a process that is spawned opens the files itself
