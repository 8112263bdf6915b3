"""Category fields that follow from other columns of a song: scripts of its words, year of release, kind of version.

Each is a column of lists of strings, null where a song says nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import polars as pl

from data.arrays import IntArray
from data.words import plain, plain_titles, versions

SCRIPTS = (
    *("Latin", "Han", "Hiragana", "Katakana", "Hangul", "Cyrillic", "Greek", "Georgian", "Armenian", "Arabic"),
    *("Hebrew", "Devanagari", "Bengali", "Gurmukhi", "Gujarati", "Tamil", "Telugu", "Kannada", "Malayalam", "Sinhala"),
    *("Thai", "Lao", "Khmer", "Myanmar", "Tibetan", "Mongolian", "Ethiopic"),
)  # as Unicode names them
LETTERS = [pl.col("words").str.count_matches(rf"[\p{{{script}}}&&\p{{L}}]").alias(script) for script in SCRIPTS]
READ = 1000  # characters of a text whose letters are counted: more of long lyrics are in no other script
CHUNK = 100_000  # songs whose words are held at a time

LISTS = pl.List(pl.String)


def scripts(songs: pl.DataFrame) -> pl.Series:
    """Scripts of the letters of title and lyrics, the one of most letters first, ties in alphabetical order.

    A version mark does not count: "(Live)" behind a Chinese title is no Latin word of it.
    """
    parts = [_scripts(plain(songs[at : at + CHUNK])) for at in range(0, songs.height, CHUNK)]
    return pl.concat([pl.Series(dtype=LISTS), *parts])


def _scripts(songs: pl.DataFrame) -> pl.Series:
    if "title" in songs.columns:
        songs = songs.with_columns(plain_titles(songs["title"].cast(pl.String)).alias("title"))
    words = pl.concat_str(pl.col(name).str.head(READ).fill_null("") for name in songs.columns)
    letters = songs.select(words.alias("words")).select(LETTERS)
    counted = letters.with_row_index("song").unpivot(index="song", variable_name="script", value_name="letters")
    found = counted.filter(pl.col("letters") > 0).sort("song", "letters", "script", descending=[False, True, False])
    of_song = found.group_by("song", maintain_order=True).agg("script")
    return letters.with_row_index("song").join(of_song, on="song", how="left", maintain_order="left")["script"]


def years(songs: pl.DataFrame) -> pl.Series:
    """Year of release."""
    year = pl.col("released_at").dt.year().cast(pl.String)
    return songs.select(pl.when(year.is_not_null()).then(pl.concat_list(year)))["released_at"]


def nearest_years(values: pl.Series, known: Iterable[str | None]) -> pl.Series:
    """The nearest of the known years for each year, of two as near the earlier; as they are if none is known.

    New songs come out in years of which training has seen few songs or none. As "unknown" they would all get an
    embedding that was never trained; the newest year that training knows says most of what their own year would.
    """
    known_K = _in_order(known)
    if not len(known_K):
        return values
    year = values.list.first().cast(pl.Int32)
    nearest = pl.DataFrame({"year": year, "nearest": _nearest(year.fill_null(0).to_numpy(), known_K)})
    nearest = nearest.with_columns(pl.col("nearest").cast(pl.String))
    return nearest.select(pl.when(pl.col("year").is_not_null()).then(pl.concat_list("nearest")))["nearest"]


def nearest_year(values: Sequence[str | None] | None, known: Iterable[str | None]) -> Sequence[str | None] | None:
    """`nearest_years` of one song."""
    known_K = _in_order(known)
    if not len(known_K) or not values or values[0] is None:
        return values
    return [str(_nearest(int(values[0]), known_K))]


def _in_order(known: Iterable[str | None]) -> IntArray:
    return np.array(sorted(int(year) for year in known if year is not None), dtype=np.int64)


def _nearest(year_N: Any, known_K: IntArray) -> Any:
    return known_K[np.searchsorted((known_K[1:] + known_K[:-1]) / 2, year_N)]


# by name: the columns that a field is made of, of which those that are there are enough, and how
DERIVED: dict[str, tuple[tuple[str, ...], Callable[[pl.DataFrame], pl.Series]]] = {
    "script": (("title", "lyrics"), scripts),
    "year": (("released_at",), years),
    "version": (("title",), versions),
}


def derived_values(songs: pl.DataFrame, name: str) -> pl.Series:
    """Values of a derived field of songs."""
    needs, make = DERIVED[name]
    columns = [column for column in needs if column in songs.columns]
    return make(songs.select(columns)) if columns else pl.Series([None], dtype=LISTS).new_from_index(0, songs.height)
