"""Distinct values against Python's sets."""

from __future__ import annotations

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
