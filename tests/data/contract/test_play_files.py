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
from data.contract.play_files import as_parquet, read_log
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
    assert len(read_log([str(path) for path in sorted(mixed.glob("plays/*"))], [])) == 5
    assert (len(found.parts) > 5) == (memory_gb > 0)
    both = (data.plays.sort("user_id", maintain_order=True) for data in (found, one))  # parts follow users.parquet
    assert_frame_equal(*both)
    assert found.rejected == one.rejected and "plays_repeated" in one.rejected
    assert found.notes == one.notes and found.ignored_columns == one.ignored_columns


def write(folder: Path, *plays: dict[str, Any]) -> Path:
    """A data set with a file for each of the plays."""
    (folder / "plays").mkdir(parents=True)
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


WIDTHS = {
    "small": pl.Series([7, 9], dtype=pl.UInt8),
    "pandas": pl.Series([7.0, 9.0, float("nan"), None]),
    "narrow": pl.Series([7.0, 9.0], dtype=pl.Float32),
    "narrower": pl.Series([7.0, 9.0], dtype=pl.Float16),
    "number": pl.Series([7, 9], dtype=pl.Decimal(38, 0)),
    "hashed": pl.Series([2**63 + 7, 7, 9], dtype=pl.UInt64),
    "signed": pl.Series([-(2**62) - 1, 7, 9]),
    "text": pl.Series(["7", "9"]),
}


@pytest.mark.parametrize("kinds", [*([kind] for kind in WIDTHS), list(WIDTHS)], ids="-".join)
def test_ids_of_any_width_are_one_text(kinds: list[str], tmp_path: Path) -> None:
    """Also as pandas makes floating-point numbers of integers of which some are missing."""
    (tmp_path / "plays").mkdir()
    songs = ["7", "9", str(2**63 + 7), str(-(2**62) - 1)]
    pl.DataFrame({"song_id": songs}).write_parquet(tmp_path / "songs.parquet")
    for kind in kinds:
        plays = pl.DataFrame({"user_id": WIDTHS[kind], "song_id": WIDTHS[kind]})
        plays.with_columns(play_count=pl.lit(2, pl.Float16)).write_parquet(tmp_path / "plays" / f"{kind}.parquet")
    found = read_dataset(tmp_path)
    wanted = {"7", "9"} | ({songs[2]} if "hashed" in kinds else set()) | ({songs[3]} if "signed" in kinds else set())
    assert set(found.plays["song_id"]) == set(found.plays["user_id"]) == wanted
    assert found.plays["play_count"].to_list() == [2] * len(found.plays)
    missing = found.rejected.get("plays_without_id", {"count": 0})["count"]
    assert missing == (2 if "pandas" in kinds else 0)


@pytest.mark.parametrize("value", [1.5, 2.0**53, float("inf")])
def test_numbers_that_are_no_ids(value: float, tmp_path: Path) -> None:
    for plays in [{"song_id": [value]}], [{}, {"song_id": [None, value, 1.0], "user_id": ["u"] * 3}]:
        folder = tmp_path / str(len(plays))
        folder.mkdir()
        with pytest.raises(UserError, match=r"'song_id' has type Float64, wanted: text or integer \(") as error:
            read_dataset(write(folder, *plays))
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("one", "other", "words"),
    [
        ({"played_at": ["2024-01-01"]}, {"played_at": [datetime(2024, 1, 1)]}, ["'played_at'", "String", "Datetime"]),
        ({"completed": [True]}, {"completed": [1]}, ["'completed'", "Boolean", "Int64"]),
        ({"song_id": [b"1"]}, {}, ["'song_id'", "Binary", "String"]),
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


UNUSED: dict[str, tuple[list[Any], bool]] = {  # values of a column in some files, and whether it is kept
    "empty lists": ([[["calm"]], [[]], [None]], True),
    "lists of lists": ([[[[1]]], [[[]]]], True),
    "a struct that gains a field": ([[{"x": 1}], [{"x": 1, "y": "a"}]], False),
    "lists and texts": ([[["calm"]], ["calm"]], False),
    "bytes and texts": ([[b"calm"], ["calm"]], False),
    "flags and numbers": ([[True], [1]], False),
    "nothing anywhere": ([[[]], [None]], True),
}


@pytest.mark.parametrize("name", UNUSED)
def test_columns_that_are_not_used_are_not_compared(name: str, tmp_path: Path) -> None:
    """What has one type is kept, else left out and noted; the plays are the same."""
    values, kept = UNUSED[name]
    plays = [{"user_id": [f"u{n}"], "mood": value} for n, value in enumerate(values)]
    found = read_dataset(write(tmp_path, *plays))
    assert sorted(found.plays["user_id"]) == [f"u{n}" for n in range(len(values))]
    assert ("mood" in found.plays.columns) == kept == (found.ignored_columns == {"plays": ["mood"]})
    assert any("column mood left out: its types differ" in note for note in found.notes) != kept
    if name == "empty lists":
        assert sorted(found.plays["mood"].to_list(), key=str) == [None, None, ["calm"]]


def test_hidden_files_are_not_read(tmp_path: Path) -> None:
    """Copies, notes and halves of programs that keep them beside the files; but a file that is named is read."""
    folder = write(tmp_path / ".data", {"user_id": ["u"]}) / "plays"
    plays = pl.DataFrame({"user_id": ["old"], "song_id": ["1"]})
    for name in (".stversions/a~1.parquet", "_temporary/0/a.parquet", "x/.a.parquet", "_new.parquet"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        plays.write_parquet(folder / name)
    (folder / "._0.parquet").write_bytes(b"")
    (folder / "_metadata.parquet").write_bytes(b"PAR1")
    assert read_dataset(folder.parent).plays["user_id"].to_list() == ["u"]
    assert read_dataset(folder.parent, str(folder)).plays["user_id"].to_list() == ["u"]
    assert read_dataset(folder.parent, str(folder / "_new.parquet")).plays["user_id"].to_list() == ["old"]
    pl.DataFrame({"user_id": ["new"], "song_id": ["1"]}).write_parquet(folder / "z_new.parquet")
    assert read_dataset(folder.parent, f"{folder}/*_new.parquet").plays["user_id"].to_list() == ["new"]
    (folder / "z_new.parquet").unlink()
    for name in ("0.parquet", "1.parquet"):
        (folder / name).unlink(missing_ok=True)
    with pytest.raises(UserError, match=r"plays holds no Parquet file"):
        read_dataset(folder.parent)


def test_folders_are_read_once(tmp_path: Path) -> None:
    """A folder named as Spark names its output, within the log or found by a glob; hidden ones are not found."""
    folder = write(tmp_path, {"user_id": ["u"]}) / "plays"
    for user, name in (("a", "2025.parquet/part-0.parquet"), ("b", "2026/A.PARQUET"), ("old", "_temporary/0.parquet")):
        (folder / name).parent.mkdir(parents=True)
        pl.DataFrame({"user_id": [user], "song_id": ["1"]}).write_parquet(folder / name)
    for plays, users in ((None, "abu"), (f"{folder}/**/*.parquet", "au"), (f"{folder}/202*", "ab")):
        found = read_dataset(tmp_path, plays)
        assert sorted(found.plays["user_id"]) == [*users] and found.rejected == {}
    assert read_dataset(tmp_path, f"{folder}/_temporary/*").plays["user_id"].to_list() == ["old"]


def test_a_link_to_a_folder_is_not_passed_over(tmp_path: Path) -> None:
    folder, other = write(tmp_path / "a", {"user_id": ["u"]}) / "plays", write(tmp_path / "b", {"user_id": ["v"]})
    (folder / "more").symlink_to(other / "plays")
    with pytest.raises(UserError, match=r"plays/more is a link to a folder, .* plays='\S+/plays/\*'"):
        read_dataset(tmp_path / "a")
    assert sorted(read_dataset(tmp_path / "a", f"{folder}/*").plays["user_id"]) == ["u", "v"]


def test_an_error_of_spark_names_file_and_cause(tmp_path: Path) -> None:
    """A stale checksum, which Hadoop alone reads; Spark's own first line says nothing."""
    files = [str(tmp_path / name) for name in ("a.parquet", "b c.parquet")]
    for file in files:
        pl.DataFrame({"x": [1]}).write_parquet(file)
    trace = "An error occurred while calling o1.collectToPython.\n: FAILED_READ_FILE reading file {}\n\tat x\n"
    trace += "Caused by: java.io.IOException: other\n\tat y\nCaused by: ChecksumException: Checksum error\n\tat z"
    with (
        pytest.raises(UserError, match=r"b c\.parquet cannot be .* \(ChecksumException: Checksum error\)"),
        as_parquet(files),
    ):
        raise RuntimeError(trace.format((tmp_path / "b c.parquet").as_uri()))
    with pytest.raises(UserError, match=rf"{tmp_path.name} cannot be read .*\(ChecksumException"), as_parquet(files):
        raise RuntimeError(trace.format("nowhere"))


@pytest.mark.parametrize("damage", ["empty", "cut", "inside"])
def test_a_damaged_file_of_many_is_named(damage: str, tmp_path: Path) -> None:
    plays = [{"user_id": [f"u{n}" for n in range(2000)], "song_id": ["1"] * 2000}] * 3
    path = write(tmp_path, *plays) / "plays" / "1.parquet"
    whole = path.read_bytes()
    inside = whole[:4] + bytes(len(whole) // 2) + whole[4 + len(whole) // 2 :]
    path.write_bytes({"empty": b"", "cut": whole[: len(whole) // 2], "inside": inside}[damage])
    with pytest.raises(UserError, match=r"plays/1\.parquet cannot be read as Parquet") as error:
        read_dataset(tmp_path)
    assert "\n" not in str(error.value)
