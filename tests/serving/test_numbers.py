"""Numbers of ids are those of a dictionary, also where hashes are equal."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from serving.numbers import Numbers


@pytest.mark.parametrize("hashed", [hash, len, lambda one: -(2**63)])
def test_as_a_dictionary(hashed: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serving.numbers.hash", hashed, raising=False)
    rng = np.random.default_rng(0)
    drawn = ["".join(rng.choice(list("ab世界\n "), rng.integers(0, 6))) for _ in range(400)]
    ids = list(dict.fromkeys(drawn))
    numbers, expected = Numbers(pl.Series(ids)), {one: row for row, one in enumerate(ids)}
    assert len(expected) > 200 and numbers == expected
    for one in [*drawn, "a missing one", "zzzz", "", "s"]:
        assert numbers.get(one) == expected.get(one) and (one in numbers) == (one in expected)
    with pytest.raises(KeyError):
        numbers["a missing one"]


def test_without_an_id() -> None:
    numbers = Numbers(pl.Series([], dtype=pl.String))
    assert "a" not in numbers and not numbers
