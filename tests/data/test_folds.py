"""Known songs as new ones: a fold's catalogue holds nothing of its songs' plays and nothing that came later."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from configs.errors import UserError
from data.catalogue import Catalogue
from data.folds import Fold, by_date, check_fold, folds_of, pair_options, write_fold
from data.item_pairs.mining import mine


@pytest.fixture(scope="module")
def folds(catalogue: Catalogue) -> list[Fold]:
    return folds_of(catalogue, 2, 0.15, 0)


@pytest.fixture(scope="module")
def undated(prepare: Callable[..., Path], dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Catalogue:
    """The tiny catalogue without a date."""
    source = tmp_path_factory.mktemp("undated") / "dataset"
    source.mkdir()
    pl.read_parquet(dataset / "songs.parquet").drop("released_at").write_parquet(source / "songs.parquet")
    pl.read_parquet(dataset / "plays.parquet").drop("played_at").write_parquet(source / "plays.parquet")
    return Catalogue.read(prepare(source, source.parent / "catalogue"))


def test_windows_follow_one_another_and_training_ends_before_them(catalogue: Catalogue, folds: list[Fold]) -> None:
    released, warm = catalogue.songs["released_at"].to_list(), set(catalogue.rows("warm"))
    assert [len(fold.songs) for fold in folds] == [7, 7]
    for fold in folds:
        assert fold.cutoff == min(released[song] for song in fold.validation)
        assert max(released[song] for song in fold.validation) < min(released[song] for song in fold.songs)
        assert set(fold.known) == {song for song in warm if released[song] < fold.cutoff}
    assert set(folds[0].songs) == set(folds[1].validation) and not set(folds[0].songs) & set(folds[1].songs)
    assert max(folds[1].songs) == max(warm)


def test_years_are_windows_where_no_days_are_told() -> None:
    year = np.repeat(np.arange(2001, 2011), 15)
    released = pl.Series("released_at", [datetime(one, 1, 1) for one in year])
    made = by_date(released.to_frame(), np.arange(len(year)), 4, 5)
    assert [set(year[fold.songs]) for fold in made] == [{2007}, {2008}, {2009}, {2010}]
    assert [set(year[fold.validation]) for fold in made] == [{2006}, {2007}, {2008}, {2009}]
    assert all((year[fold.known] < year[fold.validation].min()).all() for fold in made)


def test_a_folds_catalogue_knows_nothing_later(catalogue: Catalogue, folds: list[Fold], tmp_path: Path) -> None:
    for number, fold in enumerate(folds):
        made = write_fold(catalogue, fold, tmp_path / str(number), label_days=5)
        assert made.songs["song_id"].equals(catalogue.songs["song_id"])
        for split, songs in (("warm", fold.known), ("cold_val", fold.validation), ("cold_test", fold.songs)):
            assert made.rows(split).tolist() == songs.tolist()
        plays = catalogue.plays
        known = pl.col("song").is_in(pl.Series(fold.known).cast(pl.Int32).implode())
        assert made.plays.equals(plays.filter(known & (pl.col("played_at") < fold.cutoff)))
        age = made.cold_plays["played_at"] - made.songs["released_at"].gather(made.cold_plays["song"])
        assert made.cold_plays.height and age.max() < timedelta(days=5)  # type: ignore[operator]
        assert set(made.cold_plays["song"]) <= {*fold.songs, *fold.validation}
        options, seed = pair_options(catalogue)
        mined, _ = mine(made.plays, None, (made.n_users, made.n_songs), options, seed)
        np.testing.assert_array_equal(made.pairs(), (mined.source, mined.target))
        assert made.songs["popularity"].sum() == made.plays.height
        assert all(
            np.array_equal(one, made.features()[name], equal_nan=True) for name, one in catalogue.features().items()
        )


def test_all_plays_are_labels_where_no_days_are_told(catalogue: Catalogue, folds: list[Fold], tmp_path: Path) -> None:
    made, songs = write_fold(catalogue, folds[0], tmp_path / "fold", label_days=0), set(folds[0].songs)
    all_plays = catalogue.plays.filter(pl.col("song").is_in(list(songs)))
    assert made.cold_plays.filter(pl.col("song").is_in(list(songs))).height == all_plays.height


def test_without_dates_folds_are_parts(undated: Catalogue, tmp_path: Path) -> None:
    warm, folds = undated.rows("warm"), folds_of(undated, 3, 0.1, 0)
    assert sorted(np.concatenate([fold.songs for fold in folds])) == warm.tolist()
    for fold in folds:
        assert fold.cutoff is None and sorted(np.r_[fold.songs, fold.validation, fold.known]) == warm.tolist()
    made = write_fold(undated, folds[0], tmp_path / "fold", 30)
    assert set(made.plays["song"]) <= set(folds[0].known) and made.cold_plays.height


def test_what_is_there_is_kept_and_what_differs_is_written_anew(
    catalogue: Catalogue, folds: list[Fold], tmp_path: Path
) -> None:
    out = tmp_path / "fold"
    write_fold(catalogue, folds[0], out, 5)
    before = out.stat().st_ino
    write_fold(catalogue, folds[0], out, 5)
    assert out.stat().st_ino == before
    write_fold(catalogue, folds[0], out, 6)
    assert out.stat().st_ino != before


def leak_a_play_of_a_new_song(made: Catalogue, fold: Fold) -> None:
    plays = made.plays
    stolen = made.cold_plays.filter(pl.col("song") == int(fold.songs[0])).head(1).select(plays.columns)
    pl.concat([plays, stolen.cast(plays.schema)]).write_parquet(made.folder / "plays.parquet")


def leak_a_later_play(made: Catalogue, fold: Fold) -> None:
    late = made.plays.head(1).with_columns(played_at=pl.lit(fold.cutoff).cast(made.plays["played_at"].dtype))
    pl.concat([made.plays, late]).write_parquet(made.folder / "plays.parquet")


def leak_a_song(made: Catalogue, fold: Fold) -> None:
    of_song = pl.when(pl.int_range(pl.len()) == int(fold.songs[0])).then(pl.lit("warm")).otherwise("split")
    made.songs.with_columns(split=of_song).write_parquet(made.folder / "songs.parquet")


def leak_a_pair(made: Catalogue, fold: Fold) -> None:
    path = made.folder / "pairs.parquet"
    pairs = pl.read_parquet(path)
    one = pairs.head(1).with_columns(target=pl.lit(int(fold.songs[0])).cast(pairs["target"].dtype))
    pl.concat([pairs, one]).write_parquet(path)


@pytest.mark.parametrize(
    ("leak", "said"),
    [
        (leak_a_play_of_a_new_song, "rows name a held-out song"),
        (leak_a_later_play, "1 plays are not earlier than the fold's songs"),
        (leak_a_song, "songs of the fold are known songs in it"),
        (leak_a_pair, "rows name a held-out song"),
    ],
)
def test_a_leak_is_refused(
    leak: Callable[[Any, Any], None], said: str, catalogue: Catalogue, folds: list[Fold], tmp_path: Path
) -> None:
    made = write_fold(catalogue, folds[0], tmp_path / "fold", 5)
    leak(made, folds[0])
    with pytest.raises(UserError, match=said):
        check_fold(Catalogue.read(made.folder), folds[0])
    with pytest.raises(UserError, match=said):  # nor is it taken because it is there
        write_fold(catalogue, folds[0], tmp_path / "fold", 5)


def test_too_few_songs_are_said_to_be_too_few(catalogue: Catalogue) -> None:
    with pytest.raises(UserError, match="folds=9: 48 known songs are too few for so many folds"):
        folds_of(catalogue, 9, 0.3, 0)
