"""One song at a time in plain Python says what a table of it says, whatever its words."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
from hypothesis import example, given, settings
from hypothesis import strategies as st

from data.contract.columns import ABOUT, DAY_OF_RELEASE
from data.derived_fields import READ
from data.fields import codes_of, field_codes, field_values, value_codes
from data.simple_songs import is_simple, texts_of, values_of
from data.text import song_texts
from data.words import DONE

NAMES = ("script", "year", "version", "language", "artist_id", "genres", "tags")
FIELDS = ("title", "lyrics", "genres", "language")
PLAIN = [
    *("Love", " ", "\n", "1999", "by ", " by ", "live", "remix", "soft", "after ", "feat", "'", "<b>", ".", "WEBVTT"),
    *("x" * READ, "ft", "Version", ")", "]", "Kb/s", "words "),
]  # fmt: skip
# what makes a text less than simple
MORE = [
    *(
        "\t",
        "\r\n",
        "(",
        "[",
        ":",
        " - ",
        "-",
        " ft. ",
        " feat. B",
        "[00:12.50]",
        "[ti:x]",
        "雨",
        "ночь",
        "é",
        "\u3000",
    ),
    *("\x1c", "Lyrics by Me", *(word.rstrip("?") for word in DONE.split("|"))),
]
plain = st.lists(st.sampled_from(PLAIN), max_size=6).map("".join)
words = st.lists(st.one_of(st.sampled_from(PLAIN + MORE), st.text(max_size=5)), max_size=8).map("".join)
days = st.one_of(
    st.dates().map(lambda day: day.isoformat()), st.sampled_from(["2023-02-29", "0000-01-01", "20240101", ""])
)


def songs_of(words: st.SearchStrategy[str]) -> st.SearchStrategy[dict[str, Any]]:
    labels = st.lists(st.one_of(st.none(), words), max_size=4)
    texts = dict.fromkeys(("title", "lyrics", "language", "artist_id"), words)
    told = {**texts, "genres": labels, "tags": labels, DAY_OF_RELEASE: days}
    return st.fixed_dictionaries({name: st.one_of(st.none(), of) for name, of in told.items()})


def song(**words: Any) -> dict[str, Any]:
    return dict.fromkeys((*ABOUT, DAY_OF_RELEASE)) | words


@settings(max_examples=400, deadline=None)
@example([song(title="Night Train", lyrics="I walk the line\nover it", released_at="2019-12-31")])
@example([song(title="  ", lyrics="1 2 3", genres=[], tags=[None, " rock "])])
@example([song(lyrics="Lyrics by Me\n" + "la la\n" * 9), song(title="One (Live)")])
@given(st.lists(st.one_of(songs_of(plain), songs_of(words)), min_size=1, max_size=3))
def test_as_a_table_says(given: list[dict[str, Any]]) -> None:
    table = pl.DataFrame(given, schema=ABOUT | {DAY_OF_RELEASE: pl.String()})
    assert texts_of(given, FIELDS) == song_texts(table, FIELDS)
    table = table.with_columns(pl.col(DAY_OF_RELEASE).str.to_date("%Y-%m-%d", strict=False))
    found = values_of(given, NAMES)
    for name in NAMES:
        expected = field_values(table, name)
        assert found[name] == expected.to_list(), name
        vocabulary = ["2001", "2019"] if name == "year" else expected.explode().drop_nulls().unique().to_list()[::2]
        for codes in (codes_of(vocabulary), codes_of([])):
            np.testing.assert_array_equal(value_codes(name, found[name], codes), field_codes(name, expected, codes))


def test_most_english_songs_are_simple() -> None:
    lyrics = "I was born by the river\nin a little tent, and just like the river\nI've been running"
    assert is_simple(song(title="A Change Is Gonna Come", lyrics=lyrics, genres=["soul"], released_at="1964-12-22"))
    assert is_simple(song()) and is_simple({})
    parts = {"title": "One (Live)", "lyrics": "[00:01.00]One", "language": "日本語", "genres": ["民谣"]}
    assert not any(is_simple(song(**{name: part})) for name, part in parts.items())
    assert not is_simple(song(lyrics="One\nWords by Me")) and not is_simple(song(released_at="20240101"))
