"""Which columns make a song's text: any of text or lists of text, also those that the contract does not know."""

from __future__ import annotations

import polars as pl
import pytest

from configs.errors import UserError
from datamodules.text import song_texts

SONGS = pl.DataFrame(
    {
        "song_id": ["1", "2", "3"],
        "title": ["Heaven", " ", None],
        "artists": [["A", None, "B"], [], None],
        "mood": pl.Series(["calm", None, "wild"], dtype=pl.Categorical),
        "scenes": pl.Series([["rain"], ["sun", "sea"], None], dtype=pl.List(pl.Enum(["rain", "sun", "sea"]))),
        "popularity": [3, 2, 1],
        "years": [[1999], [2000], []],
    }
)


@pytest.mark.parametrize(
    ("fields", "texts"),
    [
        (["title", "artists"], ["Heaven\nA, B", None, None]),
        (["artists", "title"], ["A, B\nHeaven", None, None]),
        (["mood"], ["calm", None, "wild"]),
        (["title", "scenes", "mood"], ["Heaven\nrain\ncalm", "sun, sea", "wild"]),
        (["song_id"], ["1", "2", "3"]),
    ],
)
def test_any_column_of_text_will_do(fields: list[str], texts: list[str | None]) -> None:
    assert song_texts(SONGS, fields) == texts


@pytest.mark.parametrize("fields", [["artist"], ["popularity"], ["title", "years"], []])
def test_a_column_that_is_no_text_is_told_with_those_that_are(fields: list[str]) -> None:
    with pytest.raises(UserError) as error:
        song_texts(SONGS, fields)
    message = str(error.value)
    assert (fields[-1] if fields else "empty") in message
    assert message.endswith("song_id, title, artists, mood, scenes")
