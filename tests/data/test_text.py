"""Which columns make a song's text: any of text or lists of text, also those that the contract does not know."""

from __future__ import annotations

import polars as pl
import pytest

from configs.errors import UserError
from data.text import song_texts, text_numbers, text_variants

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


def test_a_variant_keeps_some_tags_in_some_order_and_everything_else() -> None:
    many = [f"tag{n}" for n in range(40)]
    table = SONGS.with_columns(
        pl.Series("genres", [["rock", "pop"], ["jazz"], None]), pl.Series("tags", [many, ["a", None], None])
    )
    fields = ["title", "genres", "tags"]
    found = text_variants(table, fields, 30, 0.5)
    assert found == text_variants(table, fields, 30, 0.5) and found[0] == song_texts(table, fields)
    kept, orders = [], set()
    for first, second, third in found[1:]:
        title, *rest = str(first).split("\n")
        tags = rest[-1].split(", ")
        assert title == "Heaven" and set(tags) <= set(many) and len(set(tags)) == len(tags)
        assert len(rest) == 1 or set(rest[0].split(", ")) <= {"rock", "pop"}
        kept.append(len(tags))
        orders.add(tuple(tags) == tuple(sorted(tags, key=many.index)))
        assert second in {"jazz\na", "jazz", "a"} and third is None
    assert 15 < sum(kept) / 30 < 25 and len(set(kept)) > 5 and False in orders
    assert len({second for _, second, _ in found}) == 3
    assert text_variants(table, fields, 0, 0.5) == found[:1]
    assert {first for first, *_ in text_variants(table, ["title"], 3, 0.5)} == {"Heaven"}


def test_texts_have_one_number_exactly_if_they_are_equal() -> None:
    lists = [["a", None, "b\nc"], ["", "a", "b\nc"], ["B", "", "a"]]
    flat = [number for one in text_numbers(lists) for number in one]
    texts = [text or "" for one in lists for text in one]
    for first, one in zip(texts, flat, strict=True):
        assert [one == other for other in flat] == [first == second for second in texts]
    assert [one.tolist() for one in text_numbers([[]])] == [[]]
