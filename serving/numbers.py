"""Numbers of songs and users by their ids."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import polars as pl


class Numbers(Mapping[str, int]):
    """The row of each id in a column of different ones: their sorted hashes, in a tenth of a dictionary's memory."""

    def __init__(self, ids: pl.Series) -> None:
        hash_N = np.fromiter(map(hash, ids), np.int64, len(ids))
        self.ids, self.row_N = ids, np.argsort(hash_N).astype(np.int32)
        self.hash_N = hash_N[self.row_N]

    def __getitem__(self, one: str) -> int:
        """The row of an id."""
        wanted = hash(one)
        at = int(np.searchsorted(self.hash_N, wanted))
        while at < len(self.hash_N) and self.hash_N[at] == wanted:
            row = int(self.row_N[at])
            if self.ids[row] == one:
                return row
            at += 1
        raise KeyError(one)

    def __iter__(self) -> Iterator[str]:
        """All ids, in the order of the column."""
        return iter(self.ids)

    def __len__(self) -> int:
        """How many there are."""
        return len(self.ids)
