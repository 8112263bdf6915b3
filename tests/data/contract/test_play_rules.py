"""Plays in parts: what memory_gb does not allow at once gives the same catalogue, to the last count and example."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from configs.errors import UserError
from data.contract import play_rules
from data.contract.columns import COLUMNS
from data.contract.dataset import Dataset, plays_files, read_dataset


def in_folders(source: Path) -> Path:
    """The same log as a folder of files by day, in the order of its rows."""
    plays = pl.read_parquet(source / "plays.parquet")
    (source / "plays.parquet").unlink()
    for number, part in enumerate(plays.iter_slices(2000)):
        part.write_parquet(source / "plays" / f"day={number}" / "0.parquet", mkdir=True)
    return source


@pytest.mark.parametrize("users_table", [True, False])
@pytest.mark.parametrize("times", [True, False])
def test_parts_give_the_same_catalogue(
    users_table: bool,
    times: bool,
    prepare: Callable[..., Path],
    dirty: Callable[..., Path],
    same_catalogue: Callable[..., dict[str, Any]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Some ten chunks and parts against one, from one file and from a folder of files."""
    source = dirty(tmp_path / "source", users_table, times)
    options = ["split.by=random", "pairs.min_common=1", "pairs.top_k=20"]
    whole = prepare(source, tmp_path / "whole", *options)
    used: list[int] = []
    by_users = play_rules.by_users

    def counted(found: int, parts: list[Any], *rest: Any) -> Any:
        used.append(len(parts))
        return by_users(found, parts, *rest)

    monkeypatch.setattr(play_rules, "by_users", counted)
    in_parts = prepare(in_folders(source), tmp_path / "parts", *options, "memory_gb=0.000001")
    assert used[0] > 5 and not list(tmp_path.glob(".*")), "in parts, and nothing is left aside"
    manifest = same_catalogue(whole, in_parts)
    expected = {key for key, *_ in play_rules.ROW_RULES} | {play_rules.REPEATED[0]}
    absent = {"plays_of_unknown_users": users_table, "plays_before_release": times}
    expected -= {key for key, there in absent.items() if not there}
    assert set(manifest["rejected"]) - {"tags_of_unknown_songs"} == expected, "else the log is not dirty enough"
    assert any("time order" in note for note in manifest["notes"]) == times
    assert any("repeat a (user, song) pair" in note for note in manifest["notes"]) == (not times)
    assert manifest["pairs"]["posterior"] == ("later_plays" if times else "none")


def test_a_part_holds_about_as_many_plays_as_a_chunk(dirty: Callable[..., Path], tmp_path: Path) -> None:
    source = dirty(tmp_path / "source")
    plays, users = pl.scan_parquet(source / "plays.parquet"), pl.read_parquet(source / "users.parquet")
    counts = plays.group_by("user_id").len().collect()
    for of in (users, None):
        parts = play_rules.users_in_parts(plays, of, 1000).join(counts, on="user_id", maintain_order="left")
        of_part = parts.group_by("_part", maintain_order=True).agg(pl.col("len").sum())["len"]
        assert len(of_part) > 5 and of_part.max() < 1000 + counts["len"].max()
        order = users["user_id"] if of is not None else counts["user_id"].drop_nulls().sort()
        assert parts["user_id"].to_list() == [one for one in order if one in set(counts["user_id"])]
        assert parts["_part"].is_sorted()


def twice(source: Path) -> Path:
    """The log, in which a third of the rows are told once more, later and elsewhere."""
    plays = pl.read_parquet(source / "plays.parquet").with_row_index("inserted_at").unique("inserted_at")
    plays = plays.sort("inserted_at").with_columns(pl.col("inserted_at").cast(pl.Int64))
    later = plays.sample(fraction=0.3, seed=3).with_columns(pl.col("inserted_at") + 100_000)
    pl.concat([plays, later]).write_parquet(source / "plays.parquet")
    return source


@pytest.mark.parametrize("memory_gb", [0.0, 1e-6])
def test_a_log_that_tells_a_play_twice(memory_gb: float, dirty: Callable[..., Path], tmp_path: Path) -> None:
    """A play of one moment is told by a note, or kept once; what has no time may be two plays."""
    plain, told = (dirty(tmp_path / name) for name in ("plain", "told"))

    def read(source: Path, repeats: str) -> Dataset:
        aside = tmp_path / f"{source.name} {repeats}"
        aside.mkdir()
        check = partial(play_rules.usable_plays, memory_gb=memory_gb, aside=aside, repeats=repeats)
        return read_dataset(source, check=check)

    once, both = read(plain, "rows"), read(twice(told), "rows")
    used = list(COLUMNS["plays"])
    more = both.plays.filter(pl.col("played_at").is_not_null()).select(pl.len() - pl.struct(used).n_unique()).item()
    assert more > 1000 and any(note.startswith(f"plays: {more} rows are equal to another") for note in both.notes)
    kept = read(told, "plays")
    wanted = once.plays.select(used).unique()
    assert kept.plays.height == wanted.height and kept.plays.select(used).unique().height == wanted.height
    assert kept.rejected["plays_repeated"]["count"] == both.plays.height - wanted.height
    assert not any("equal to another" in note for note in kept.notes)


def test_where_plays_may_lie(dirty: Callable[..., Path], tmp_path: Path) -> None:
    source = dirty(tmp_path / "source")
    data = read_dataset(source)
    for given in (f"{source}/plays.parquet", f"{source}/pl*s.parquet"):
        assert read_dataset(source, given).plays.equals(data.plays)
    in_folders(source)
    assert plays_files(source, None) == [f"{source}/plays/day={number}/0.parquet" for number in range(5)]
    assert read_dataset(source).plays.equals(data.plays)
    one = read_dataset(source, f"{source}/plays/day=[01]/*.parquet")
    assert 0 < one.plays.height < data.plays.height
    for given, words in (("nowhere.parquet", "plays=nowhere.parquet: nothing is there"), (str(tmp_path / "x*"), "x*")):
        with pytest.raises(UserError) as error:
            read_dataset(source, given)
        assert words in str(error.value)


def test_a_file_that_is_damaged_inside_is_told(dirty: Callable[..., Path], tmp_path: Path) -> None:
    source = dirty(tmp_path / "source")
    content = bytearray((source / "plays.parquet").read_bytes())
    content[4 : len(content) // 2] = bytes(len(content) // 2 - 4)
    (source / "plays.parquet").write_bytes(content)
    with pytest.raises(UserError, match=r"plays\.parquet cannot be read as Parquet"):
        read_dataset(source)
