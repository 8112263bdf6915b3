"""Examples of conditions, made of what a table has."""

from __future__ import annotations

from datetime import date

import polars as pl
import pytest

from data.condition_example import example
from data.conditions import columns_of, condition, kinds_of

ID = {"user_id": [f"u{number}" for number in range(8)]}
LISTS = pl.Series([["a", "b"], ["b"], [], None, ["c"], ["b"], ["a"], ["d"]], dtype=pl.List(pl.String))


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({"country": ["CN", "US", "CN", "FR", None, "US", "CN", "DE"]}, 'country in ["CN", "US"]'),
        ({"country": ["CN", "US"] * 4, "age": [1, 2, 3, 4, 5, 6, 7, 8]}, 'country == "CN" and age >= 5'),
        ({"a": ["x"] * 8, "b": ["y"] * 8, "score": [0.0, 1 / 3] * 4}, "score >= 0.333"),
        ({"genres": LISTS}, '"b" in genres'),
        ({"joined": [date(2024, 1, day) for day in range(1, 9)]}, 'joined >= "2024-01-05"'),
        ({"agreed": [True, None, False, True, True, True, True, True], "x": [1] * 8}, "agreed"),
        ({"quoted": ['a"b', 'a"b', "c", "d", "e", "f", "g", "h"]}, 'quoted == "a\\"b"'),
        ({"a": ["x", "x", "y", "y", "z", "z", "v", "w"], "n": [1, 1, 1, 1, 9, 9, 9, 9]}, 'a in ["x", "y"]'),
        ({"n": [3, 3, 3, 3, 3, 3, 4, 5]}, "n > 3"),
        ({"count": ["CN", "US", "CN", "FR", None, "US", "CN", "DE"]}, 'count in ["CN", "US"]'),
        ({"score": [float("inf")] * 6 + [1.0, 2.0]}, "score >= 2.0"),
        ({"score": [1.0, 2.0] + [1.7976931348623157e308] * 6}, "score >= 1.7976931348623157e+308"),
        ({"born": pl.Series([3_000_000] * 6 + [0, 1], dtype=pl.Int32).cast(pl.Date)}, 'born >= "1970-01-02"'),
        ({"unseen": ["x\x00", "y\n"] * 4}, None),
        ({"only": ["x"] * 8, "text": ["x" * 100] * 4 + ["y" * 100] * 4}, None),
        ({}, None),
    ],
)
def test_an_example_holds_for_some_rows(columns: dict[str, object], expected: str | None) -> None:
    table = columns_of(pl.DataFrame(ID | columns))
    found = example(table)
    assert found == expected
    if found:
        assert 0 < table.select(condition(found, kinds_of(table)).rows).to_series().sum() < 8


def test_there_is_none_of_no_rows() -> None:
    assert example(columns_of(pl.DataFrame(ID)).clear()) is None
