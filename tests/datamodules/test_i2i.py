"""What a training batch of the song encoder holds: verified pairs, and draws over the whole warm catalogue."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from configs.errors import UserError
from data.catalogue import Catalogue
from datamodules.batches import Batch, EpochBatches
from datamodules.boundary import BoundaryDataModule
from datamodules.catalogue import SongBatches
from datamodules.i2i import I2IDataModule, PairBatches, distinct, places, songs_or_artists


@pytest.fixture
def data(catalogue_folder: Path) -> I2IDataModule:
    return I2IDataModule(str(catalogue_folder), batch_size=32, bcl_batch_size=24, negatives=40, seed=3)


def epoch(data: I2IDataModule, number: int = 0) -> list[dict[str, Any]]:
    train = data.train_dataloader()
    train.sampler.set_epoch(number)  # type: ignore[attr-defined]
    return list(train)


def test_batch_shapes_and_order_of_the_fields(data: I2IDataModule) -> None:
    batch = epoch(data)[0]
    everything = np.concatenate([batch[key].numpy() for key in ("source", "target", "negatives")])
    assert len(everything) == 32 + 32 + 40 and len(batch["drawn_ids"]) == 24
    for at, rows in ((batch["at"], everything), (batch["drawn"], batch["drawn_ids"].numpy())):
        for key, value in data.fields.gather(rows).items():
            torch.testing.assert_close(batch["fields"][key][at], value, equal_nan=True, rtol=0, atol=0)
    pairs, drawn = set(everything.tolist()), set(batch["drawn_ids"].tolist())
    assert batch["whole"] == len(pairs) > int(batch["at"].max()), "songs of views alone come last"
    assert len(batch["fields"]["content"]) == len(pairs | drawn) > len(pairs), "each song once"


def test_distinct_songs_by_hand() -> None:
    songs, whole, (first, second, last) = distinct([np.array([7, 2, 7]), np.array([9])], np.array([1, 2, 8, 1]))
    assert (songs.tolist(), whole) == ([2, 7, 9, 1, 8], 3)
    assert (first.tolist(), second.tolist(), last.tolist()) == ([1, 0, 1], [2], [3, 0, 4, 3])
    songs, whole, parts = distinct([np.array([3]), np.array([], dtype=np.int64)], np.array([3]))
    assert (songs.tolist(), whole, [part.tolist() for part in parts]) == ([3], 1, [[0], [], [0]])


def test_an_epoch_has_every_verified_pair_and_no_other(data: I2IDataModule) -> None:
    found = {pair for b in epoch(data) for pair in zip(b["source"].tolist(), b["target"].tolist(), strict=True)}
    assert found == set(zip(*(side.tolist() for side in data.catalogue.pairs()), strict=True))


def chi2(drawn: np.ndarray, songs: Any, weight: np.ndarray) -> float:
    """Distance of the draws from draws of these songs by their weights."""
    expected = len(drawn) * weight[songs] / weight[songs].sum()
    return float(((np.bincount(drawn, minlength=60)[songs] - expected) ** 2 / expected).sum())


def test_negatives_and_drawn_songs_are_uniform_over_the_warm_songs(data: I2IDataModule) -> None:
    """Songs without a play or without any field take part; cold ones never; popular ones not more often."""
    warm = set(data.catalogue.rows("warm").tolist())
    for key in ("negatives", "drawn_ids"):
        drawn = np.concatenate([b[key].numpy() for number in range(40) for b in epoch(data, number)])
        assert set(drawn.tolist()) == warm
        assert {3, 8} <= warm and data.catalogue.songs["popularity"][3] == 0
        assert chi2(drawn, sorted(warm), np.ones(60)) < 100, f"{key}, 47 degrees of freedom: not uniform"


def flat(batch: dict[str, Any]) -> list[torch.Tensor]:
    """Every tensor of a batch, those of its fields and of its listening too."""
    parts = [flat(value) if isinstance(value, dict) else [torch.as_tensor(value)] for value in batch.values()]
    return [tensor for part in parts for tensor in part]


def same(first: list[dict[str, Any]], second: list[dict[str, Any]]) -> bool:
    pairs = [pair for a, b in zip(first, second, strict=True) for pair in zip(flat(a), flat(b), strict=True)]
    return all(torch.equal(torch.nan_to_num(a), torch.nan_to_num(b)) for a, b in pairs)


def test_batches_depend_on_seed_and_epoch_alone(data: I2IDataModule, catalogue_folder: Path) -> None:
    options: dict[str, Any] = {"batch_size": 32, "bcl_batch_size": 24, "negatives": 40}
    options |= {"users": 10, "history": 6, "candidates": 8, "in_batch": True, "bcl_sampling": "popularity"}
    data = I2IDataModule(str(catalogue_folder), seed=3, **options)
    first = epoch(data, 2)
    np.random.seed(5)
    torch.manual_seed(5)
    assert len(flat(first[0])) == 20 and same(first, epoch(I2IDataModule(str(catalogue_folder), seed=3, **options), 2))
    assert same(first, epoch(I2IDataModule(str(catalogue_folder), seed=3, workers=1, **options), 2))
    assert not same(first, epoch(data, 1))
    assert not same(first, epoch(I2IDataModule(str(catalogue_folder), seed=4, **options), 2))


def test_validation_indexes_warm_songs_and_asks_with_cold_ones(data: I2IDataModule) -> None:
    items, queries = ([int(i) for batch in one for i in batch["id"]] for one in data.val_dataloader())
    assert items == data.catalogue.rows("warm").tolist() and queries == data.catalogue.rows("cold_val").tolist()
    query_of, item_of = data.val_positives()
    assert set(query_of.tolist()) <= set(queries) and set(item_of.tolist()) <= set(items)


def test_dense_statistics_are_of_warm_songs_that_have_the_vector(data: I2IDataModule) -> None:
    content = np.asarray(data.fields.dense["content"], dtype=np.float64)
    has = [song for song in data.warm.tolist() if song not in (5, 8)]
    mean, scale = data.dense_statistics()["content"]
    np.testing.assert_allclose(mean, content[has].mean(axis=0), rtol=1e-5, atol=1e-6)
    assert scale == pytest.approx(content[has].std(axis=0).mean())


def test_a_source_asks_by_content_and_known_songs_are_found_by_residual(data: I2IDataModule) -> None:
    """Codes of source, target and negatives, in this order; song 3 has no play, so no residual."""
    known = sorted(set(data.catalogue.plays["song"].to_list()))
    assert data.known == [f"s{i:02d}" for i in known] and 3 not in known
    assert data.residual_size == len(known) + 1
    code = {song: 1 + at for at, song in enumerate(known)}
    assert data.residual_codes.tolist() == [code.get(song, 0) for song in range(60)]
    assert (data.residual_codes[data.catalogue.rows("cold")] == 0).all()
    seen = []
    for batch in epoch(data):
        expected = [0] * 32 + [code.get(s, 0) for key in ("target", "negatives") for s in batch[key].tolist()]
        assert batch["residual"].tolist() == expected
        seen += expected[32:]
    assert 0 in seen and max(seen) > 1, "a never-played song was drawn, else this could not fail"


def test_songs_in_order_have_their_codes(data: I2IDataModule) -> None:
    songs = np.array([50, 3, 7, 7, 0])
    batch = SongBatches(data.fields, songs, data.residual_codes)[Batch(np.array([4, 0, 2, 1]), (0,))]
    assert batch["id"].tolist() == [0, 50, 7, 3]
    assert batch["residual"].tolist() == [int(data.residual_codes[0]), 0, int(data.residual_codes[7]), 0] != [0] * 4
    torch.testing.assert_close(batch["fields"], data.fields.gather(batch["id"].numpy()), equal_nan=True)
    (whole,) = data.songs_loader(np.arange(60))
    assert whole["residual"].tolist() == data.residual_codes.tolist()


def test_codes_follow_the_song_into_another_catalogue(data: I2IDataModule, catalogue_folder: Path) -> None:
    """Other rows, songs that are new there and songs that are gone: a code belongs to an id."""
    other = Catalogue.read(catalogue_folder)
    order = np.random.default_rng(0).permutation(60)
    moved = other.songs[order].head(40)
    new = moved.head(2).with_columns(pl.Series("song_id", ["new1", "new2"]))
    other.songs = pl.concat([new, moved])  # type: ignore[misc]  # in the place of the cached table
    codes = places(other.songs["song_id"], data.known)
    assert codes.tolist() == [0, 0, *(int(data.residual_codes[song]) for song in order[:40])]
    assert (codes > 0).sum() > 20
    assert places(other.songs["song_id"], []).tolist() == [0] * 42


def test_without_residuals_no_song_has_a_code(catalogue_folder: Path) -> None:
    data = I2IDataModule(str(catalogue_folder), batch_size=32, known=[])
    assert data.residual_size == 1 and not data.residual_codes.any() and not epoch(data)[0]["residual"].any()


@pytest.mark.parametrize("in_batch", [False, True])
def test_log_q_is_the_expected_count_among_the_candidates(
    data: I2IDataModule, catalogue_folder: Path, in_batch: bool
) -> None:
    """By the formula, and by counting: drawn negatives, and in-batch the targets of the other pairs too."""
    options: dict[str, Any] = {"batch_size": 32, "negatives": 40, "seed": 3, "in_batch": in_batch}
    data = I2IDataModule(str(catalogue_folder), **options)
    targets = data.catalogue.pairs()[1].tolist()
    expected = {
        song: 40 / len(data.warm) + (32 * targets.count(song) / len(targets) if in_batch else 0)
        for song in data.warm.tolist()
    }
    count, batches = dict.fromkeys(expected, 0), 0
    for number in range(30):
        for batch in epoch(data, number):
            known = batch["target"].tolist() + batch["negatives"].tolist()
            np.testing.assert_allclose(np.exp(batch["log_q"].numpy()), [expected[s] for s in known], rtol=1e-5)
            batches += 1
            for song in known if in_batch else batch["negatives"].tolist():
                count[song] += 1
    np.testing.assert_allclose(
        [count[s] / batches for s in expected],
        list(expected.values()),
        atol=5 * np.sqrt(max(expected.values()) / batches),
    )
    assert (max(expected.values()) > 1.3 * min(expected.values())) is in_batch, "else this test could not fail"


def test_popularity_sampling_draws_by_training_plays(catalogue_folder: Path) -> None:
    data = I2IDataModule(str(catalogue_folder), batch_size=32, bcl_batch_size=200, bcl_sampling="popularity")
    batches = [batch for number in range(8) for batch in epoch(data, number)]
    drawn = np.concatenate([batch["drawn_ids"].numpy() for batch in batches])
    plays = np.bincount(data.catalogue.plays["song"].to_numpy(), minlength=60)
    played = np.flatnonzero(plays)
    assert set(drawn) == set(played) and plays[3] == 0
    assert chi2(drawn, played, plays) < 100, "46 degrees of freedom"
    assert chi2(drawn, played, np.ones(60)) > 300, "else this could not fail"
    negatives = np.concatenate([batch["negatives"].numpy() for batch in batches])
    assert (negatives == 3).any(), "negatives of the pairs stay uniform"


def test_each_song_is_drawn_as_often_as_asked(catalogue_folder: Path) -> None:
    """On average, whatever the number of pairs, steps and ranks."""
    for batch_size in (16, 64):
        data = I2IDataModule(str(catalogue_folder), batch_size=batch_size, draws=5)
        drawn = torch.cat([batch["drawn_ids"] for batch in epoch(data)])
        assert 5 <= len(drawn) / len(data.warm) < 5 * 1.5 and set(drawn.tolist()) <= set(data.warm.tolist())


def test_songs_of_one_artist_share_a_number() -> None:
    artists = [None, "a", "b", "a", None, "b"]
    catalogue: Any = SimpleNamespace(songs=pl.DataFrame({"artist_id": artists}))
    same_S = songs_or_artists(catalogue).tolist()
    for i, one in enumerate(artists):
        for j, other in enumerate(artists):
            assert (same_S[i] == same_S[j]) == (i == j or (one is not None and one == other))


def test_all_ranks_have_one_seed_of_the_views(data: I2IDataModule) -> None:
    pairs = data.catalogue.pairs()
    dataset = PairBatches(data.fields, pairs, data.warm, 40, 24, data.residual_codes)
    batches = [list(EpochBatches(len(pairs[0]), 8, 3, rank, 2)) for rank in (0, 1)]
    seeds = [[dataset[batch]["views_seed"] for batch in of_rank[:5]] for of_rank in batches]
    assert seeds[0] == seeds[1] and len(set(seeds[0])) == 5


def test_listening_is_there_if_users_are_asked_for(data: I2IDataModule, catalogue_folder: Path) -> None:
    assert "listening" not in epoch(data)[0]
    other = I2IDataModule(str(catalogue_folder), batch_size=32, bcl_batch_size=24, negatives=40, seed=3, users=5)
    with_users = epoch(other)
    assert all(batch["listening"]["heard"].shape[0] == 5 for batch in with_users)
    drawn = ("source", "target", "negatives", "drawn_ids", "views_seed", "log_q", "residual")
    with_users, without = ([{key: batch[key] for key in drawn} for batch in one] for one in (with_users, epoch(data)))
    assert same(without, with_users), "the draw comes last: it changes nothing else"


def test_validation_listeners_by_brute_force(data: I2IDataModule) -> None:
    songs = data.catalogue.songs["split"].to_list()
    plays = data.catalogue.cold_plays.select("song", "user", "strength").rows()
    expected = {(s, u) for s, u, strength in plays if strength > 0 and songs[s] == "cold_val"}
    song_of, user_of = data.val_listeners()
    assert len(song_of) == len(expected)
    assert set(zip(song_of.tolist(), user_of.tolist(), strict=True)) == expected
    assert len(expected) < len(plays), "cold test songs are left out"


# ------------------------------------------------------------------------------ a held-out song never reaches training


@pytest.fixture
def planted(catalogue_folder: Path, tmp_path: Path) -> Path:
    """A copy of the catalogue to plant things in."""
    return Path(shutil.copytree(catalogue_folder, tmp_path / "planted"))


@pytest.mark.parametrize("split", ["cold_val", "cold_test"])
@pytest.mark.parametrize(("name", "column"), [("pairs", "source"), ("pairs", "target"), ("plays", "song")])
def test_a_held_out_song_in_a_training_table_is_refused(planted: Path, name: str, column: str, split: str) -> None:
    song = int(Catalogue.read(planted).rows(split)[0])
    path = planted / f"{name}.parquet"
    table = pl.read_parquet(path)
    last = pl.int_range(pl.len()) == pl.len() - 1
    table.with_columns(pl.when(last).then(pl.lit(song)).otherwise(column).cast(table[column].dtype).alias(column)
                       ).write_parquet(path)  # fmt: skip
    says = f"{name}.parquet: 1 rows name a held-out song.*'s{song}'.*pipeline.prepare"
    with pytest.raises(UserError, match=says):
        I2IDataModule(str(planted), batch_size=32, users=5).train_dataloader()
    if name == "plays":
        with pytest.raises(UserError, match=says):
            BoundaryDataModule(str(planted))


def test_a_held_out_song_is_refused_as_a_neighbour_in_validation(planted: Path) -> None:
    """The songs that ask are held out there, the songs that are found are known."""
    pairs = pl.read_parquet(planted / "val_pairs.parquet")
    pairs.with_columns(target="source").write_parquet(planted / "val_pairs.parquet")
    with pytest.raises(UserError, match=r"val_pairs\.parquet.*held-out song"):
        I2IDataModule(str(planted)).val_dataloader()
