"""Conditions on columns against a three-valued logic written out, in polars and in Milvus."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import date
from typing import Any

import numpy as np
import polars as pl
import pytest

from configs.errors import UserError
from data.conditions import TYPES, columns_of, condition, kinds_of, without_nulls
from tests.milvus_server import ON_BOTH

Row = dict[str, Any]
Truth = Callable[[Row], bool | None]  # None: neither

TEXTS = ["zh", "en", 'a"b', "c\\d", "e\nf\r", "\x00\x0b\t", "g'h", "", "é音", "x] or year > 0 or language in ["]
DAYS = [date(1969, 12, 31), date(2024, 2, 29), date(2024, 6, 1), date(2031, 1, 1)]
GENRES = ["rock", "pop", 'a"b', "c\\d"]
SIGNS: dict[str, Callable[[Any, Any], bool]] = {
    "==": lambda a, b: a == b, "!=": lambda a, b: a != b, "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b, ">": lambda a, b: a > b, ">=": lambda a, b: a >= b,
}  # fmt: skip


def table(n: int = 80) -> pl.DataFrame:
    rng = np.random.default_rng(3)

    def maybe(values: list[Any]) -> list[Any]:
        return [None if rng.random() < 0.25 else values[rng.integers(len(values))] for _ in range(n)]

    return pl.DataFrame(
        {
            "language": maybe(TEXTS),
            "year": maybe([-3, 0, 1999, 2024, 2**62]),
            "tempo": maybe([-0.5, 0.0, 90.25, 1e300]),
            "explicit": maybe([True, False]),
            "genres": pl.Series(maybe([[], ["rock"], ["pop", "rock"], ['a"b', "c\\d"]]), dtype=pl.List(pl.String)),
            "released": pl.Series(maybe(DAYS), dtype=pl.Date),
        }
    )


def atom(rng: np.random.Generator) -> tuple[str, Truth]:
    """A comparison, and what it says of a row."""
    kind = rng.integers(7)
    name = ("language", "year", "tempo", "released")[rng.integers(4)]
    of_numbers = {"year": [-3, 0, 2024, 2**62, 7], "tempo": [-0.5, 0, 90.25, 3.5, 1e300]}
    values: list[Any] = {"language": TEXTS, "released": [*DAYS, date(2025, 12, 31)], **of_numbers}[name]
    value, sign = values[rng.integers(len(values))], list(SIGNS)[rng.integers(len(SIGNS))]
    said = json.dumps(value, default=str)
    if kind == 0:
        word = ("is null", "is not null")[rng.integers(2)]
        return f"{name} {word}", lambda row: (row[name] is None) == (word == "is null")
    if kind == 1:
        some = [values[at] for at in rng.choice(len(values), 2, replace=False)]
        word = ("in", "not in")[rng.integers(2)]
        return f"{name} {word} {json.dumps(some, default=str)}", lambda row: known(
            row[name], lambda v: (v in some) == (word == "in")
        )
    if kind == 2:
        genre, word = GENRES[rng.integers(len(GENRES))], ("in", "not in")[rng.integers(2)]
        text = f"{json.dumps(genre)} {word} genres"
        return text, lambda row: known(row["genres"], lambda v: (genre in v) == (word == "in"))
    if kind == 3:
        return "explicit", lambda row: row["explicit"]
    if kind == 4:
        return "0 <= year < 2024", lambda row: known(row["year"], lambda v: 0 <= v < 2024)
    if kind == 5:
        return f"{said} {sign} {name}", lambda row: known(row[name], lambda v: SIGNS[sign](value, v))
    return f"{name} {sign} {said}", lambda row: known(row[name], lambda v: SIGNS[sign](v, value))


def known(value: Any, says: Callable[[Any], bool]) -> bool | None:
    return None if value is None else says(value)


def tree(rng: np.random.Generator, depth: int) -> tuple[str, Truth]:
    """A condition of comparisons."""
    kind = rng.integers(4) if depth else 3
    if kind == 3:
        return atom(rng)
    one, says = tree(rng, depth - 1)
    if kind == 2:
        return f"not ({one})", lambda row: None if says(row) is None else not says(row)
    other, also = tree(rng, depth - 1)
    first = bool(kind == 0)  # what decides: a false one of `and`, a true one of `or`

    def joined(row: Row) -> bool | None:
        both = [says(row), also(row)]
        decides = not first
        return decides if decides in both else None if None in both else first

    return f"({one}) {'and' if first else 'or'} ({other})", joined


@pytest.fixture(scope="module")
def conditions() -> list[tuple[str, Truth]]:
    rng = np.random.default_rng(0)
    return [tree(rng, 3) for _ in range(150)]


def test_rows_are_those_of_a_three_valued_logic(conditions: list[tuple[str, Truth]]) -> None:
    rows = table()
    found = [rows.select(condition(text, kinds_of(rows)).rows).to_series() for text, _ in conditions]
    assert not any(one.null_count() for one in found)
    for (text, says), one in zip(conditions, found, strict=True):
        assert one.to_list() == [says(row) is True for row in rows.to_dicts()], text
    assert 0.2 < np.mean([one.mean() for one in found]) < 0.8, "not always or never"


@ON_BOTH
def test_milvus_finds_the_same_rows(conditions: list[tuple[str, Truth]], milvus: str) -> None:
    from retrieval.milvus import ENTRY, Connection, MilvusIndex

    rows = table()
    values = without_nulls(rows)
    connection, numbers = Connection(milvus), np.arange(len(rows))
    index = MilvusIndex.made(
        connection, "rows", "Flat", np.eye(len(rows), 4, dtype=np.float32), numbers, kinds_of(values),
        lambda some: values[some].to_dicts(),
    )  # fmt: skip
    for text, _ in conditions:
        found = condition(text, kinds_of(rows))
        there = connection.client.query(index.name, filter=found.milvus, output_fields=[ENTRY], limit=len(rows))
        expected = rows.select(found.rows).to_series().arg_true().to_list()
        assert sorted(row[ENTRY] for row in there) == expected, (text, found.milvus)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not a condition"),
        ("language = 'zh'", "not a condition"),
        ("language == ", "not a condition"),
        ("a" * 3000, "longer than 2,000 characters"),
        ("not " * 450 + "explicit or" * 2, "not a condition"),
        ("language", "language is not a comparison"),
        ("5", "5 is not a comparison"),
        ("__import__('os').system('true')", "is not a comparison"),
        ("lang == 'zh'", "lang is not a column"),
        ("language == year", "language holds text, not year"),
        ("language == 3", "language holds text, not 3"),
        ("language == 'x'.upper()", "language holds text, not"),
        ("year == true", "year holds integers, not true"),
        ("year > 1.5", "year holds integers, not 1.5"),
        ("year == 9223372036854775808", "year holds integers, not 9"),
        ("tempo < 1e999", "tempo holds numbers, not 1e309"),
        ("tempo < 1" + "0" * 400, "int too large"),
        ("explicit == 1", "explicit holds true or false, not 1"),
        ("explicit < true", "explicit is true or false: it is not < anything"),
        ("language is 'zh'", "language is 'zh': write language is null, or compare by == and !="),
        ("language is not None", "language is not None: write language is not null, or compare"),
        ("language == null", "language holds text, not null: write language is null"),
        ("language == zh", 'language holds text, not zh: write "zh"'),
        ("year == '2024'", "year holds integers, not '2024': write 2024"),
        ("language == ['zh']", r"language holds text, not .*: write language in \['zh'\]"),
        ("released >= '01/02/2024'", "released holds days, not '01/02/2024': write \"2024-06-01\""),
        ("released >= '2024'", "released holds days, not '2024'"),
        ("released in ['2024-02-30']", "released holds days, not '2024-02-30'"),
        ("'language' == 'zh'", "'language' is a text: write language without quotes"),
        ("songs.language == 'zh'", "songs.language is not a column"),
        ("1 == 1", "1 is not a column"),
        ("language = 'zh'", "not a condition from \"= 'zh'\" on: write comparisons by =="),
        ("language == 'zh' AND year > 3", "not a condition from 'AND year > 3' on: write"),
        ("language == “zh”", "not a condition from '“zh”' on: write"),
        ("language == 'zh'\nand year > 3", "not a condition from 'and year > 3' on: write"),
        ("language == 'zh' or 'en'", "'en' is not a comparison: write comparisons by =="),
        ("year in []", r"after year in … a list of constants is wanted, not \[\]"),
        ("year in 2024", "a list of constants is wanted"),
        ("'zh' in language", "language holds no lists: write language == 'zh'"),
        ("genres == 'rock'", 'genres holds lists: write "…" in genres'),
        ("genres in ['rock']", 'genres holds lists: write "…" in genres'),
        ("language == '\\ud800'", "surrogates not allowed"),
        ("title == 'x'", "title is not a column"),
    ],
)
def test_what_is_no_condition_is_told(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as told:
        condition(text, kinds_of(table()))
    assert "\n" not in str(told.value) and str(told.value).startswith("where=")
    assert "columns: language (text), year (integer), tempo (number), explicit (true or false)" in str(told.value)


def test_columns_are_what_milvus_can_hold() -> None:
    given = pl.DataFrame(
        {
            "song_id": ["a", "b"],
            "title": ["x", "y"],
            "released_at": pl.Series(["2024-01-31", None]).str.to_datetime(time_unit="ms"),
            "mood": pl.Series(["calm", None], dtype=pl.Categorical),
            "plays": pl.Series([1, 2**64 - 1], dtype=pl.UInt64),
            "tempo": pl.Series([float("nan"), 1.5], dtype=pl.Float32),
            "tags": pl.Series([["a", None], None], dtype=pl.List(pl.String)),
            "vectors": pl.Series([[1.0], [2.0]]),
            "empty": [None, None],
            "two words": ["a", "b"],
            "class": ["a", "b"],
            "true": [True, True],
            "audio_path": ["a", "b"],
            "long": ["a" * 70_000, "b"],
        }
    )
    found = columns_of(given)
    assert found.to_dict(as_series=False) == {
        "song_id": ["a", "b"],
        "released_at": [date(2024, 1, 31), None],
        "mood": ["calm", None],
        "plays": [1, None],
        "tempo": [None, 1.5],
        "tags": [["a"], None],
    }
    assert kinds_of(found)["released_at"] == "day"
    assert without_nulls(found)["released_at"].to_list() == ["2024-01-31", ""]
    assert kinds_of(found)["tags"] == "list of text" and set(kinds_of(found).values()) <= set(TYPES)


def test_what_no_condition_can_write_is_null() -> None:
    inf = float("inf")
    given = {"tempo": [inf, -inf, 1e308], "height": pl.Series([inf, 2.5, None], dtype=pl.Float32)}
    days = pl.Series([3_000_000, -800_000, 19_000], dtype=pl.Int32).cast(pl.Date)  # of the years 10183, −221 and 2022
    found = columns_of(pl.DataFrame(given | {"born": days, "seen": days.cast(pl.Datetime("ms"))}))
    assert found["tempo"].to_list() == [None, None, 1e308] and found["height"].to_list() == [None, 2.5, None]
    assert found["born"].to_list() == found["seen"].to_list() == [None, None, date(2022, 1, 8)]


def test_numbers_of_single_precision_are_compared_as_they_are_written() -> None:
    rows = columns_of(pl.DataFrame({"rating": pl.Series([4.2, 4.1, float("nan"), None, 1e-8], dtype=pl.Float32)}))
    for text, expected in (("rating >= 4.2", [0]), ("rating == 4.1", [1]), ("rating in [0.00000001]", [4])):
        assert rows.select(condition(text, kinds_of(rows)).rows).to_series().arg_true().to_list() == expected


def test_few_of_many_columns_are_named() -> None:
    with pytest.raises(UserError, match=r"; columns: c0 \(text\), .*c29 \(text\), and 9,970 more$"):
        condition("nothing == 1", {f"c{number}": "text" for number in range(10_000)})


def test_many_parts_are_side_by_side() -> None:
    """Nested, two hundred of them took polars 1.5 seconds."""
    text = " or ".join([f"year == {number}" for number in range(100)])
    rows = str(condition(text, {"year": "integer"}).rows)
    assert rows.count("year") == 100 and "((" not in rows.replace("[(col", "")
