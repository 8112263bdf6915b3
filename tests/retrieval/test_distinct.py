"""Distinct values against Python's sets, and the time of many of them."""

from __future__ import annotations

import time

import numpy as np
import pytest

from retrieval.distinct import distinct


@pytest.mark.parametrize("dtype", [np.int32, np.int64, np.uint64])
@pytest.mark.parametrize("size", [0, 1, 2, 1000])
def test_distinct_values_in_order(dtype: type, size: int) -> None:
    rng = np.random.default_rng(size)
    one, other = rng.integers(0, 700, (2, size)).astype(dtype)
    found = distinct(one, other[: size // 2].reshape(-1, 1))
    assert found.tolist() == sorted({*one.tolist(), *other[: size // 2].tolist()}) and found.dtype == dtype
    assert distinct(one).tolist() == sorted(set(one.tolist()))


def test_many_distinct_numbers_take_little_longer_than_a_sort() -> None:
    """By a hash table they take fifteen times as long as a sort."""
    numbers = np.random.default_rng(0).permutation(400_000)
    took: dict[str, list[float]] = {"sort": [], "distinct": []}
    for _ in range(5):
        for name, act in (("sort", lambda: np.sort(numbers, kind="stable")), ("distinct", lambda: distinct(numbers))):
            began = time.process_time()
            act()
            took[name].append(time.process_time() - began)
    assert min(took["distinct"]) < 4 * min(took["sort"])
