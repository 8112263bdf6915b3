"""The data contract: what stops with one clear line, what is skipped and named, what is kept as it is."""

from __future__ import annotations

from datetime import UTC, date, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from configs.errors import UserError
from data.contract.dataset import read_dataset
from data.contract.play_rules import usable_plays
from data.contract.row_rules import rejection_table

SONGS: dict[str, Any] = {"song_id": ["a", "b", "c"], "title": ["A", None, "C"]}
PLAYS: dict[str, Any] = {"user_id": ["u", "u", "v"], "song_id": ["a", "b", "a"]}


def dataset(folder: Path, **tables: Any) -> Path:
    """Write a dataset folder: good songs and plays unless a table is given (as data, a frame, or None: not written)."""
    for name, table in ({"songs": SONGS, "plays": PLAYS} | tables).items():
        if table is not None:
            pl.DataFrame(table).write_parquet(folder / f"{name}.parquet")
    return folder


def test_smallest_dataset_gets_every_optional_column(tmp_path: Path) -> None:
    data = read_dataset(dataset(tmp_path))
    types = {"lyrics": pl.String, "genres": pl.List(pl.String), "released_at": pl.Datetime("ms")}
    assert types.items() <= data.songs.schema.items() and data.songs.schema["artist_id"] == pl.String
    assert data.plays.schema["favourited"] == pl.Boolean and data.plays.schema["play_count"] == pl.Int64
    assert data.users["user_id"].to_list() == ["u", "v"]
    assert data.feedback is None and data.features == {} and data.rejected == {}
    assert data.songs.height == 3, "a song without plays and title stays"
    assert any("1 of 3 have no play" in note for note in data.notes)
    assert any("1 have no text" in note for note in data.notes)
    assert rejection_table(data.rejected) == "nothing was skipped"


def test_types_are_brought_to_one_form(tmp_path: Path) -> None:
    songs = {
        "song_id": [10, 20],
        "genres": [["Rock"], None],
        "released_at": [date(2024, 1, 1), None],
        "language": pl.Series(["en", "zh"], dtype=pl.Categorical),
        "lyrics": [None, None],
        "my_column": [1.0, 2.0],
    }
    played = pl.Series([datetime(2024, 1, 2, 12, tzinfo=UTC)]).cast(pl.Datetime("ns", "Asia/Shanghai"))
    plays = {"user_id": [1], "song_id": [10], "played_at": played, "play_count": pl.Series([3], dtype=pl.UInt8)}
    data = read_dataset(dataset(tmp_path, songs=songs, plays=plays))
    assert data.songs["song_id"].to_list() == ["10", "20"]
    assert data.songs["released_at"].to_list() == [datetime(2024, 1, 1), None]
    assert data.songs["lyrics"].dtype == data.songs["language"].dtype == pl.String
    assert data.plays.row(0, named=True)["played_at"] == datetime(2024, 1, 2, 12), "times are UTC without a zone"
    assert data.ignored_columns == {"songs": ["my_column"]} and "my_column" in data.songs.columns


@pytest.mark.parametrize(
    ("tables", "words"),
    [
        ({"songs": None}, ["no songs.parquet"]),
        ({"plays": None}, ["no plays.parquet"]),
        ({"songs": {"song": ["a"]}}, ["songs.parquet", "no column 'song_id'", "found: song"]),
        ({"plays": {"user_id": ["u"]}}, ["plays.parquet", "no column 'song_id'"]),
        ({"songs": pl.DataFrame(schema={"song_id": pl.String})}, ["songs.parquet has no rows"]),
        ({"plays": pl.DataFrame(schema={"user_id": pl.String, "song_id": pl.String})}, ["plays.parquet has no rows"]),
        ({"songs": {"song_id": ["a", "b", "a", "b", "c"]}}, ["2 values of 'song_id'", "(a, b)"]),
        ({"songs": {"song_id": ["a", None]}}, ["'song_id' is null in 1 rows"]),
        ({"users": {"user_id": ["u", "v", "v"]}}, ["users.parquet", "'user_id'", "(v)"]),
        ({"songs": {"song_id": [1.5]}}, ["'song_id' has type Float64", "text or integer"]),
        ({"songs": SONGS | {"genres": ["x", "y", "z"]}}, ["'genres' has type String", "list of text"]),
        ({"songs": SONGS | {"released_at": ["2024-01-01"] * 3}}, ["'released_at' has type String", "Datetime or Date"]),
        ({"plays": PLAYS | {"played_at": [1, 2, 3]}}, ["'played_at' has type Int64", "Datetime or Date"]),
        ({"plays": PLAYS | {"completed": [0, 1, 1]}}, ["'completed' has type Int64", "Boolean"]),
        ({"plays": PLAYS | {"play_count": [1.5, 1.0, 1.0]}}, ["'play_count' has type Float64", "integer"]),
        ({"songs": SONGS | {"split": ["warm", "train", "warm"]}}, ["'split' is 'train'", "song b", "cold_val"]),
        ({"songs": SONGS | {"split": ["warm", None, "warm"]}}, ["'split' is 'None'", "song b"]),
        (
            {"songs": SONGS | {"feature_x": [[1.0], [1.0, 2.0], [1.0]]}},
            ["'feature_x' has 2 numbers for song b and 1 for"],
        ),
        ({"songs": SONGS | {"feature_x": [1.0, 2.0, 3.0]}}, ["'feature_x' has type Float64", "list of numbers"]),
        *(
            ({"songs": SONGS | {f"feature_{name}": [[1.0]] * 3}}, [f"'feature_{name}'", "rename it"])
            for name in ("a/b", "../../x", "", ".x", "a|b", "a:b", "x" * 101, " a", "genres", "artist_id")
        ),
        *(
            (
                {"songs": SONGS | {f"feature_{one}": [[1.0]] * 3, f"feature_{other}": [[2.0]] * 3}},
                [f"'feature_{one}' and 'feature_{other}' differ in case or form alone"],
            )
            for one, other in (("Mood", "mood"), ("\uac00", "\u1100\u1161"))
        ),
        ({"songs": SONGS | {"feature_a\nb": [[1.0]] * 3}}, ["'feature_a\\nb'", "rename it"]),
        ({"tags": {"user_id": ["u"], "song_id": ["a"]}}, ["tags.parquet", "no column 'tag'"]),
        ({"tags": {"user_id": ["u"], "song_id": ["a"], "tag": [["x"]]}}, ["tags.parquet", "'tag' has type List"]),
        ({"i2i_feedback": {"source_song_id": ["a"]}}, ["i2i_feedback.parquet", "recommended_song_id"]),
        (
            {"plays": {"user_id": ["u"], "song_id": ["nowhere"]}},
            ["none of the 1 plays", "1 plays of songs not in songs"],
        ),
    ],
)
def test_unusable_tables_stop_with_one_line(tmp_path: Path, tables: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(UserError) as error:
        read_dataset(dataset(tmp_path, **tables))
    message = str(error.value)
    assert all(word in message for word in words), message
    assert "\n" not in message


def test_folders_that_hold_nothing(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="dataset folder not found"):
        read_dataset(tmp_path / "nowhere")
    (dataset(tmp_path, plays=None) / "plays").mkdir()
    with pytest.raises(UserError, match=r"plays holds no Parquet file"):
        read_dataset(tmp_path)


@pytest.mark.parametrize("damage", ["text", "cut", "empty"])
def test_damaged_parquet(tmp_path: Path, damage: str) -> None:
    path = dataset(tmp_path) / "plays.parquet"
    whole = path.read_bytes()
    path.write_bytes({"text": b"user_id,song_id\nu,a\n", "cut": whole[: len(whole) // 2], "empty": b""}[damage])
    with pytest.raises(UserError, match=r"plays\.parquet cannot be read as Parquet") as error:
        read_dataset(tmp_path)
    assert "\n" not in str(error.value)


def test_unusable_plays_are_skipped_counted_and_named(tmp_path: Path) -> None:
    day = datetime(2024, 5, 10, 9)
    songs = SONGS | {"released_at": [day, None, None]}
    rows = [
        ("u", "a", day.replace(hour=1), 1, True, False),  # the same day as the release: kept
        ("u", "a", day.replace(day=8), 1, True, False),  # two days before: skipped
        ("u", "b", None, 1, None, None),
        ("u", "b", None, 1, None, None),  # repeat
        ("u", "zzz", None, 1, None, None),  # unknown song, twice
        ("v", "zzz", None, 1, None, None),
        ("ghost", "a", None, 1, None, None),
        (None, "a", None, 1, None, None),
        ("v", "a", None, 0, None, None),
        ("v", "b", None, -2, None, None),
        ("v", "c", None, 1, True, True),  # loved and hated at once
    ]
    names = ["user_id", "song_id", "played_at", "play_count", "favourited", "disliked"]
    plays = pl.DataFrame(rows, schema=names, orient="row", infer_schema_length=None)
    users = {"user_id": ["u", "v", "w"], "age": [1, 2, 3]}
    data = read_dataset(dataset(tmp_path, songs=songs, plays=plays, users=users))
    assert {key: entry["count"] for key, entry in data.rejected.items()} == {
        "plays_without_id": 1,
        "plays_of_unknown_songs": 2,
        "plays_of_unknown_users": 1,
        "plays_before_release": 1,
        "plays_without_count": 2,
        "plays_contradictory": 1,
        "plays_repeated": 1,
    }
    assert data.rejected["plays_of_unknown_songs"]["examples"] == ["zzz"]
    assert data.rejected["plays_without_id"]["examples"] == ["null / a"]
    assert sorted(data.plays.select("user_id", "song_id").rows()) == [("u", "a"), ("u", "b")]
    assert data.users.height == 3, "users without plays stay"
    table = rejection_table(data.rejected)
    assert len(table.splitlines()) == 8 and "ghost" in table


@pytest.mark.parametrize("zone", ["Asia/Shanghai", "Pacific/Kiritimati", "Pacific/Pago_Pago", "UTC"])
def test_the_first_hour_of_a_day_of_release(zone: str, tmp_path: Path) -> None:
    """A day of release is that of its place: plays in its first hour count, wherever that is."""
    first = pl.Series([datetime(2026, 3, 1, 0, 30)]).dt.replace_time_zone(zone)
    songs = SONGS | {"released_at": [date(2026, 3, 1)] * 3}
    plays = {"user_id": ["u"], "song_id": ["a"], "played_at": first}
    for folder, times in (("zone", first), ("utc", first.dt.convert_time_zone("UTC").dt.replace_time_zone(None))):
        (tmp_path / folder).mkdir()
        data = read_dataset(dataset(tmp_path / folder, songs=songs, plays=plays | {"played_at": times}))
        assert data.plays.height == 1 and data.rejected == {}
        assert data.zone == (zone if folder == "zone" else None)
    midnight = pl.Series([datetime(2026, 3, 1)] * 3).dt.replace_time_zone(zone)
    data = read_dataset(dataset(tmp_path / "utc", songs=SONGS | {"released_at": midnight}, plays=plays))
    assert data.songs["released_at"].to_list() == [datetime(2026, 3, 1)] * 3, "the day there, not in UTC"
    assert data.plays.height == 1 and data.rejected == {} and data.zone == zone


@pytest.mark.parametrize(
    "values",
    [
        [[1], [2], [1], None, [], [None], [], None],
        [{"x": 1, "y": ["p"]}, {"x": 1, "y": ["q"]}, {"x": 1, "y": ["p"]}, {"x": None, "y": None}, {"x": 1, "y": None}],
        [[{"x": "p"}], [{"x": "q"}], [{"x": "p"}], [{"x": "p"}, {"x": "p"}], [None], None],
        [[["p"], []], [["p"]], [[], ["p"]], [["p"], []]],
    ],
    ids=["list", "struct", "structs", "lists"],
)
def test_a_repeat_is_equal_in_nested_columns_too(tmp_path: Path, values: list[Any]) -> None:
    """Rows that differ in one nested column alone: each value is kept once, where it was first."""
    plays = {"user_id": ["u"] * len(values), "song_id": ["a"] * len(values), "context": values}
    data = read_dataset(dataset(tmp_path, plays=plays))
    once = [value for row, value in enumerate(values) if value not in values[:row]]
    assert data.plays["context"].to_list() == once
    assert data.rejected["plays_repeated"]["count"] == len(values) - len(once) > 0


def test_examples_are_at_most_five(tmp_path: Path) -> None:
    plays = {"user_id": ["u"] * 8, "song_id": ["a", *"tuvwxyz"]}
    entry = read_dataset(dataset(tmp_path, plays=plays)).rejected["plays_of_unknown_songs"]
    assert entry["count"] == 7 and entry["examples"] == list("tuvwx")


def test_plays_out_of_time_order_are_sorted_and_noted(tmp_path: Path) -> None:
    days = [datetime(2024, 1, day) for day in (3, 1, 2)]
    plays = {"user_id": ["u", "u", "u"], "song_id": ["a", "b", "c"], "played_at": days}
    data = read_dataset(dataset(tmp_path, plays=plays))
    assert data.plays["song_id"].to_list() == ["b", "c", "a"]
    assert any("1 rows were not in time order" in note for note in data.notes)
    (tmp_path / "again").mkdir()
    sorted_plays = {"user_id": ["v", "u", "v"], "song_id": ["a", "b", "c"], "played_at": sorted(days)}
    data = read_dataset(dataset(tmp_path / "again", plays=sorted_plays))
    assert not any("time order" in note for note in data.notes)


@pytest.mark.parametrize("dtype", [pl.Array(pl.Float32, 2), pl.List(pl.Float64)])
def test_feature_vectors(tmp_path: Path, dtype: pl.DataType) -> None:
    ids = ["a", "b", "c", "d", "e"]
    values = [[1.0, 2.0], None, [3.0, float("nan")], [4.0, float("inf")], [None, 5.0]]
    songs = pl.DataFrame({"song_id": ids, "feature_x": pl.Series(values, dtype=dtype), "feature_none": [None] * 5})
    data = read_dataset(dataset(tmp_path, songs=songs))
    matrix = data.features["x"]
    assert matrix.dtype == np.float32 and matrix.shape == (5, 2)
    np.testing.assert_array_equal(matrix[0], [1, 2])
    assert np.isnan(matrix[1:]).all()
    assert data.rejected["feature_x_not_finite"]["count"] == 3
    assert data.rejected["feature_x_not_finite"]["examples"] == ["c", "d", "e"]
    assert list(data.features) == ["x"] and "feature_x" not in data.songs.columns
    assert data.songs.height == 5


def test_feedback_rows_that_cannot_be(tmp_path: Path) -> None:
    rows = [
        ("a", "b", 10, 4, 2),
        ("b", "a", 0, 0, 0),
        ("a", "c", 10, 11, 0),  # more completes than plays
        ("b", "c", 10, 1, 11),  # more favourites than plays
        ("c", "b", -1, -1, -1),
        ("c", "a", None, 1, 1),
        ("a", "a", 5, 1, 1),
        ("a", "zzz", 5, 1, 1),
    ]
    names = ["source_song_id", "recommended_song_id", "plays", "completes", "favourites"]
    data = read_dataset(dataset(tmp_path, i2i_feedback=pl.DataFrame(rows, schema=names, orient="row")))
    assert data.feedback is not None and data.feedback.height == 2
    counted = {key: entry["count"] for key, entry in data.rejected.items()}
    assert counted == {"feedback_of_unknown_songs": 1, "feedback_on_itself": 1, "feedback_impossible": 4}


def test_tags_that_nobody_gave_or_to_nothing(tmp_path: Path) -> None:
    rows = [
        ("u", "a", " folk "),
        ("u", "a", "folk"),  # the same once more
        ("ghost", "c", "folk"),  # who has no play may give a tag
        ("u", "zzz", "folk"),
        (None, "a", "folk"),
        ("u", "a", None),
        ("u", "a", "  "),
    ]
    tags = pl.DataFrame(rows, schema=["user_id", "song_id", "tag"], orient="row").with_columns(day=pl.lit(1))
    data = read_dataset(dataset(tmp_path, tags=tags, songs={"song_id": ["a", "b", "c"]}))
    assert data.tag_assignments is not None
    assert data.tag_assignments.rows() == [("u", "a", "folk"), ("ghost", "c", "folk")]
    counted = {key: entry["count"] for key, entry in data.rejected.items()}
    assert counted == {"tags_incomplete": 3, "tags_of_unknown_songs": 1, "tags_repeated": 1}
    assert data.ignored_columns == {"tags": ["day"]}
    assert any("1 have no text" in note for note in data.notes), "b alone is described by nothing"


def test_reserved_columns_are_left_out_and_said(tmp_path: Path) -> None:
    data = read_dataset(dataset(tmp_path, songs=SONGS | {"popularity": [1, 2, 3]}))
    assert "popularity" not in data.songs.columns
    assert any("popularity" in note for note in data.notes)


def test_what_is_blank_is_missing(tmp_path: Path) -> None:
    """No label, no artist, no language, no user of that name; names keep the white space that is part of them."""
    songs = {
        "song_id": ["a", " b", "c"],
        "genres": [["", "  ", None], [" folk ", "", "pop", "folk"], []],
        "tags": pl.Series([[""], ["x y"], None], dtype=pl.List(pl.Categorical)),
        "artist_id": ["", " z", "\u00a0"],
        "title": ["\n", " One ", None],
        "language": [" en", "", " "],
        "audio_path": ["", " a.wav", None],
    }
    plays = {"user_id": ["u", "", " ", None, " v"], "song_id": [" b", "a", "a", "a", ""]}
    data = read_dataset(dataset(tmp_path, songs=songs, plays=plays))
    assert data.songs.select(*songs).to_dict(as_series=False) == {
        "song_id": ["a", " b", "c"],
        "genres": [None, ["folk", "pop"], None],
        "tags": [None, ["x y"], None],
        "artist_id": [None, "z", None],
        "title": [None, "One", None],
        "language": ["en", None, None],
        "audio_path": [None, " a.wav", None],
    }
    assert data.plays.select("user_id", "song_id").rows() == [("u", " b")]
    assert data.rejected["plays_without_id"]["count"] == 4
    assert any("songs: 1 have no text, category" in note for note in data.notes), "c"
    (tmp_path / "songs").mkdir()
    with pytest.raises(UserError, match="'song_id' is null in 1 rows"):
        read_dataset(dataset(tmp_path / "songs", songs={"song_id": ["a", ""]}))


@pytest.mark.parametrize("memory_gb", [0.0, 1e-9])
def test_song_ids_match_in_either_unicode_form(tmp_path: Path, memory_gb: float) -> None:
    """As songs.parquet has them; two songs whose ids differ in nothing else stay two."""
    composed, apart = "caf\u00e9", "cafe\u0301"
    both = ["x \u0439", "x \u0438\u0306"]
    songs = {"song_id": ["a", composed + "1", apart + "2", *both]}
    ids = [composed + "1", apart + "1", composed + "2", apart + "2", *both, "a", composed]
    tables: dict[str, Any] = {
        "plays": {"user_id": [f"u{n}" for n in range(len(ids))], "song_id": ids},
        "tags": {"user_id": ["u"] * len(ids), "song_id": ids, "tag": [f"t{n}" for n in range(len(ids))]},
        "i2i_feedback": {"source_song_id": ids, "recommended_song_id": ["a"] * len(ids),
                         **dict.fromkeys(("plays", "completes", "favourites"), [1] * len(ids))},
    }  # fmt: skip
    check = partial(usable_plays, memory_gb=memory_gb, aside=tmp_path)
    data = read_dataset(dataset(tmp_path, songs=songs, **tables), check=check)
    wanted = [composed + "1"] * 2 + [apart + "2"] * 2 + both
    assert data.plays["song_id"].to_list() == [*wanted, "a"]
    assert data.tag_assignments is not None and data.tag_assignments["song_id"].to_list() == [*wanted, "a"]
    assert data.feedback is not None and data.feedback["source_song_id"].to_list() == wanted
    assert data.rejected["plays_of_unknown_songs"]["examples"] == [composed]


@pytest.mark.parametrize("memory_gb", [0.0, 1e-9])
def test_names_that_are_used_inside_mislead_nobody(tmp_path: Path, memory_gb: float) -> None:
    """In one chunk and in several: the plays are those without these columns, but for what is harmless."""
    names = ["_row", "_part", "_song", "_user", "_released_at", "_file", "_key", "_back", "_warm", "_metadata", "user"]
    odd, plays = ["_plays", "_ROW", "row"], pl.concat([pl.DataFrame(PLAYS)] * 2000)
    read = []
    for folder, columns in (("plain", odd), ("odd", odd + names)):
        (tmp_path / folder / "aside").mkdir(parents=True)
        extra = plays.with_columns(pl.int_range(pl.len()).alias(name) for name in columns)
        dataset(tmp_path / folder, plays=extra, users={"user_id": ["u", "v"]})
        check = partial(usable_plays, memory_gb=memory_gb, aside=tmp_path / folder / "aside")
        read.append(read_dataset(tmp_path / folder, check=check))
    plain, found = read
    assert len(found.parts) == (2 if memory_gb else 1) and found.plays.height == 6000
    assert found.plays.equals(plain.plays) and set(odd) < set(found.plays.columns)
    assert any(all(name in note for name in names) and "left out" in note for note in found.notes)


def test_an_index_of_pandas_is_no_column(tmp_path: Path) -> None:
    """Neither a profile of users nor what tells two plays apart."""
    index = ["__index_level_0__", "__index_level_1__", "Unnamed: 0", "Unnamed: 0.1", "index", "level_0", ""]
    tables = {"songs": SONGS, "plays": PLAYS, "users": {"user_id": ["u", "v"], "age": [3, 4]}}
    written = {name: pl.DataFrame(table) for name, table in tables.items()}
    written["plays"] = pl.concat([written["plays"]] * 2)
    for name, table in written.items():
        written[name] = table.with_columns(pl.int_range(pl.len()).reverse().alias(column) for column in index)
    data = read_dataset(dataset(tmp_path, **written))
    assert data.users.columns == ["user_id", "age"] and not set(index) & {*data.plays.columns, *data.songs.columns}
    assert data.rejected["plays_repeated"]["count"] == 3 and data.ignored_columns == {}
    for name in tables:
        said = ", ".join(index[:-1])
        assert any(f"{name}.parquet: column {said}, without a name left out" in note for note in data.notes)


@pytest.mark.parametrize("column", ["index", "level_0", "Unnamed"])
def test_texts_are_no_index(column: str, tmp_path: Path) -> None:
    """A finger, a region: a profile that has the name of an index."""
    users = {"user_id": ["u", "v"], column: ["north", "south"]}
    assert column in read_dataset(dataset(tmp_path, songs=SONGS, plays=PLAYS, users=users)).users.columns


def test_the_example_of_the_documentation_is_a_dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (Path(__file__).parents[3] / "docs" / "data.md").read_text()
    monkeypatch.chdir(tmp_path)
    exec(page.split("```python\n")[1].split("```")[0], {})
    data = read_dataset("my_music")
    assert (data.songs.height, data.plays.height, data.users.height) == (90, 1080, 60)
    assert data.rejected == {} and data.ignored_columns == {}


def test_names_of_folders_are_no_patterns(tmp_path: Path) -> None:
    """A folder "set [1]" beside a folder "set 1"."""
    for folder, song in (("set [1]", "right"), ("set 1", "wrong")):
        (tmp_path / folder / "plays" / "country=DE").mkdir(parents=True)
        pl.DataFrame({"song_id": [song]}).write_parquet(tmp_path / folder / "songs.parquet")
        plays = pl.DataFrame({"user_id": ["u"], "song_id": [song], "row": [7]})
        plays.write_parquet(tmp_path / folder / "plays" / "country=DE" / "a [1].parquet")
        more = plays.with_columns(extra=pl.lit(1), user_id=pl.lit("v"))
        more.write_parquet(tmp_path / folder / "plays" / "z.parquet")  # a later file has one more column
    found = read_dataset(tmp_path / "set [1]")
    assert found.songs["song_id"].to_list() == ["right"]
    assert sorted(pl.concat(found.parts).collect()["user_id"]) == ["u", "v"]
