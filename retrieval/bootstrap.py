"""How far a figure may be off with so many songs: intervals by drawing the songs anew, with repetition.

Shapes: N songs, M sums, D draws. The same seed draws the same songs, whatever is summed: figures of two methods on the
same songs differ by what `interval` says of the difference of their draws.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
DRAWN = 1 << 22  # songs drawn at a time


def resampled_sums(values_NM: Array, seed: int, draws: int = 2000) -> Array:
    """Sums of each column over N rows drawn with repetition, (D, M)."""
    rng, n = np.random.default_rng(seed), len(values_NM)
    at_once = max(1, DRAWN // n)
    sums = []
    for first in range(0, draws, at_once):
        d = min(at_once, draws - first)
        row_D1 = n * np.arange(d)[:, None]
        times_DN = np.bincount((rng.integers(0, n, (d, n)) + row_D1).ravel(), minlength=d * n).reshape(d, n)
        sums.append(times_DN @ values_NM.astype(np.float64))
    return np.concatenate(sums)


def interval(figure_D: Array) -> list[float]:
    """95 % interval of a figure from its draws; draws in which it has no value (NaN) are left out."""
    return [float(q) for q in np.nanquantile(figure_D, (0.025, 0.975))]


def mean_interval(values_N: Array, seed: int, draws: int = 2000) -> list[float]:
    """95 % interval of the mean over songs."""
    return interval(resampled_sums(values_N[:, None], seed, draws)[:, 0] / len(values_N))
