"""Fields that follow from other columns, against loops over characters and years."""

from __future__ import annotations

import unicodedata
from collections import Counter
from datetime import date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from configs.errors import UserError
from data import derived_fields
from data.derived_fields import READ, derived_values, nearest_years
from data.fields import UNKNOWN, read_fields
from tests.data.test_fields import GENRES, features_folder, small

NAMED = {"CJK": "Han", "LATIN": "Latin", "HIRAGANA": "Hiragana", "KATAKANA": "Katakana", "HANGUL": "Hangul",
         "CYRILLIC": "Cyrillic", "ARABIC": "Arabic", "DEVANAGARI": "Devanagari", "GREEK": "Greek"}  # fmt: skip
TEXTS = ["Night Train", "雨の夜", "Ночь (mystery)", "1999 – 2000!", "", None, "사랑 love 사랑"]
TEXTS += ["İstanbul ﬁre é", "कथा", "ギター", "ليل"]


def script_of(character: str) -> str | None:
    """By its name, which begins with the script's."""
    letter = unicodedata.category(character).startswith("L")
    return NAMED.get(unicodedata.name(character, "").split()[0] if letter else "")


def test_scripts_against_a_loop_over_characters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(derived_fields, "CHUNK", 7)
    rng = np.random.default_rng(0)
    songs = {name: [TEXTS[at] for at in rng.integers(len(TEXTS), size=80)] for name in ("title", "lyrics")}
    songs["lyrics"][:2] = ["ж" * 3 * READ, "1" * READ + "ж"]
    expected = []
    for texts in zip(*songs.values(), strict=True):
        counted = Counter(script_of(character) for text in texts for character in (text or "")[:READ])
        ordered = sorted((-count, script) for script, count in counted.items() if script)
        expected.append([script for _, script in ordered] or None)
    found = derived_values(pl.DataFrame(songs, schema_overrides=dict.fromkeys(songs, pl.String)), "script")
    assert found.to_list() == expected
    assert None in expected and ["Hangul", "Latin"] in expected and max(len(one) for one in expected if one) > 2
    assert found.dtype == derived_values(pl.DataFrame({"title": []}, schema={"title": pl.String}), "script").dtype
    assert derived_values(pl.DataFrame({"other": [1, 2]}), "script").to_list() == [None, None]


def test_the_year_of_a_day_and_of_a_time() -> None:
    days = [date(2019, 12, 31), None, date(1975, 1, 1)]
    for dtype in (pl.Date, pl.Datetime("ms"), pl.Datetime("us")):
        songs = pl.DataFrame({"released_at": pl.Series(days).cast(dtype)})
        assert derived_values(songs, "year").to_list() == [["2019"], None, ["1975"]]


def test_the_nearest_known_year_against_a_loop() -> None:
    years = [*range(1950, 2040), None]
    values = pl.Series([None if year is None else [str(year)] for year in years], dtype=pl.List(pl.String))
    for known in ([2019], [2020, 1999, 2003], [2020, 2019, 2016]):
        found = nearest_years(values, [None, *map(str, known)]).to_list()
        wanted = [year and [str(min(known, key=lambda one: (abs(one - year), one)))] for year in years]
        assert found == wanted
    assert nearest_years(values, [None]).equals(values), "nothing is known"
    assert nearest_years(values[:0], ["2019"]).to_list() == []


def dated(folder: Path, **columns: Any) -> Any:
    """Six songs, of which the last two are new and of a later year."""
    return small(folder, released_at=[datetime(year, 5, 1) for year in (2017, 2017, 2019, 2019, 2021, 2022)], **columns)


def test_a_new_year_is_that_of_the_newest_known_songs(tmp_path: Path) -> None:
    fields = read_fields(dated(tmp_path, title=["雨", "a", "雨 雨", "a", "雨", "бы"]), None, [], 2)
    assert fields.vocabulary == {"script": ["Han", "Latin"], "year": ["2017", "2019"]}
    assert fields.codes["year"][:, 0].tolist() == [2, 2, 3, 3, 3, 3]
    assert fields.codes["script"][:, 0].tolist() == [2, 3, 2, 3, 2, UNKNOWN]


def test_a_field_in_which_all_known_songs_agree_is_left_out_unless_asked_for(tmp_path: Path) -> None:
    same = {"title": ["a", "b", "c d", "e", "я", "f"], "language": ["en"] * 6, "artist_id": list("uvwxyz")}
    catalogue = dated(tmp_path, genres=GENRES, **same)
    assert list(read_fields(catalogue, None, [], 2).codes) == ["genres", "year"]
    assert list(read_fields(catalogue, None, ["script", "language"], 2).codes) == ["script", "language"]
    assert list(read_fields(catalogue, None, [], 1).codes) == ["genres", "artist_id", "year"], "each another artist"


def test_nothing_but_fields_in_which_all_agree_is_no_field(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no field to learn from"):
        read_fields(small(tmp_path, title=["a"] * 6), None, [], 1)


def test_an_earlier_run_has_the_fields_of_its_vocabulary(tmp_path: Path) -> None:
    catalogue = dated(tmp_path, genres=GENRES, title=["雨", "a"] * 3)
    assert list(read_fields(catalogue, None, [], 2, {"genres": ["jazz"]}).codes) == ["genres"]
    fields = read_fields(catalogue, None, [], 2, {"genres": ["jazz"], "year": ["2018", "2015"]})
    assert fields.codes["year"][:, 0].tolist() == [2] * 6
    assert read_fields(catalogue, None, [], 1, {}).codes == {}


def test_a_vector_of_that_name_takes_its_place(tmp_path: Path) -> None:
    catalogue = dated(tmp_path / "c", genres=GENRES)
    folder = features_folder(tmp_path / "f", catalogue, year=np.zeros((6, 3), np.float32))
    fields = read_fields(catalogue, str(folder), [], 2)
    assert (list(fields.dense), list(fields.codes)) == (["year"], ["genres"])
