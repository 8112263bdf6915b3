"""No tag gives a held-out play away: against loops over planted leaks, random assignments and the real HetRec data."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from data.adapters import read_hetrec
from data.contract.columns import MAX_VALUES
from data.contract.dataset import Dataset, read_dataset
from data.split import COLD_TEST, COLD_VAL, WARM, Split, split_songs
from data.tags import join_tags


def dataset(
    folder: Path, plays: list[tuple[str, str]], tags: list[tuple[str, str, str]], own: list[list[str] | None]
) -> Dataset:
    """Four songs a, b, c, d with tags of their own."""
    columns = {"song_id": ["a", "b", "c", "d"], "tags": pl.Series(own, dtype=pl.List(pl.String))}
    pl.DataFrame(columns).write_parquet(folder / "songs.parquet")
    pl.DataFrame(plays, schema=["user_id", "song_id"], orient="row").write_parquet(folder / "plays.parquet")
    pl.DataFrame(tags, schema=["user_id", "song_id", "tag"], orient="row").write_parquet(folder / "tags.parquet")
    return read_dataset(folder)


NONE: list[list[str] | None] = [None] * 4
SPLIT = Split(np.array([WARM, COLD_VAL, COLD_TEST, WARM], dtype=object), "column", None)


def test_a_planted_leak_is_dropped_and_the_rest_is_kept(tmp_path: Path) -> None:
    plays = [("u", "a"), ("u", "b"), ("v", "c"), ("v", "a")]
    tags = [
        ("u", "a", "warm"),  # their own play of a known song: they may say so
        ("u", "b", "leak of validation"),
        ("v", "c", "leak of test"),
        ("v", "b", "not their play"),
        ("w", "c", "no listener at all"),
        ("w", "a", "warm"),
        ("w", "a", "also"),
    ]
    songs, counts = join_tags(dataset(tmp_path, plays, tags, NONE), SPLIT)
    assert songs["tags"].to_list() == [["warm", "also"], ["not their play"], ["no listener at all"], None]
    assert counts == {
        "tag_assignments": 7,
        "tag_assignments_of_held_out_plays_dropped": 2,
        "tag_assignments_kept": 5,
        "songs_with_an_assigned_tag": 3,
    }


def test_assigned_tags_follow_the_songs_own(tmp_path: Path) -> None:
    own: list[list[str] | None] = [list("hgfedcba"), None, [], ["rock"]]
    tags = [("u", "a", "c"), ("u", "a", "live"), ("u", "b", "live"), ("u", "c", "live")]
    songs, _ = join_tags(dataset(tmp_path, [("v", "a")], tags, own), SPLIT)
    assert songs["tags"].to_list() == [[*"hgfedcba", "live"], ["live"], ["live"], ["rock"]]


def test_without_the_table_nothing_changes(tmp_path: Path) -> None:
    data = dataset(tmp_path, [("u", "a")], [("u", "a", "x")], [["folk"], None, [], ["rock"]])
    data.tag_assignments = None
    songs, counts = join_tags(data, SPLIT)
    assert songs.equals(data.songs) and counts == {}


def by_hand(data: Dataset, split: Split) -> tuple[dict[str, list[str]], int]:
    """Most assigned tags of each song, and how many assignments were dropped; one after another."""
    assert data.tag_assignments is not None
    part = dict(zip(data.songs["song_id"].to_list(), split.of_song.tolist(), strict=True))
    played = set(data.plays.select("user_id", "song_id").iter_rows())
    given: dict[str, Counter[str]] = {}
    dropped = 0
    for user, song, tag in data.tag_assignments.select("user_id", "song_id", "tag").iter_rows():
        if part[song] != WARM and (user, song) in played:
            dropped += 1
        else:
            given.setdefault(song, Counter())[tag] += 1
    order = {song: sorted(counts, key=lambda tag: (-counts[tag], tag)) for song, counts in given.items()}
    return {song: tags[:MAX_VALUES] for song, tags in order.items()}, dropped


def check(data: Dataset, split: Split) -> dict[str, int]:
    songs, counts = join_tags(data, split)
    given, dropped = by_hand(data, split)
    for song, tags in songs.select("song_id", "tags").iter_rows():
        assert tags == given.get(song), song
    assert counts["tag_assignments_of_held_out_plays_dropped"] == dropped
    assert counts["tag_assignments"] == dropped + counts["tag_assignments_kept"]
    assert songs.drop("tags").equals(data.songs.drop("tags")), "the same songs in the same order"
    return counts


@pytest.mark.parametrize("seed", range(3))
def test_random_assignments_against_a_loop(tmp_path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    plays = sorted({(f"u{rng.integers(9)}", "abcd"[rng.integers(4)]) for _ in range(20)})
    tags = sorted({(f"u{rng.integers(9)}", "abcd"[rng.integers(4)], f"t{rng.integers(14)}") for _ in range(300)})
    rng.shuffle(tags)
    counts = check(dataset(tmp_path, plays, tags, NONE), SPLIT)
    assert 0 < counts["tag_assignments_of_held_out_plays_dropped"] < counts["tag_assignments_kept"]


def test_prepare_joins_them_after_the_split(
    write_dataset: Callable[..., Path], prepare: Callable[..., Path], tmp_path: Path
) -> None:
    """By date: of all who played a song give it a tag, the cold songs show none of these and the warm ones all."""
    source = write_dataset(tmp_path / "data")
    songs, plays = (pl.read_parquet(source / f"{name}.parquet") for name in ("songs", "plays"))
    songs.drop("tags").write_parquet(source / "songs.parquet")
    given = plays.select("user_id", "song_id", tag=pl.lit("played"))
    stranger = songs.select(user_id=pl.lit("stranger"), song_id="song_id", tag=pl.lit("heard of"))
    pl.concat([given, stranger]).unique().write_parquet(source / "tags.parquet")
    out = prepare(source, tmp_path / "catalogue")
    made = pl.read_parquet(out / "songs.parquet")
    played = set(plays["song_id"])
    for song, part, tags in made.select("song_id", "split", "tags").iter_rows():
        assert tags == (["played", "heard of"] if part == WARM and song in played else ["heard of"]) or (
            part == WARM and tags == ["heard of", "played"]  # a single listener: a tie, by name
        )
    counts = json.loads((out / "manifest.json").read_text())["counts"]
    assert counts["tag_assignments_of_held_out_plays_dropped"] == pl.read_parquet(out / "cold_plays.parquet").height > 0


def test_no_kept_tag_of_the_real_hetrec_is_of_a_held_out_pair(real: Callable[[str], Path]) -> None:
    data = read_hetrec(real("hetrec2011-lastfm-2k.zip"))
    counts = check(data, split_songs(data.songs, "random", None, 0.2, 0))
    assert counts["tag_assignments"] == 184_941 and counts["tag_assignments_of_held_out_plays_dropped"] > 10_000
