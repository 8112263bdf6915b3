"""The service's own ways to what the training's tables hold: they must give the same."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from data import fields
from serving.encoder import about_table, codes_of, encode


@pytest.mark.parametrize("name", ["genres", "language"])
def test_codes_are_those_of_training(name: str) -> None:
    rng = np.random.default_rng(0)
    values = [None, "", *(f"value {number}" for number in range(20))]
    vocabulary = {name: [f"value {number}" for number in rng.permutation(20)[:12]]}
    about: list[dict[str, Any]] = [{}, {name: None}]
    for _ in range(200):
        drawn = [values[at] for at in rng.integers(0, len(values), rng.integers(0, 15))]
        about.append({name: drawn if name == "genres" else (drawn or [None])[0]})
    expected = fields.encode(fields.values_of(about_table(about), name), vocabulary[name])
    assert (expected > 0).all(axis=1).any() or name == "language"
    np.testing.assert_array_equal(encode(about, name, codes_of(vocabulary)[name]), expected)
