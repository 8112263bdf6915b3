"""Words and category fields of songs one at a time, in plain Python where their words are simple.

A service takes in one song after another. For a table of one row polars takes a hundred times as long as Python, most
of it to wake its threads. Python's regular expressions and white space are not quite those of polars, so that only
simple words are looked at here: ASCII, of which `data.words` leaves nothing out. For these the rules are short, and
the same (tests/data/test_simple_songs.py). All other songs are put into a table.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from datetime import date
from typing import Any, TypeVar

import polars as pl

from data.contract.columns import ABOUT, DAY_OF_RELEASE
from data.derived_fields import DERIVED, READ
from data.fields import field_values
from data.text import song_texts
from data.words import DONE

About = dict[str, Any]  # a song's words, tags and day of release (YYYY-MM-DD) by column
T = TypeVar("T")
Values = list[list[str | None] | None]  # of a category field of songs
# What no title has that has a mark of its version, and no lyrics with time stamps, heads or credits; and how a line
# of credits without a colon begins.
IN_TITLES, IN_LYRICS = ("(", "[", "-", " feat", " ft"), ("[", ":")
DAY = re.compile("(?:[1-9][0-9]{3}-[0-9]{2}-[0-9]{2})?")  # or none
CREDIT = tuple(word.rstrip("?").removesuffix("s") for word in DONE.split("|"))


def is_simple(about: About) -> bool:
    """Whether words are ASCII, and title and lyrics have nothing that would be left out of them."""
    texts = [about.get(name) for name in ("title", "lyrics", "language", "artist_id")]
    labels = [label for name in ("genres", "tags") for label in about.get(name) or ()]
    if not all(text.replace("\n", "").isprintable() and text.isascii() for text in (*texts, *labels) if text):
        return False
    title, lyrics = ((text or "").lower() for text in texts[:2])
    return (
        DAY.fullmatch(about.get(DAY_OF_RELEASE) or "") is not None
        and "\n" not in title
        and not any(part in title for part in IN_TITLES)
        and not any(part in lyrics for part in IN_LYRICS)
        and not any(line.lstrip().startswith(CREDIT) for line in lyrics.split("\n"))
    )


def texts_of(songs: Sequence[About], fields: Sequence[str]) -> list[str | None]:
    """As `song_texts` of a table; the fields are of ABOUT."""
    return _each(
        songs, lambda about: _text(about, fields), lambda others: song_texts(pl.DataFrame(others, schema=ABOUT), fields)
    )


def values_of(songs: Sequence[About], names: Iterable[str]) -> dict[str, Values]:
    """Values of category fields, given or derived, as `field_values` of a table."""
    names = list(names)
    rows = _each(
        songs, lambda about: [_values(about, name) for name in names], lambda others: _in_a_table(others, names)
    )
    return {name: [row[at] for row in rows] for at, name in enumerate(names)}


def _each(
    songs: Sequence[About], of_simple: Callable[[About], T], of_others: Callable[[list[About]], list[T]]
) -> list[T]:
    """What each song has: simple ones by themselves, the others in a table."""
    simple = [is_simple(about) for about in songs]
    others = [about for about, plain in zip(songs, simple, strict=True) if not plain]
    found = iter(of_others(others) if others else ())
    return [of_simple(about) if plain else next(found) for about, plain in zip(songs, simple, strict=True)]


def _in_a_table(songs: list[About], names: list[str]) -> list[list[list[str | None] | None]]:
    """Values of each song."""
    needed = {column for name in names for column in (DERIVED[name][0] if name in DERIVED else (name,))}
    types = {name: dtype for name, dtype in (ABOUT | {DAY_OF_RELEASE: pl.String()}).items() if name in needed}
    table = pl.DataFrame([{name: about.get(name) for name in types} for about in songs], schema=types)
    if DAY_OF_RELEASE in types:
        table = table.with_columns(pl.col(DAY_OF_RELEASE).str.to_date("%Y-%m-%d", strict=False))
    columns = [field_values(table, name).to_list() for name in names]
    return [[column[row] for column in columns] for row in range(len(songs))]


def _text(about: About, fields: Sequence[str]) -> str | None:
    """The text of a simple song."""
    given = [about.get(name) for name in fields]
    parts = [", ".join(text for text in one if text is not None) if isinstance(one, list) else one or ""
             for one in given]  # fmt: skip
    return "\n".join(filter(None, (part.strip() for part in parts))) or None


def _values(about: About, name: str) -> list[str | None] | None:
    """Values of a field of a simple song."""
    if name == "script":
        read = "".join((about.get(column) or "").strip()[:READ] for column in DERIVED[name][0])
        return ["Latin"] if any(map(str.isalpha, read)) else None
    if name == "year":
        try:
            return [str(date.fromisoformat(about.get(DAY_OF_RELEASE) or "").year)]
        except ValueError:  # none, or the 30th of February
            return None
    if name in DERIVED:  # version: a simple title has no mark
        return None
    given = about.get(name)
    return [given] if isinstance(given, str) else given
