"""Scores and audiences of a trained encoder against loops over its vectors."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.quality.item_cold.encoders import (
    AUDIENCES,
    BIAS_WEIGHTS,
    NEAREST,
    VARIANTS,
    WITHOUT,
    audiences,
    nearest,
    neighbour_popularity,
    outputs,
    score,
    similar_songs,
    train,
)
from benchmarks.quality.item_cold.folds import Fold, make_fold
from benchmarks.quality.item_cold.measure import BUCKETS
from configs.data import PrepareConfig
from configs.load import load
from configs.training import I2IConfig
from inference.vectors import song_vectors

TINY = [
    "batch_size=64", "bcl_batch_size=32", "objective.negatives=32", "objective.users=32", "fields.block=4",
    "model.field_dim=8", "model.hidden=16", "model.dim=8", "trainer.epochs=3", "trainer.accelerator=cpu",
    "trainer.log_every=1", "optim.lr=1e-2",
]  # fmt: skip
SILENT = [0, 17, 79]  # users whose plays are taken away


@pytest.fixture(scope="module")
def trained(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Fold, Path]:
    """A fold in which three users played nothing, and an encoder trained on it (before that)."""
    work = tmp_path_factory.mktemp("encoders")
    fold = make_fold(dataset, work / "seed0", 0, [], [])
    run = train(fold, ["content", "genres"], work / "run", 0, TINY)
    plays, strength = fold.plays_UW.tolil(), fold.strength_UW.tolil()
    plays[SILENT] = strength[SILENT] = 0
    return replace(fold, plays_UW=plays.tocsr(), strength_UW=strength.tocsr()), run


def unit(vector: np.ndarray) -> np.ndarray:
    return vector / (np.linalg.norm(vector) or 1.0)


def tastes(fold: Fold, vectors: np.ndarray) -> list[np.ndarray]:
    """The summed vectors of each user's songs, each times the strength of his signal, scaled to length 1."""
    return [
        unit(sum((strength * vectors[song] for song, strength in zip(fold.known, row, strict=True)), np.zeros(8)))
        for row in fold.strength_UW.toarray()
    ]


def test_scores_are_taste_times_song(trained: tuple[Fold, Path]) -> None:
    fold, run = trained
    _, vectors = song_vectors(run)
    vectors = vectors.astype(np.float64)
    weights = torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)["state_dict"]
    scale = float(np.exp(min(float(weights["logit_scale"]), 4.6)))
    found = score(fold, outputs(fold, run))
    assert set(found) == {"cold_val", "cold_test"} and all(set(one) == set(BIAS_WEIGHTS) for one in found.values())
    for part, held in fold.parts.items():
        expected = np.array([[taste @ unit(vectors[song]) for song in held.songs] for taste in tastes(fold, vectors)])
        for weight in BIAS_WEIGHTS:
            np.testing.assert_allclose(found[part][weight].users, expected, atol=1e-5)
        np.testing.assert_allclose(found[part][0.0].songs, scale * expected, atol=1e-4)
        assert np.ptp(found[part][0.0].users) > 0.5 and not found[part][0.0].users[SILENT].any()
        item_bias = found[part][1.0].songs - found[part][0.0].songs  # a number a song
        np.testing.assert_allclose(item_bias, np.broadcast_to(item_bias[0], item_bias.shape), atol=1e-4)
        assert np.ptp(item_bias[0]) > 1e-3
        for weight in BIAS_WEIGHTS:
            np.testing.assert_allclose(found[part][weight].songs, scale * expected + weight * item_bias, atol=1e-4)


def test_item_bias_is_the_bias_that_training_learned(trained: tuple[Fold, Path]) -> None:
    """item_bias = the encoder's own layer of (all field embeddings of the song), by the run's own module."""
    from artifacts.runs import open_run
    from datamodules.catalogue import CatalogueDataModule
    from lightning_modules.i2i import I2IModule

    fold, run = trained
    opened = open_run(run, "i2i")
    data = CatalogueDataModule(str(fold.folder), use=["content", "genres"])
    module = I2IModule(**opened.hparams).eval()
    module.load_state_dict(opened.weights)
    for part, held in fold.parts.items():
        with torch.no_grad():
            embedded, shown = module.model.embedding(data.fields.gather(held.songs))
            _, item_bias = module.model.content(embedded, shown)
        found = score(fold, outputs(fold, run))[part]
        np.testing.assert_allclose((found[1.0].songs - found[0.0].songs)[0], item_bias.numpy(), atol=1e-4)


def test_popularity_of_the_neighbours(trained: tuple[Fold, Path]) -> None:
    fold, run = trained
    _, vectors = song_vectors(run)
    listeners = fold.plays_UW.toarray().sum(axis=0)
    by_popularity = sorted(range(len(fold.known)), key=lambda song: (listeners[song], song))
    rank = {song: place / (len(fold.known) - 1) for place, song in enumerate(by_popularity)}
    similar = similar_songs(fold, vectors)
    for part, held in fold.parts.items():
        ranks = []
        for song in held.songs:
            near = sorted(range(len(fold.known)), key=lambda known: -float(vectors[fold.known[known]] @ vectors[song]))
            ranks += [rank[known] for known in near[:20]]
        found = neighbour_popularity(fold, similar[part])
        assert found.pop("neighbour_popularity") == pytest.approx(np.mean(ranks), abs=1e-6)
        thirds = [
            sum(a <= rank < b for rank in ranks) / len(ranks) for a, b in ((0, 1 / 3), (1 / 3, 2 / 3), (2 / 3, 2))
        ]
        assert list(found.values()) == pytest.approx(thirds) and list(found) == [f"neighbours_{one}" for one in BUCKETS]


def test_audiences_are_the_loops_and_nobody_else(trained: tuple[Fold, Path]) -> None:
    fold, run = trained
    _, vectors = song_vectors(run)
    plays, strength = fold.plays_UW.toarray(), fold.strength_UW.toarray()
    assert set(np.unique(strength)) == {0, 1, 2, 3}
    counts, listeners = plays.sum(axis=1), plays.sum(axis=0)
    made = outputs(fold, run).vectors
    found = audiences(fold, made, similar_songs(fold, made), neighbours=3)
    assert tuple(found) == AUDIENCES
    for part, held in fold.parts.items():
        similar, near, union = (found[name][part] for name in AUDIENCES)
        for place, song in enumerate(held.songs):
            closeness = np.array([vectors[known] @ vectors[song] for known in fold.known])
            best = np.argsort(-closeness, kind="stable")[:3]
            low, high = closeness[best].min(), closeness[best].max()
            weight = {n: (1 + 2 * (closeness[n] - low) / (high - low)) / 3 / (listeners[n] + 1) ** 0.5 for n in best}
            expected = np.array(
                [sum(weight[n] * strength[user, n] for n in best) / (counts[user] + 1) ** 0.5 for user in range(80)]
            )
            expected[expected == 0] = -np.inf
            np.testing.assert_allclose(similar.users[:, place], expected, rtol=1e-3)
            assert 3 < np.isinf(expected).sum() < 77  # some are outside
            np.testing.assert_array_equal(np.isinf(near.users[:, place]), counts == 0)
            fused = np.zeros(80)
            for one in (similar, near):
                inside = [user for user in range(80) if one.users[user, place] > -np.inf]
                order = sorted(inside, key=lambda user: (-one.users[user, place], user))
                for rank, user in enumerate(order):
                    fused[user] += 1 / (61 + rank)
            np.testing.assert_allclose(union.users[:, place], np.where(fused > 0, fused, -np.inf), rtol=1e-5)
        for one in (similar, near, union):
            np.testing.assert_array_equal(one.songs, one.users)


def test_nearest_songs_by_a_loop(trained: tuple[Fold, Path]) -> None:
    fold, run = trained
    vectors = outputs(fold, run).vectors
    strength, found = fold.strength_UW.toarray(), nearest(fold, vectors)
    assert list(found) == [f"{k} nearest" for k in NEAREST]
    for k in (5, 20):
        for part, held in fold.parts.items():
            for place, song in enumerate(held.songs):
                cosine = np.array([unit(vectors[known]) @ unit(vectors[song]) for known in fold.known])
                best = np.argsort(-cosine, kind="stable")[:k]
                expected = strength[:, best] @ np.maximum(cosine[best], 0)
                np.testing.assert_allclose(found[f"{k} nearest"][part].users[:, place], expected, rtol=1e-3, atol=1e-4)
            assert found[f"{k} nearest"][part].songs is found[f"{k} nearest"][part].users


def test_cat_prefers_users_near_the_song(trained: tuple[Fold, Path]) -> None:
    """The clusters of the first listeners and the song itself: those of its taste go before the others."""
    fold, run = trained
    vectors = outputs(fold, run).vectors
    near = audiences(fold, vectors, similar_songs(fold, vectors))["CAT"]
    for part, held in fold.parts.items():
        for place, song in enumerate(held.songs):
            if song == 8:  # no content: no taste to be found by
                continue
            users = [user for user in range(80) if user not in SILENT]
            best = sorted(users, key=lambda user: -near[part].users[user, place])[:20]
            assert np.mean([user % 3 == song % 3 for user in best]) > 0.6, song


def test_training_is_done_once(trained: tuple[Fold, Path]) -> None:
    fold, run = trained
    last = run / "checkpoints" / "last.ckpt"
    made = last.stat().st_mtime_ns
    assert train(fold, ["content", "genres"], run, 0, TINY) == run
    assert last.stat().st_mtime_ns == made


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


def test_only_new_songs_lack_what_is_hidden(trained: tuple[Fold, Path]) -> None:
    """A hidden field is as if it were not there: NaN in its place gives the same vectors."""
    fold, run = trained
    whole, without = outputs(fold, run), outputs(fold, run, ["content"])
    new = np.concatenate([held.songs for held in fold.parts.values()])
    np.testing.assert_array_equal(without.vectors[fold.known], whole.vectors[fold.known])
    assert (np.abs(without.vectors[new] - whole.vectors[new]).max(axis=1) > 1e-3).mean() > 0.9
    by_genre = {tuple(genres): [] for genres in fold.catalogue.songs["genres"][new].fill_null([]).to_list()}
    for song, genres in zip(new, fold.catalogue.songs["genres"][new].fill_null([]).to_list(), strict=True):
        by_genre[tuple(genres)].append(without.vectors[song])
    for vectors in by_genre.values():
        np.testing.assert_allclose(vectors, np.broadcast_to(vectors[0], np.shape(vectors)), atol=1e-5)
    assert len(by_genre) > 1 and {of for of, _ in WITHOUT.values()} <= set(VARIANTS)
