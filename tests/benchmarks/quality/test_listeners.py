"""listeners: some users and all that they played are kept, and all songs."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from benchmarks.quality.listeners import keep_listeners
from data.world import generate


def test_some_listeners_are_kept_with_all_that_they_played(tmp_path: Path) -> None:
    world, out = tmp_path / "world", tmp_path / "out"
    world.mkdir(), out.mkdir()
    generate(world, 80, 60, truth_users=0, audio=False)
    users, plays = (pl.read_parquet(world / f"{name}.parquet") for name in ("users", "plays"))
    kept = users["user_id"].sample(20, seed=0)
    songs = pl.read_parquet(world / "songs.parquet").with_columns(audio_path=pl.lit("a.wav"))
    songs.write_parquet(world / "songs.parquet")
    keep_listeners(world, out, kept)
    is_kept = pl.col("user_id").is_in(kept.to_list())
    assert pl.read_parquet(out / "users.parquet").equals(users.filter(is_kept))
    assert pl.read_parquet(out / "plays.parquet").equals(plays.filter(is_kept))
    paths = pl.read_parquet(out / "songs.parquet")["audio_path"]
    assert len(paths) == 80 and set(paths) == {str(world / "a.wav")}
    (world / "users.parquet").unlink(), (out / "users.parquet").unlink()
    keep_listeners(world, out, kept)
    assert not (out / "users.parquet").exists()
