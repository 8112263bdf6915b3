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
from data.contract.play_files import common_type, read_log
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
    """A mark of the contract, and a column of the user's own."""
    source = write(tmp_path, {"user_id": [7]}, {"favourited": [True], "mood": [["calm"]]}, {"song_id": [1]})
    found = read_dataset(source)
    assert found.plays["user_id"].to_list() == ["7", "u", "u"]
    assert found.plays["favourited"].to_list() == [None, True, None]
    assert found.plays["mood"].to_list() == [None, ["calm"], None]
    assert found.ignored_columns["plays"] == ["mood"]


@pytest.mark.parametrize(
    ("one", "other", "words"),
    [
        ({"played_at": ["2024-01-01"]}, {"played_at": [datetime(2024, 1, 1)]}, ["'played_at'", "String", "Datetime"]),
        ({"completed": [True]}, {"completed": [1]}, ["'completed'", "Boolean", "Int64"]),
        ({"mood": [["calm"]]}, {"mood": ["calm"]}, ["'mood'", "List(String)", "String"]),
        ({"song_id": [1.5]}, {}, ["'song_id'", "Float64", "String"]),
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


def test_one_type_for_several() -> None:
    def of(*dtypes: Any) -> Any:
        return common_type([pl.Series([], dtype=dtype).dtype for dtype in dtypes])

    assert of(pl.Null) == of(pl.Null, pl.Null) == pl.Null
    assert of(pl.Null, pl.List(pl.Int8)) == pl.List(pl.Int8)
    assert of(pl.Int8, pl.UInt32) == pl.Int64 and of(pl.Int8) == pl.Int8
    assert of(pl.Int64, pl.Float32) == of(pl.Float32, pl.Float64) == pl.Float64
    assert of(pl.Categorical, pl.Int8) == of(pl.Enum(["a"]), pl.Enum(["b"])) == of(pl.String, pl.Int64) == pl.String
    assert of(pl.Date, pl.Datetime("ns", "Asia/Shanghai")) == of(pl.Datetime("ms"), pl.Datetime("ns"))
    assert of(pl.Date, pl.Datetime("ms")) == pl.Datetime("us")
    for dtypes in ((pl.Float64, pl.String), (pl.Boolean, pl.Int8), (pl.Binary, pl.String), (pl.Date, pl.Int64)):
        assert of(*dtypes) is None


def test_days_beside_times(tmp_path: Path) -> None:
    found = read_dataset(write(tmp_path, {"played_at": [date(2024, 1, 2)]}, {"played_at": [datetime(2024, 1, 1, 5)]}))
    assert found.plays["played_at"].to_list() == [datetime(2024, 1, 1, 5), datetime(2024, 1, 2)]
