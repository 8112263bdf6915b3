"""Files of one log that differ in their types: the same plays as from one file, or one line that names the column."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, datetime
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from configs.errors import UserError
from data.contract.dataset import read_dataset
from data.contract.play_files import read_log
from data.contract.play_rules import usable_plays


@pytest.fixture(scope="module")
def logs(
    dirty: Callable[..., Path], mixed: Callable[[Path, Path, Path], None], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path]:
    """The log in one file, and in five of other types."""
    folder = tmp_path_factory.mktemp("logs")
    mixed(dirty(folder / "log"), folder / "plain", folder / "mixed")
    return folder / "plain", folder / "mixed"


@pytest.mark.parametrize("memory_gb", [0.0, 1e-6])
def test_files_of_other_types_are_one_log(logs: tuple[Path, Path], memory_gb: float, tmp_path: Path) -> None:
    plain, mixed = logs
    one = read_dataset(plain)
    check = partial(usable_plays, memory_gb=memory_gb, aside=tmp_path)
    found = read_dataset(mixed, check=check)
    assert len(read_log([str(path) for path in sorted(mixed.glob("plays/*"))])) == 5
    assert (len(found.parts) > 5) == (memory_gb > 0)
    both = (data.plays.sort("user_id", maintain_order=True) for data in (found, one))  # parts follow users.parquet
    assert_frame_equal(*both)
    assert found.rejected == one.rejected and "plays_repeated" in one.rejected
    assert found.notes == one.notes and found.ignored_columns == one.ignored_columns


def write(folder: Path, *plays: dict[str, Any]) -> Path:
    """A data set with a file for each of the plays."""
    (folder / "plays").mkdir()
    pl.DataFrame({"song_id": ["1", "b"]}).write_parquet(folder / "songs.parquet")
    for number, columns in enumerate(plays):
        pl.DataFrame({"user_id": ["u"], "song_id": ["1"]} | columns).write_parquet(
            folder / "plays" / f"{number}.parquet"
        )
    return folder


def test_what_only_a_later_file_has(tmp_path: Path) -> None:
    """A mark of the contract, and a column of the user's own; days beside times, one enumeration beside another."""
    first = {"user_id": [7], "played_at": [date(2024, 1, 1)], "device": pl.Series(["a"], dtype=pl.Enum(["a"]))}
    second = {"favourited": [True], "mood": [["calm"]], "device": pl.Series(["b"], dtype=pl.Enum(["b"]))}
    third = {"song_id": [1], "played_at": [datetime(2024, 1, 2, 5)], "device": pl.Series(["c"], dtype=pl.Categorical)}
    found = read_dataset(write(tmp_path, first, second, third))
    plays = found.plays.sort("device").select("user_id", "song_id", "played_at", "favourited", "mood", "device")
    assert plays.rows() == [
        ("7", "1", datetime(2024, 1, 1), None, None, "a"),
        ("u", "1", None, True, ["calm"], "b"),
        ("u", "1", datetime(2024, 1, 2, 5), None, None, "c"),
    ]
    assert found.ignored_columns["plays"] == ["device", "mood"]


@pytest.mark.parametrize(
    ("one", "other", "words"),
    [
        ({"played_at": ["2024-01-01"]}, {"played_at": [datetime(2024, 1, 1)]}, ["'played_at'", "String", "Datetime"]),
        ({"completed": [True]}, {"completed": [1]}, ["'completed'", "Boolean", "Int64"]),
        ({"mood": [["calm"]]}, {"mood": ["calm"]}, ["'mood'", "List(String)", "String"]),
        ({"song_id": [1.5]}, {}, ["'song_id'", "Float64", "String"]),
        ({"mood": [b"calm"]}, {"mood": ["calm"]}, ["'mood'", "Binary", "String"]),
        ({"played_at": [date(2024, 1, 1)]}, {"played_at": [7]}, ["'played_at'", "Date", "Int64"]),
    ],
)
def test_types_that_do_not_go_together(
    tmp_path: Path, one: dict[str, Any], other: dict[str, Any], words: list[str]
) -> None:
    with pytest.raises(UserError) as error:
        read_dataset(write(tmp_path, one, other))
    message = str(error.value)
    assert all(word in message for word in [*words, "0.parquet", "1.parquet", "write it in one type"]), message
    assert "\n" not in message
