"""From plays to verified pairs: the windows, the halves, the rules, and that nothing of the future gets in."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from configs.data import PairsConfig
from configs.errors import UserError
from data.catalogue import NO_VALIDATION, Catalogue
from data.item_pairs import mining
from data.item_pairs.mining import taken_up, verified, windows
from data.item_pairs.neighbours import Pairs
from datamodules.i2i import I2IDataModule

MINE: dict[str, Any] = {
    "similarity": "cosine",
    "shrinkage": 0.0,
    "top_k": 5,
    "min_common": 1,
    "max_history": 0,
    "posterior": "auto",
    "drop_above": 0.9,
    "prior_outcomes": 1.0,
    "keep_unobserved": True,
}


def mine(plays: Any, feedback: Any, shape: Any, seed: int = 0, **options: Any) -> tuple[Pairs, dict[str, Any]]:
    return mining.mine(plays, feedback, shape, PairsConfig(**options), seed)


def table(pairs: Pairs) -> list[tuple[int, int]]:
    found = list(zip(pairs.source.tolist(), pairs.target.tolist(), strict=True))
    assert len(set(found)) == len(found), "a pair twice"
    return found


def timed_plays(rows: list[tuple[int, int, float]]) -> pl.DataFrame:
    """(user, song, day) → plays."""
    start = datetime(2026, 1, 1)
    return pl.DataFrame(
        {
            "user": [user for user, _, _ in rows],
            "song": [song for _, song, _ in rows],
            "strength": pl.Series([1.0] * len(rows), dtype=pl.Float32),
            "played_at": pl.Series([start + timedelta(days=day) for _, _, day in rows], dtype=pl.Datetime("ms")),
        }
    )


def test_by_time_cuts_at_three_quarters_and_keeps_only_new_songs_later() -> None:
    rng = np.random.default_rng(0)
    days = rng.permutation(80)
    rows = [(int(rng.integers(6)), int(rng.integers(9)), float(day)) for day in days]
    earlier, fresh = taken_up(*windows(timed_plays(rows)), (6, 9))
    ordered = sorted(rows, key=lambda row: row[2])
    known = {(user, song) for user, song, _ in ordered[:60]}
    later = {(user, song) for user, song, _ in ordered[60:]}
    assert set(zip(*(axis.tolist() for axis in earlier.nonzero()), strict=True)) == known
    assert set(zip(*(axis.tolist() for axis in fresh.nonzero()), strict=True)) == later - known


def test_a_pair_that_only_one_half_of_the_users_likes_is_dropped() -> None:
    """Songs 0 and 1 go together for one half alone (a coincidence), songs 2 and 3 for everybody."""
    rng = np.random.default_rng(0)
    dense = (rng.random((400, 6)) < 0.1).astype(np.float32)
    half = np.random.default_rng(7).random(400) < 0.5  # the halves of seed 7
    together, everybody = rng.random((2, 400)) < 0.3
    dense[everybody, 2:4] = 1
    dense[half & together, 0:2] = 1
    dense[~half & together, 0], dense[~half & together, 1] = 1, 0
    pairs, evidence = mine(
        pl.DataFrame(
            {"user": dense.nonzero()[0], "song": dense.nonzero()[1], "strength": dense[dense.nonzero()]}
        ).with_columns(played_at=pl.lit(None, pl.Datetime("ms"))),
        None,
        (400, 6),
        **MINE | {"seed": 7, "top_k": 1, "posterior": "split_users"},
    )
    assert evidence["posterior"] == "split_users" and evidence["mined"] == evidence["kept"] + evidence["dropped"]
    kept = set(table(pairs))
    assert {(2, 3), (3, 2)} <= kept and not {(0, 1), (1, 0)} & kept


@pytest.mark.parametrize("posterior", ["none", "later_plays", "split_users", "feedback"])
def test_a_huge_history_mines_no_pairs_but_bears_witness(posterior: str) -> None:
    """User 0 heard everything, songs 0 and 1 last and best: capped at two songs they mine that pair alone."""
    rows = [(0, song, 50.0 + (song < 2)) for song in range(12)] + [(1 + n % 3, 2 + n % 4, 60.0) for n in range(12)]
    rows += [(user, 8 + user % 3, 90.0) for user in range(1, 20)]
    feedback = pl.DataFrame({"source": [0], "target": [1], "plays": [9], "completes": [9], "favourites": [9]})
    asked = MINE | {"posterior": posterior, "top_k": 20, "drop_above": 0.9999, "seed": 1}
    free, evidence = mine(timed_plays(rows), feedback, (20, 12), **asked)
    assert evidence["users_capped"] == 0 and {(0, 1), (1, 0), (10, 11), (0, 11)} <= set(table(free))
    capped, evidence = mine(timed_plays(rows), feedback, (20, 12), **asked | {"max_history": 2})
    of_the_huge = {pair for pair in table(capped) if 0 in pair or 1 in pair}
    assert of_the_huge == {(0, 1), (1, 0)} and evidence["users_capped"] >= 1


def test_pairs_go_on_evidence_only_and_are_counted() -> None:
    """Evidence of two tables adds up: 4 expected outcomes that did not come are too many, 2 are not."""
    source, target = np.nonzero(~np.eye(3, dtype=bool))
    pairs = Pairs(source, target, np.zeros(6, dtype=np.float32))
    one = pl.DataFrame({"source": [0, 0, 1], "target": [1, 2, 0], "good": [0.0, 0, 9], "expected": [2.0, 2, 9]})
    other = pl.DataFrame({"source": [0, 7], "target": [1, 8], "good": [0.0, 0], "expected": [2.0, 99]})
    kept, counts = verified(pairs, [one, other], None, "later_plays", PairsConfig())
    assert set(table(pairs)) - set(table(kept)) == {(0, 1)}
    assert counts == {
        "posterior": "later_plays", "mined": 6, "observed": 3, "kept": 5, "dropped": 1, "songs_with_a_pair": 3
    }  # fmt: skip
    strict, _ = verified(pairs, [one, other], None, "later_plays", PairsConfig(keep_unobserved=False))
    assert set(table(strict)) == {(0, 2), (1, 0)}
    lax, _ = verified(pairs, [one, other], None, "later_plays", PairsConfig(prior_outcomes=50))
    assert len(lax) == 6, "50 expected outcomes of the prior outweigh 4"


@pytest.mark.parametrize("posterior", ["later_plays", "split_users"])
def test_the_newest_songs_keep_their_pairs(posterior: str) -> None:
    """Songs 6 and 7 came out in the last weeks: they are only in the plays that verify, and go together."""
    rng = np.random.default_rng(0)
    rows = [(int(rng.integers(60)), int(rng.integers(6)), float(rng.integers(75))) for _ in range(600)]
    rows += [(user, song, 90.0) for user in range(20) for song in (6, 7)]
    pairs, counts = mine(timed_plays(rows), None, (60, 8), **MINE | {"posterior": posterior})
    assert {(6, 7), (7, 6)} <= set(table(pairs)) and counts["observed"] > 0


def test_mine_takes_the_strongest_evidence_there_is() -> None:
    rng = np.random.default_rng(0)
    plays = timed_plays([(int(rng.integers(30)), int(rng.integers(8)), float(day)) for day in range(300)])
    untimed = plays.with_columns(played_at=pl.lit(None, pl.Datetime("ms")))
    feedback = pl.DataFrame({"source": [0], "target": [1], "plays": [50], "completes": [0], "favourites": [0]})
    shape, a_row_each = (30, 8), pl.concat([feedback] * 8)
    assert mine(plays, a_row_each, shape, **MINE)[1]["posterior"] == "feedback"
    assert mine(plays, a_row_each[1:], shape, **MINE)[1]["posterior"] == "feedback_and_later_plays"
    assert mine(untimed, feedback, shape, **MINE)[1]["posterior"] == "feedback"
    assert mine(plays, None, shape, **MINE)[1]["posterior"] == "later_plays"
    assert mine(untimed, None, shape, **MINE)[1]["posterior"] == "none"
    number = pl.int_range(pl.len())
    some = plays.with_columns(pl.when(number % 5 > 0).then("played_at").alias("played_at"))
    few = plays.with_columns(pl.when(number % 5 == 0).then("played_at").alias("played_at"))
    assert mine(some, None, shape, **MINE)[1]["posterior"] == "later_plays", "one play without a date is no reason"
    assert mine(few, None, shape, **MINE)[1]["posterior"] == "none"
    assert mine(plays, feedback.clear(), shape, **MINE)[1]["posterior"] == "later_plays", "an empty table says nothing"
    everything, evidence = mine(plays, None, shape, **MINE | {"posterior": "none"})
    n = len(everything)
    assert evidence == {"posterior": "none", "mined": n, "kept": n, "dropped": 0, "users_capped": 0}
    for asked, given, words in (
        ("feedback", (plays, None), "no i2i_feedback"),
        ("later_plays", (untimed, None), "no played_at"),
        ("feedback_and_later_plays", (plays, None), "no i2i_feedback"),
        ("feedback_and_later_plays", (untimed, feedback), "no played_at"),
    ):
        with pytest.raises(UserError, match=words):
            mine(*given, shape, **MINE | {"posterior": asked})


def test_the_first_feedback_judges_the_pairs_it_saw_and_later_plays_go_on_judging_the_others() -> None:
    """Users of songs 0 and 1 took up neither later, though they were many; feedback contradicts for (1, 0)."""
    rng = np.random.default_rng(0)
    rows = [(int(rng.integers(300)), int(rng.integers(2, 8)), float(rng.integers(80))) for _ in range(3000)]
    rows += [(user, song, 1.0) for user in range(60) for song in (0, 2)]  # who knew 0 …
    rows += [(user, 1, 79.5) for user in range(100, 300)] + [(0, 1, 2.0), (1, 1, 2.0)]  # … did not take up 1
    plays, options = timed_plays(rows), MINE | {"top_k": 20}
    mined = set(table(mine(plays, None, (300, 8), **options | {"posterior": "none"})[0]))
    by_time = set(table(mine(plays, None, (300, 8), **options)[0]))
    assert (0, 1) in mined - by_time
    disliked = next(pair for pair in sorted(by_time) if not {0, 1} & set(pair))
    feedback = pl.DataFrame(
        {"source": [0, 99, disliked[0], 99], "target": [1, 1, disliked[1], disliked[1]], "plays": [900] * 4,
         "completes": [0] * 4, "favourites": [600, 6, 0, 600]}
    )  # fmt: skip
    pairs, counts = mine(plays, feedback, (300, 8), **options)
    assert counts["posterior"] == "feedback_and_later_plays"
    assert set(table(pairs)) == by_time - {disliked} | {(0, 1)}


def test_bad_feedback_drops_the_pair_and_only_that() -> None:
    rng = np.random.default_rng(0)
    plays = timed_plays([(int(rng.integers(30)), int(rng.integers(8)), float(day)) for day in range(300)])
    feedback = pl.DataFrame(
        {
            "source": [0, 1, 2],
            "target": [1, 0, 1],
            "plays": [90] * 3,
            "completes": [0, 60, 60],
            "favourites": [0, 40, 40],
        }
    )
    options = MINE | {"top_k": 20}
    all_pairs = set(table(mine(plays, None, (30, 8), **options | {"posterior": "none"})[0]))
    options |= {"posterior": "feedback"}
    kept = set(table(mine(plays, feedback, (30, 8), **options)[0]))
    assert all_pairs - kept == {(0, 1)}
    only = set(table(mine(plays, feedback, (30, 8), **options | {"keep_unobserved": False})[0]))
    assert only == {(1, 0), (2, 1)}


# ------------------------------------------------------------------------------------------ no leak from the future


@pytest.mark.parametrize("feedback", [False, True])
@pytest.mark.parametrize("posterior", ["none", "auto"])
def test_no_play_after_the_cutoff_or_of_a_cold_song_reaches_training(
    dataset: Path, prepare: Callable[..., Path], tmp_path: Path, posterior: str, feedback: bool
) -> None:
    """Plants the strongest pairs of the dataset: two known songs after the cut-off, a cold song with a known one."""
    songs, plays = pl.read_parquet(dataset / "songs.parquet"), pl.read_parquet(dataset / "plays.parquet")
    after = datetime(2026, 3, 10)
    rows = [(f"u{u:02d}", song, after, True, True) for u in range(80) for song in ("s03", "s01", "s55", "s50")]
    planted = pl.DataFrame(rows, schema=plays.schema, orient="row")
    source = tmp_path / "planted"
    source.mkdir()
    songs.write_parquet(source / "songs.parquet")
    pl.concat([plays, planted]).write_parquet(source / "plays.parquet")
    if feedback:
        pl.DataFrame(
            {
                "source_song_id": ["s55", "s01", "s03"],
                "recommended_song_id": ["s01", "s55", "s01"],
                "plays": [100] * 3,
                "completes": [100] * 3,
                "favourites": [100] * 3,
            }
        ).write_parquet(source / "i2i_feedback.parquet")
    catalogue = Catalogue.read(prepare(source, tmp_path / "catalogue", f"pairs.posterior={posterior}"))
    warm = set(catalogue.rows("warm").tolist())
    assert catalogue.songs["split"][55] == "cold_test" and {1, 3} <= warm and catalogue.songs["split"][50] == "cold_val"

    cutoff = datetime.fromisoformat(catalogue.manifest["split"]["cutoff"])
    assert (catalogue.plays["played_at"] < cutoff).all() and set(catalogue.plays["song"].to_list()) <= warm
    pairs = set(zip(*(side.tolist() for side in catalogue.pairs()), strict=True))
    assert {song for pair in pairs for song in pair} <= warm, "a cold song in a training pair"
    assert not any(3 in pair for pair in pairs), "song 3 was played after the cut-off only"
    assert catalogue.songs["popularity"][3] == 0 and catalogue.songs["popularity"][55] == 0
    source_of, target_of = catalogue.pairs("val_pairs")
    assert set(source_of.tolist()) <= set(catalogue.rows("cold_val").tolist()) and set(target_of.tolist()) <= warm
    assert not (target_of == 3).any(), "the later co-listening is no validation truth either"


@pytest.mark.parametrize("by", ["random", "column"])
def test_without_a_cutoff_no_cold_song_reaches_training(
    dataset: Path, prepare: Callable[..., Path], tmp_path: Path, by: str
) -> None:
    """Here cold songs are as old as the others: only their own split keeps them out, in both cold parts."""
    songs = pl.read_parquet(dataset / "songs.parquet").drop("released_at")
    part = pl.Series("split", [("warm", "cold_val", "warm", "cold_test", "warm")[i % 5] for i in range(60)])
    (tmp_path / "source").mkdir()
    (songs.with_columns(part) if by == "column" else songs).write_parquet(tmp_path / "source" / "songs.parquet")
    pl.read_parquet(dataset / "plays.parquet").write_parquet(tmp_path / "source" / "plays.parquet")
    options = (f"split.by={by}", "split.cold_share=0.4", "pairs.posterior=none")
    catalogue = Catalogue.read(prepare(tmp_path / "source", tmp_path / "catalogue", *options))
    warm, cold = set(catalogue.rows("warm").tolist()), catalogue.songs["split"] != "warm"
    assert len(warm) == 36 and catalogue.songs["split"].n_unique() == 3
    source_of, target_of = catalogue.pairs()
    assert len(source_of) > 100 and set(source_of.tolist()) | set(target_of.tolist()) <= warm
    assert set(catalogue.plays["song"].to_list()) <= warm and catalogue.songs["popularity"].filter(cold).sum() == 0
    assert set(catalogue.cold_plays["song"].to_list()) == set(np.flatnonzero(cold.to_numpy()).tolist()) - {3}
    assert catalogue.plays.height + catalogue.cold_plays.height == 80 * 30


def test_removing_the_future_changes_no_training_table(
    dataset: Path, prepare: Callable[..., Path], catalogue: Any, tmp_path: Path
) -> None:
    """The whole training input is a function of the past: without any later or cold play it comes out the same."""
    source = tmp_path / "past"
    source.mkdir()
    for name in ("songs", "users"):
        pl.read_parquet(dataset / f"{name}.parquet").write_parquet(source / f"{name}.parquet")
    cutoff = datetime.fromisoformat(catalogue.manifest["split"]["cutoff"])
    plays = pl.read_parquet(dataset / "plays.parquet")
    early = plays.filter((pl.col("played_at") < cutoff) & (pl.col("song_id") < "s48"))
    one_cold = plays.filter(pl.col("song_id") >= "s48").head(1)
    pl.concat([early, one_cold]).write_parquet(source / "plays.parquet")
    past = Catalogue.read(prepare(source, tmp_path / "catalogue", f"split.cutoff={cutoff.date()}"))
    assert past.plays.equals(catalogue.plays)
    assert past.pairs()[0].tolist() == catalogue.pairs()[0].tolist()
    assert past.pairs()[1].tolist() == catalogue.pairs()[1].tolist()
    assert past.songs["popularity"].equals(catalogue.songs["popularity"])
    assert past.cold_plays.height == 1


def test_feedback_on_cold_songs_is_dropped_before_it_can_verify_anything(
    dataset: Path, prepare: Callable[..., Path], tmp_path: Path
) -> None:
    """Rates are relative to the global rate: bad feedback on new songs alone would lift every known pair."""
    manifests = []
    for name, rows in (
        ("known", [("s01", "s04", 100, 50, 20), ("s04", "s07", 100, 10, 2)]),
        ("with cold", [("s01", "s04", 100, 50, 20), ("s04", "s07", 100, 10, 2)] + [("s02", "s55", 9000, 0, 0)] * 3),
        ("from cold", [("s01", "s04", 100, 50, 20), ("s04", "s07", 100, 10, 2), ("s50", "s01", 9000, 9000, 9000)]),
    ):
        source = tmp_path / name
        source.mkdir()
        for table_ in ("songs", "plays"):
            pl.read_parquet(dataset / f"{table_}.parquet").write_parquet(source / f"{table_}.parquet")
        schema = ["source_song_id", "recommended_song_id", "plays", "completes", "favourites"]
        pl.DataFrame(rows, schema=schema, orient="row").write_parquet(source / "i2i_feedback.parquet")
        catalogue = Catalogue.read(prepare(source, tmp_path / f"{name} catalogue", "pairs.top_k=100"))
        manifests.append((catalogue.manifest["pairs"], [side.tolist() for side in catalogue.pairs()]))
    assert manifests[0] == manifests[1] == manifests[2]
    assert manifests[0][0]["observed"] > 0


def test_without_validation_pairs_songs_can_be_scored_but_not_trained_on(
    dataset: Path, prepare: Callable[..., Path], tmp_path: Path
) -> None:
    """Nobody who heard a validation song heard a known song: no checkpoint could be chosen."""
    source = tmp_path / "strangers"
    source.mkdir()
    plays, songs = pl.read_parquet(dataset / "plays.parquet"), pl.read_parquet(dataset / "songs.parquet")
    songs.write_parquet(source / "songs.parquet")
    stranger = pl.when(pl.col("song_id") >= "s48").then(pl.lit("new") + pl.col("user_id")).otherwise(pl.col("user_id"))
    plays.with_columns(stranger.alias("user_id")).write_parquet(source / "plays.parquet")
    folder = prepare(source, tmp_path / "catalogue")
    assert NO_VALIDATION in Catalogue.read(folder).manifest["notes"]
    data = I2IDataModule(str(folder))
    assert len(data.warm) and len(data.catalogue.rows("cold"))
    with pytest.raises(UserError, match="no cold validation song has a listener"):
        data.val_dataloader()


def test_until_is_the_dataset_without_the_later_songs(
    dataset: Path, prepare: Callable[..., Path], tmp_path: Path
) -> None:
    """Every table and every vector come out as of a dataset that the later songs never were in."""
    until = pl.read_parquet(dataset / "songs.parquet")["released_at"].drop_nulls().sort(descending=True)[4]
    source = tmp_path / "earlier"
    shutil.copytree(dataset, source)
    songs = pl.read_parquet(source / "songs.parquet").filter((pl.col("released_at") < until).fill_null(True))
    songs.write_parquet(source / "songs.parquet")
    options = ("split.by=time", "split.cold_share=0.3")
    earlier, windowed = (
        prepare(of, tmp_path / f"of {of.name}", *options, *more)
        for of, more in ((source, ()), (dataset, (f"split.until={until.isoformat()}",)))
    )
    tables = sorted(path.name for path in earlier.glob("*.parquet"))
    assert {"songs.parquet", "pairs.parquet", "cold_plays.parquet"} <= set(tables)
    for name in tables:
        assert pl.read_parquet(windowed / name).equals(pl.read_parquet(earlier / name)), name
    vectors = sorted(path.relative_to(earlier) for path in earlier.rglob("*.npy"))
    assert vectors
    for path in vectors:
        np.testing.assert_array_equal(np.load(windowed / path), np.load(earlier / path))
    assert Catalogue.read(windowed).manifest["counts"]["songs_left_out_by_until"] == 5
