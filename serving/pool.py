"""The new songs that an audience is looked for, or that are recommended: their vectors in arrays that grow.

Shapes: N new songs, D vector size.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from data.arrays import AnyArray, FloatArray, IntArray


@dataclass
class Pool:
    """New songs, the catalogue's and the accepted ones: a row each, in arrays that grow."""

    number: IntArray
    vector: FloatArray
    item: FloatArray | None
    size: int
    row_of: dict[int, int] = field(default_factory=dict)

    def append(self, number: int, vector: FloatArray, item: FloatArray | None) -> None:
        """One song more."""
        if self.size == len(self.number):
            self.number, self.vector = longer(self.number), longer(self.vector)
            self.item = None if self.item is None else longer(self.item)
        self.number[self.size], self.vector[self.size] = number, vector
        if self.item is not None and item is not None:
            self.item[self.size] = item
        self.row_of[number] = self.size
        self.size += 1

    def remove(self, number: int) -> None:
        """The last song takes its place."""
        row, last = self.row_of.pop(number), self.size - 1
        if row != last:
            self.number[row], self.vector[row] = self.number[last], self.vector[last]
            if self.item is not None:
                self.item[row] = self.item[last]
            self.row_of[int(self.number[row])] = row
        self.size = last


def longer(array: AnyArray) -> AnyArray:
    """The array with as many free rows again: appending costs the same on average, however many there are."""
    return np.concatenate([array, np.zeros_like(array, shape=(max(256, len(array)), *array.shape[1:]))])
