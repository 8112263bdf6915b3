"""Array types and the two vectorised helpers that grouped data needs."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float32]
BoolArray = NDArray[np.bool_]
AnyArray = NDArray[Any]


def group_starts(groups: AnyArray, n_groups: int) -> IntArray:
    """Offsets of each group in an array sorted by group: group g is rows `starts[g]:starts[g + 1]`."""
    return np.searchsorted(groups, np.arange(n_groups + 1)).astype(np.int64)


def is_member(keys: AnyArray, sorted_keys: AnyArray) -> BoolArray:
    """For each key, whether it occurs in `sorted_keys` (ascending); any shape of `keys`."""
    if len(sorted_keys) == 0:
        return np.zeros(keys.shape, dtype=bool)
    at = np.minimum(np.searchsorted(sorted_keys, keys), len(sorted_keys) - 1)
    return np.asarray(sorted_keys[at] == keys)
