"""The distinct values of an array of whole numbers, by sorting, or by marking them among all.

From NumPy 2.3 on `np.unique` looks them up in a hash table, where that is all that is asked of it: of 300,000 distinct
numbers that takes fifteen times as long as to sort them (NumPy 2.4.6), with `np.union1d` and `np.setdiff1d` too.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def distinct(*values: NDArray[Any]) -> NDArray[Any]:
    """The distinct values of one array or several, ascending, (N,)."""
    sorted_N = np.sort(np.concatenate([np.ravel(one) for one in values]), kind="stable")  # radix sort, or merges
    return sorted_N[np.append(True, sorted_N[1:] != sorted_N[:-1])] if len(sorted_N) else sorted_N


def marked(values: NDArray[Any], n: int) -> NDArray[np.bool_]:
    """Which of the numbers below n are among the values, (n,): where these are many, sooner known than by sorting."""
    mark_n = np.zeros(n, dtype=bool)
    mark_n[values] = True
    return mark_n
