"""The tables of plays of a catalogue: a listening counts as often whichever way it is written."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import polars as pl

TIMES = 10


def test_a_log_and_its_sums_have_one_popularity(
    write_dataset: Callable[..., Path], prepare: Callable[..., Path], tmp_path: Path
) -> None:
    """Ten rows a pair, one row with play_count=10, and a row of nine beside one that says nothing."""
    source = write_dataset(tmp_path / "source")
    plays = pl.read_parquet(source / "plays.parquet")
    again = [plays.with_columns(pl.col("played_at") + timedelta(seconds=n)) for n in range(TIMES)]
    tables = {
        "log": pl.concat(again),
        "sums": plays.with_columns(play_count=pl.lit(TIMES)),
        "both": pl.concat([plays.with_columns(play_count=TIMES - 1), again[1].with_columns(play_count=None)]),
        "once": plays,
    }
    found = {}
    for name, table in tables.items():
        table.write_parquet(tmp_path / f"{name}.parquet")
        made = prepare(source, tmp_path / name, "split.by=random", f"plays={tmp_path / name}.parquet")
        found[name] = pl.read_parquet(made / "songs.parquet")["popularity"]
    assert found["log"].equals(found["sums"]) and found["log"].equals(found["both"])
    assert found["log"].equals(TIMES * found["once"]) and found["once"].max() > 10
