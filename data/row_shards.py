"""Arrays with a row for each song, made in shards by one process or many.

A shard is a stretch of rows, the same whoever makes it, and appears whole. So what a killed command has finished is
found by the next one, with any number of processes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from artifacts.folders import kept_whole
from data.arrays import FloatArray

LEAST, MOST, MANY = 4096, 65_536, 256  # rows of a shard, and shards up to which they are no more than LEAST


class Ranks(NamedTuple):
    """Which of how many processes this is, and how it waits until all have come as far."""

    rank: int = 0
    size: int = 1
    wait: Callable[[], object] = lambda: None


ALONE = Ranks()


@dataclass(frozen=True)
class RowShards:
    """The shards of one array or of several with the same rows, in a folder that belongs to what they are made of."""

    folder: Path
    n_rows: int
    what: str = "vectors"  # for messages

    def rows(self, shard: int) -> slice:
        """The stretch of rows that is a shard."""
        return slice(shard * self.size, min((shard + 1) * self.size, self.n_rows))

    @property
    def size(self) -> int:
        """Rows of a shard: few enough to share out, and to lose by a kill; enough that batches are full."""
        return min(max(-(-self.n_rows // (MANY * LEAST)) * LEAST, LEAST), MOST)

    @property
    def count(self) -> int:
        """Number of shards."""
        return max(1, -(-self.n_rows // self.size))

    def left(self, ranks: Ranks) -> list[int]:
        """The shards of this process that nobody has made yet; no two processes share one."""
        return [shard for shard in range(ranks.rank, self.count, ranks.size) if not self.path(shard).exists()]

    def path(self, shard: int) -> Path:
        """The file of a shard."""
        return self.folder / f"{self.size}-{shard:06d}.npz"

    def write(self, shard: int, **arrays: Any) -> None:
        """Keep the rows of a shard.

        Raises:
            UserError: they cannot be written.
        """
        with kept_whole(self.path(shard), self.what) as aside, aside.open("wb") as file:
            np.savez(file, **arrays)

    def join(self, name: str, path: Path) -> FloatArray:
        """Write the rows of all shards into one .npy file, whole or not at all; gives it memory-mapped.

        Raises:
            UserError: it cannot be written.
        """
        with kept_whole(path, self.what) as aside, aside.open("wb") as file:  # another may have it open
            for shard in range(self.count):
                with np.load(self.path(shard)) as arrays:
                    rows: FloatArray = arrays[name]
                if shard == 0:
                    header = {"descr": rows.dtype.str, "fortran_order": False, "shape": (self.n_rows, *rows.shape[1:])}
                    np.lib.format.write_array_header_1_0(file, header)
                rows.tofile(file)
        joined: FloatArray = np.load(path, mmap_mode="r")
        return joined
