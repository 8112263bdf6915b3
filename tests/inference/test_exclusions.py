"""Users who must not be reached: what the file may hold, what it does, and what is refused."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import pytest

from configs.errors import UserError
from inference.filters import read_exclusions

NEW = np.array([1, 3, 4])


def catalogue() -> Any:
    """Five songs, s1, s3 and s4 of them new; six users, one of them with a number for a name."""
    users = pl.DataFrame({"user_id": ["u0", "u1", "u2", "7", "u4", "u5"]})
    return SimpleNamespace(
        songs=pl.DataFrame({"song_id": [f"s{i}" for i in range(5)]}), users=users, n_users=6, n_songs=5
    )


def masked(path: Path, rows: slice = slice(0, 3)) -> list[list[int]]:
    """Users that are left out of each new song."""
    mask = np.ones((rows.stop - rows.start, 6), dtype=bool)
    read_exclusions(str(path), catalogue(), NEW).cut(mask, rows)
    return [np.flatnonzero(~row).tolist() for row in mask]


def test_users_for_every_song_and_for_one(tmp_path: Path) -> None:
    path = tmp_path / "no.parquet"
    pl.DataFrame(
        {
            "user_id": ["u2", "u5", "u5", "u0", "u1", "u4", "u4", "u2"],
            "song_id": [None, "s4", "s4", "s1", "s0", "s1", "s4", "s4"],
            "why": [[1]] * 8,
        }
    ).write_parquet(path)
    assert masked(path) == [[0, 2, 4], [2], [2, 4, 5]], "s0 is known: no audience is looked for"
    assert masked(path, slice(1, 3)) == [[2], [2, 4, 5]] and masked(path, slice(2, 3)) == [[2, 4, 5]]
    excluded = read_exclusions(str(path), catalogue(), NEW)
    assert str(excluded) == "users left out: 1 of every song, 5 of one song"


@pytest.mark.parametrize(
    ("ids", "kind", "users"),
    [([7, 7], pl.Int64, [3]), (["7"], pl.Categorical, [3]), ([], pl.String, []), ([], pl.Null, [])],
)
def test_without_a_song_column(ids: list[Any], kind: Any, users: list[int], tmp_path: Path) -> None:
    pl.DataFrame({"user_id": ids}, schema={"user_id": kind}).write_parquet(tmp_path / "no.parquet")
    assert masked(tmp_path / "no.parquet") == [users] * 3


def test_unknown_ids_are_counted_and_named(tmp_path: Path) -> None:
    path = tmp_path / "no.parquet"
    users = ["u1", "x1", "x2", "x1", "x3", "x4", "u2"]
    pl.DataFrame({"user_id": users, "song_id": [None, None, "s1", "s1", "gone", "s1", "gone"]}).write_parquet(path)
    excluded = read_exclusions(str(path), catalogue(), NEW)
    assert excluded.unknown == {"user_id": ["x1", "x2", "x3", "x4"], "song_id": ["gone"]}
    unknown = "; user_id not in the catalogue: 4 (x1, x2, x3, …); song_id not in the catalogue: 1 (gone)"
    assert str(excluded).endswith(unknown)
    assert masked(path) == [[1]] * 3, "a row of a song that there is not is no row of every song"


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({"user": ["u1"]}, ["user_id", "it has: user"]),
        ({"user_id": [1.5]}, ["user_id", "Float64", "text or integer"]),
        ({"user_id": ["u1"], "song_id": [[1]]}, ["song_id", "List", "text or integer"]),
        ({"user_id": ["u1", None]}, ["user_id", "null in 1 rows"]),
    ],
)
def test_what_is_refused(table: dict[str, Any], words: list[str], tmp_path: Path) -> None:
    pl.DataFrame(table).write_parquet(tmp_path / "no.parquet")
    with pytest.raises(UserError) as caught:
        read_exclusions(str(tmp_path / "no.parquet"), catalogue(), NEW)
    assert all(word in str(caught.value) for word in [*words, "no.parquet"]) and "\n" not in str(caught.value)


def test_no_file_and_no_table(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        read_exclusions(str(tmp_path / "absent.parquet"), catalogue(), NEW)
    (tmp_path / "text.parquet").write_text("user_id\nu1\n")
    with pytest.raises(UserError, match="cannot be read as Parquet"):
        read_exclusions(str(tmp_path / "text.parquet"), catalogue(), NEW)
