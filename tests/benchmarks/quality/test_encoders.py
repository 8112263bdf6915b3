"""Scores and audiences of a trained encoder against loops over its vectors."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from artifacts.runs import open_run
from benchmarks.quality.item_cold.__main__ import ItemColdConfig, Task, trained
from benchmarks.quality.item_cold.encoders import (
    AUDIENCES,
    BIAS_WEIGHTS,
    NEAREST,
    VARIANTS,
    WITHOUT,
    Outputs,
    audiences,
    nearest,
    neighbour_popularity,
    outputs,
    overlaps,
    score,
    similar_songs,
)
from benchmarks.quality.item_cold.folds import Fold, make_fold
from benchmarks.quality.item_cold.measure import BUCKETS
from configs.data import PrepareConfig
from configs.load import load
from configs.training import I2IConfig
from data.arrays import IntArray
from datamodules.catalogue import CatalogueDataModule
from lightning_modules.i2i import I2IModule
from retrieval.clusters import audience_clusters
from tests.benchmarks.small import I2I

FIELDS = ["content", "genres"]
SILENT = [0, 17, 79]  # users whose plays are taken away


@pytest.fixture(scope="module")
def run(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Fold, Path]:
    """A fold in which three users played nothing, and an encoder trained on it (before that)."""
    work = tmp_path_factory.mktemp("encoders")
    fold = make_fold(dataset, work / "seed0", 0, [], [])
    config = ItemColdConfig(i2i=[*I2I, "trainer.epochs=3"])
    out, _ = trained(Task(config, fold, work, "small", FIELDS, 0), "firstplay")
    plays, strength = fold.plays_UW.tolil(), fold.strength_UW.tolil()
    plays[SILENT] = strength[SILENT] = 0
    return replace(fold, plays_UW=plays.tocsr(), strength_UW=strength.tocsr()), out


@pytest.fixture(scope="module")
def fold(run: tuple[Fold, Path]) -> Fold:
    return run[0]


@pytest.fixture(scope="module")
def encoded(run: tuple[Fold, Path]) -> Outputs:
    return outputs(*run)


@pytest.fixture(params=["cold_val", "cold_test"])
def songs(fold: Fold, request: pytest.FixtureRequest) -> IntArray:
    return fold.parts[request.param].songs


def unit(vector: np.ndarray) -> np.ndarray:
    return vector / (np.linalg.norm(vector) or 1.0)


def test_scores_are_taste_times_song(run: tuple[Fold, Path], encoded: Outputs, songs: IntArray) -> None:
    """And item_bias = the encoder's own layer of (all field embeddings of the song), by the run's own module."""
    fold, opened = run[0], open_run(run[1], "i2i")
    vectors = encoded.vectors.astype(np.float64)
    scale = float(np.exp(min(float(opened.weights["logit_scale"]), 4.6)))
    module = I2IModule(**opened.hparams).eval()
    module.load_state_dict(opened.weights)
    with torch.no_grad():
        embedded, shown = module.model.embedding(CatalogueDataModule(fold.folder, use=FIELDS).fields.gather(songs))
        item_bias = module.model.content(embedded, shown)[1].numpy()
    assert np.ptp(item_bias) > 1e-3
    tastes = [
        unit(sum((strength * vectors[song] for song, strength in zip(fold.known, row, strict=True)), np.zeros(8)))
        for row in fold.strength_UW.toarray()
    ]
    expected = np.array([[taste @ unit(vectors[song]) for song in songs] for taste in tastes])
    found = score(fold, encoded, songs)
    assert set(found) == set(BIAS_WEIGHTS) and np.ptp(expected) > 0.5 and not expected[SILENT].any()
    for weight, one in found.items():
        np.testing.assert_allclose(one.users, expected, atol=1e-5)
        np.testing.assert_allclose(one.songs, scale * expected + weight * item_bias, atol=1e-4)


def test_popularity_of_the_neighbours(fold: Fold, encoded: Outputs, songs: IntArray) -> None:
    vectors, listeners = encoded.vectors, fold.plays_UW.toarray().sum(axis=0)
    by_popularity = sorted(range(len(fold.known)), key=lambda song: (listeners[song], song))
    rank = {song: place / (len(fold.known) - 1) for place, song in enumerate(by_popularity)}
    ranks = []
    for song in songs:
        near = sorted(range(len(fold.known)), key=lambda known: -float(vectors[fold.known[known]] @ vectors[song]))
        ranks += [rank[known] for known in near[:20]]
    found = neighbour_popularity(fold, similar_songs(fold, vectors, songs))
    assert found.pop("neighbour_popularity") == pytest.approx(np.mean(ranks), abs=1e-6)
    thirds = np.histogram(ranks, [0, 1 / 3, 2 / 3, 1])[0] / len(ranks)
    assert list(found.values()) == pytest.approx(thirds) and list(found) == [f"neighbours_{one}" for one in BUCKETS]


def test_audiences_are_the_loops_and_nobody_else(fold: Fold, encoded: Outputs, songs: IntArray) -> None:
    vectors = encoded.vectors
    plays, strength = fold.plays_UW.toarray(), fold.strength_UW.toarray()
    counts, listeners = plays.sum(axis=1), plays.sum(axis=0)
    found = audiences(fold, vectors, songs, neighbours=3)
    assert tuple(found) == AUDIENCES
    similar, near, union, with_taste = found.values()
    taste = score(fold, encoded, songs)[0.0].users
    taste[SILENT] = -np.inf
    for place, song in enumerate(songs):
        closeness = np.array([vectors[known] @ vectors[song] for known in fold.known])
        best = np.argsort(-closeness, kind="stable")[:3]
        low, high = closeness[best].min(), closeness[best].max()
        weight = {n: (1 + 2 * (closeness[n] - low) / (high - low)) / 3 / (listeners[n] + 1) ** 0.5 for n in best}
        expected = np.array(
            [sum(weight[n] * strength[user, n] for n in best) / (counts[user] + 1) ** 0.5 for user in range(80)]
        )
        expected[expected == 0] = -np.inf
        np.testing.assert_allclose(similar[:, place], expected, rtol=1e-3)
        assert 3 < np.isinf(expected).sum() < 77  # some are outside
        np.testing.assert_array_equal(np.isinf(near[:, place]), counts == 0)
        for both, second in ((union, near), (with_taste, taste)):
            fused = np.zeros(80)
            for one in (similar, second):
                inside = [user for user in range(80) if one[user, place] > -np.inf]
                order = sorted(inside, key=lambda user: (-one[user, place], user))
                for rank, user in enumerate(order):
                    fused[user] += 1 / (61 + rank)
            np.testing.assert_allclose(both[:, place], np.where(fused > 0, fused, -np.inf), rtol=1e-5)


def test_overlaps_of_cat_are_those_of_sets(fold: Fold, encoded: Outputs, songs: IntArray) -> None:
    found = audiences(fold, encoded.vectors, songs)
    scores = {"taste": score(fold, encoded, songs)[0.0].users, "i2i2u": found[AUDIENCES[0]], "CAT": found["CAT"]}
    scores["taste"][SILENT] = -np.inf
    shares: dict[str, list[float]] = {"taste": [], "i2i2u": []}
    for place in range(len(songs)):
        first = {}
        for name, score_UC in scores.items():
            best = np.argsort(-score_UC[:, place], kind="stable")[:50]
            first[name] = {int(user) for user in best if score_UC[user, place] > -np.inf}
        for name, of in shares.items():
            of.append(len(first["CAT"] & first[name]) / max(len(first["CAT"]), len(first[name])))
    means = [float(np.mean(of)) for of in shares.values()]
    assert list(overlaps(fold, encoded.vectors, songs).values()) == pytest.approx(means, abs=0.01)
    assert 0.2 < min(means) < 0.99


def test_nearest_songs_by_a_loop(fold: Fold, encoded: Outputs, songs: IntArray) -> None:
    vectors, strength = encoded.vectors, fold.strength_UW.toarray()
    found = nearest(fold, vectors, songs)
    assert list(found) == [f"{k} nearest" for k in NEAREST]
    for k in (5, 20):
        for place, song in enumerate(songs):
            cosine = np.array([unit(vectors[known]) @ unit(vectors[song]) for known in fold.known])
            best = np.argsort(-cosine, kind="stable")[:k]
            expected = strength[:, best] @ np.maximum(cosine[best], 0)
            np.testing.assert_allclose(found[f"{k} nearest"].users[:, place], expected, rtol=1e-3, atol=1e-4)
        assert found[f"{k} nearest"].songs is found[f"{k} nearest"].users


def test_cat_clusters_the_users_of_similar_songs(fold: Fold, encoded: Outputs, songs: IntArray) -> None:
    """All of them: there are fewer than 300. Its centroids are the only thing it goes by."""
    found, listeners = audiences(fold, encoded.vectors, songs), fold.plays_UW.toarray().sum(axis=0)
    weighted = fold.strength_UW.toarray() * (listeners + 1) ** -0.5
    users = np.array([unit(row @ encoded.vectors[fold.known]) for row in weighted], dtype=np.float32)
    for place in range(len(songs)):
        score_U = found[AUDIENCES[0]][:, place]
        seeds = [int(user) for user in np.argsort(-score_U, kind="stable") if score_U[user] > -np.inf]
        centre_CKD, size_CK = audience_clusters(np.array([seeds]), users, max(2, len(seeds) // 25), seed=0)
        expected = (users @ np.array([unit(one) for one in centre_CKD[0]]).T).max(axis=1)
        expected[SILENT] = -np.inf
        assert size_CK.min() > 0
        np.testing.assert_allclose(found["CAT"][:, place], expected, atol=1e-4)


@pytest.mark.parametrize("method", list(VARIANTS))
def test_every_variant_is_made_of_options_that_exist(method: str) -> None:
    """And each differs from `firstplay`."""
    options = VARIANTS[method].split()
    teacher = [one for one in options if one.startswith("pairs.")]
    plain = [load(I2IConfig, ["data=d", "out=o"]), load(PrepareConfig, ["source=s", "out=o"])]
    made = [
        load(I2IConfig, ["data=d", "out=o", *[one for one in options if one not in teacher]]),
        load(PrepareConfig, ["source=s", "out=o", *teacher]),
    ]
    assert (made == plain) == (method == "firstplay")
    assert len(set(VARIANTS.values())) == len(VARIANTS)


def test_only_new_songs_lack_what_is_hidden(run: tuple[Fold, Path], encoded: Outputs) -> None:
    """A hidden field is as if it were not there: songs of the same genres have the same vector."""
    fold, without = run[0], outputs(*run, ["content"]).vectors
    new = np.concatenate([held.songs for held in fold.parts.values()])
    np.testing.assert_array_equal(without[fold.known], encoded.vectors[fold.known])
    assert (np.abs(without[new] - encoded.vectors[new]).max(axis=1) > 1e-3).mean() > 0.9
    by_genre: dict[tuple[str, ...], list[np.ndarray]] = {}
    for song, genres in zip(new, fold.catalogue.songs["genres"][new].fill_null([]).to_list(), strict=True):
        by_genre.setdefault(tuple(genres), []).append(without[song])
    for vectors in by_genre.values():
        np.testing.assert_allclose(vectors, np.broadcast_to(vectors[0], np.shape(vectors)), atol=1e-5)
    assert len(by_genre) > 1 and {of for of, _ in WITHOUT.values()} <= set(VARIANTS)
