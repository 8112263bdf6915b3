"""What a training batch of the song encoder holds: verified pairs, and draws over the whole warm catalogue."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from configs.errors import UserError
from datamodules.pairs import PairBatches, PairDataModule


@pytest.fixture
def data(catalogue_folder: Path) -> PairDataModule:
    return PairDataModule(str(catalogue_folder), batch_size=32, bcl_batch_size=24, negatives=40, seed=3)


def epoch(data: PairDataModule, number: int = 0) -> list[dict[str, Any]]:
    train = data.train_dataloader()
    train.sampler.set_epoch(number)  # type: ignore[attr-defined]
    return list(train)


def test_batch_shapes_and_order_of_the_fields(data: PairDataModule) -> None:
    batch = epoch(data)[0]
    everything = np.concatenate([batch[key].numpy() for key in ("source", "target", "negatives")])
    assert len(everything) == 32 + 32 + 40 and len(batch["drawn_ids"]) == 24
    for name, rows in (("pairs", everything), ("drawn", batch["drawn_ids"].numpy())):
        expected = data.fields.gather(rows)
        assert batch[name].keys() == expected.keys()
        for key, value in expected.items():
            torch.testing.assert_close(batch[name][key], value, equal_nan=True, rtol=0, atol=0)


def test_an_epoch_has_every_verified_pair_and_no_other(data: PairDataModule) -> None:
    found = {pair for b in epoch(data) for pair in zip(b["source"].tolist(), b["target"].tolist(), strict=True)}
    assert found == set(zip(*(side.tolist() for side in data.catalogue.pairs()), strict=True))


def test_negatives_and_drawn_songs_are_uniform_over_the_warm_songs(data: PairDataModule) -> None:
    """Songs without a play or without any field take part; cold ones never; popular ones not more often."""
    warm = set(data.catalogue.rows("warm").tolist())
    for key in ("negatives", "drawn_ids"):
        drawn = np.concatenate([b[key].numpy() for number in range(40) for b in epoch(data, number)])
        assert set(drawn.tolist()) == warm
        assert {3, 8} <= warm and data.catalogue.songs["popularity"][3] == 0
        counts = np.bincount(drawn, minlength=60)[sorted(warm)]
        expected = len(drawn) / len(warm)
        chi2 = float(((counts - expected) ** 2 / expected).sum())
        assert chi2 < 100, f"{key}: chi² {chi2:.0f} with 47 degrees of freedom: not uniform"


def flat(batch: dict[str, Any]) -> list[torch.Tensor]:
    return [*batch["pairs"].values(), *batch["drawn"].values(), *(x for x in batch.values() if torch.is_tensor(x))]


def same(first: list[dict[str, Any]], second: list[dict[str, Any]]) -> bool:
    pairs = [pair for a, b in zip(first, second, strict=True) for pair in zip(flat(a), flat(b), strict=True)]
    return all(torch.equal(torch.nan_to_num(a), torch.nan_to_num(b)) for a, b in pairs)


def test_batches_depend_on_seed_and_epoch_alone(data: PairDataModule, catalogue_folder: Path) -> None:
    options: dict[str, Any] = {"batch_size": 32, "bcl_batch_size": 24, "negatives": 40}
    first = epoch(data, 2)
    np.random.seed(5)
    torch.manual_seed(5)
    assert same(first, epoch(PairDataModule(str(catalogue_folder), seed=3, **options), 2))
    assert same(first, epoch(PairDataModule(str(catalogue_folder), seed=3, workers=1, **options), 2))
    assert not same(first, epoch(data, 1))
    assert not same(first, epoch(PairDataModule(str(catalogue_folder), seed=4, **options), 2))


def test_ranks_draw_different_songs(data: PairDataModule) -> None:
    from datamodules.batches import EpochBatches

    source, target = data.catalogue.pairs()
    dataset = PairBatches(data.fields, source, target, data.warm, 40, 24)
    one, two = (next(iter(EpochBatches(len(source), 8, 3, rank, 2))) for rank in (0, 1))
    assert not torch.equal(dataset[one]["negatives"], dataset[two]["negatives"])
    assert not torch.equal(dataset[one]["drawn_ids"], dataset[two]["drawn_ids"])


def test_validation_indexes_warm_songs_and_asks_with_cold_ones(data: PairDataModule) -> None:
    items, queries = ([int(i) for batch in one for i in batch["id"]] for one in data.val_dataloader())
    assert items == data.catalogue.rows("warm").tolist() and queries == data.catalogue.rows("cold_val").tolist()
    query_of, item_of = data.val_positives()
    assert set(query_of.tolist()) <= set(queries) and set(item_of.tolist()) <= set(items)


def test_dense_statistics_are_of_warm_songs_that_have_the_vector(data: PairDataModule) -> None:
    content = np.asarray(data.fields.dense["content"], dtype=np.float64)
    has = [song for song in data.warm.tolist() if song not in (5, 8)]
    mean, scale = data.dense_statistics()["content"]
    np.testing.assert_allclose(mean, content[has].mean(axis=0), rtol=1e-5, atol=1e-6)
    assert scale == pytest.approx(content[has].std(axis=0).mean())


def test_a_wrong_folder_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="folder not found"):
        PairDataModule(str(tmp_path / "absent"))
