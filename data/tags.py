"""Join listeners' tags to songs without leaking held-out plays."""

from __future__ import annotations

import polars as pl

from data.contract.columns import MAX_VALUES, PAIR
from data.contract.dataset import Dataset
from data.split import WARM, Split


def join_tags(dataset: Dataset, split: Split) -> tuple[pl.DataFrame, dict[str, int]]:
    """Add assigned tags to the songs; returns them with counts of the assignments read, dropped and kept.

    An assignment whose (user, song) pair is a held-out play (any play of a cold song) reveals that play and is dropped.
    Assignments by users without a play of the song are kept: they reveal no held-out play.

    A song gets its MAX_VALUES most assigned tags (the capacity of a category field), most assigned first, ties by tag
    name, after its own `tags` from songs.parquet, each tag once.
    """
    songs, assignments = dataset.songs, dataset.tag_assignments
    if assignments is None:
        return songs, {}
    cold = songs["song_id"].filter(pl.Series(split.of_song != WARM))
    held_out = pl.concat(dataset.parts).select(PAIR).filter(pl.col("song_id").is_in(cold.implode())).collect()
    kept = assignments.join(held_out, on=PAIR, how="anti")
    given = (
        kept.group_by("song_id", "tag")
        .agg(pl.col("user_id").n_unique().alias("users"))
        .sort(["song_id", "users", "tag"], descending=[False, True, False])
        .group_by("song_id", maintain_order=True)
        .agg(pl.col("tag").head(MAX_VALUES).alias("_given"))
    )
    both = pl.concat_list(pl.col("tags").fill_null([]), pl.col("_given").fill_null([])).list.unique(maintain_order=True)
    joined = songs.join(given, on="song_id", how="left", maintain_order="left")
    tags = pl.when(pl.col("_given").is_null()).then(pl.col("tags")).otherwise(both)
    counts = {
        "tag_assignments": assignments.height,
        "tag_assignments_of_held_out_plays_dropped": assignments.height - kept.height,
        "tag_assignments_kept": kept.height,
        "songs_with_an_assigned_tag": given.height,
    }
    return joined.with_columns(tags).drop("_given"), counts
