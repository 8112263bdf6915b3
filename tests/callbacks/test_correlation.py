"""The feature-correlation matrix: over all songs, whatever the batches, rebuilt each epoch, kept in the checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
from torch import Tensor

from artifacts.runs import open_run
from callbacks.correlation import FeatureCorrelation, correlate
from configs.training import I2IConfig
from datamodules.i2i import I2IDataModule
from lightning_modules.i2i import I2IModule
from models.song_encoder import FieldEmbedding
from tests.conftest import module_options


@pytest.fixture
def data(catalogue_folder: Path) -> I2IDataModule:
    return I2IDataModule(str(catalogue_folder), batch_size=64, bcl_batch_size=16, negatives=16)


def trained_embedding(data: I2IDataModule) -> FieldEmbedding:
    torch.manual_seed(1)
    embedding = FieldEmbedding(data.fields.dense_dims, data.fields.vocab_sizes, dim=5, block=4, dropout=0.5)
    for name, (mean, scale) in data.dense_statistics().items():
        embedding.standardise(name, mean, scale)
    return embedding


def brute_correlation(embedding: FieldEmbedding, fields: dict[str, Tensor]) -> np.ndarray:
    """Song by song: centre each feature on the songs that have it, absent ones count as nothing, then CKA."""
    with torch.no_grad():
        e, present = (x.numpy() for x in embedding(fields))
    e = e.astype(np.float64)
    n_features = e.shape[1]
    means = [np.mean([e[n, f] for n in range(len(e)) if present[n, f]], axis=0) for f in range(n_features)]

    def strength(i: int, j: int) -> float:
        total = np.zeros((e.shape[2], e.shape[2]))
        for n in range(len(e)):
            if present[n, i] and present[n, j]:
                total += np.outer(e[n, i] - means[i], e[n, j] - means[j])
        return float((total**2).sum())

    pairs = np.array([[strength(i, j) for j in range(n_features)] for i in range(n_features)])
    return pairs / np.sqrt(np.outer(pairs.diagonal(), pairs.diagonal()))


@pytest.mark.parametrize("size", [1, 7, 1024])
def test_against_brute_force_over_all_warm_songs(data: I2IDataModule, size: int) -> None:
    embedding = trained_embedding(data).eval()
    expected = brute_correlation(embedding, data.fields.gather(data.warm))
    embedding.train()
    got = correlate(embedding, [batch["fields"] for batch in data.songs_loader(data.warm, size)])
    assert embedding.training and not got.requires_grad and got.dtype == torch.float32
    assert expected.shape == (8, 8), "12 + 6 numbers in blocks of 4, and language, genres, tags"
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)
    content, mood, genres = 0, 3, embedding.names.index("genres")
    assert got[content, genres] > 3 * got[mood + 1, genres - 1], "what carries taste goes together"


class Watch(L.Callback):
    """Keeps what the module held when each epoch began and ended."""

    def __init__(self) -> None:
        self.matrices: list[Tensor] = []
        self.expected: list[np.ndarray] = []

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        data = trainer.datamodule
        self.expected.append(brute_correlation(pl_module.model.embedding, data.fields.gather(data.warm)))

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        self.matrices.append(pl_module.correlation.clone())


def fit(data: I2IDataModule, epochs: int, *callbacks: L.Callback) -> None:
    trainer = L.Trainer(
        max_epochs=epochs, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, use_distributed_sampler=False, callbacks=list(callbacks), limit_val_batches=0,
    )  # fmt: skip
    trainer.fit(module_for(data), datamodule=data)


def module_for(data: I2IDataModule) -> I2IModule:
    """The article's two parts."""
    sizes: Any = {"block": 4, "field_dim": 5, "hidden": 8, "dim": 6, "residual_size": 0}
    options = module_options(I2IConfig, **sizes, listening_weight=0.0, lr=0.05)
    return I2IModule(data.fields.dense_dims, data.fields.vocab_sizes, **options)


def test_rebuilt_each_epoch_from_the_current_embeddings(data: I2IDataModule) -> None:
    watch = Watch()
    fit(data, 2, FeatureCorrelation(), watch)
    for matrix, expected in zip(watch.matrices, watch.expected, strict=True):
        np.testing.assert_allclose(matrix, expected, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(*watch.matrices, atol=1e-3), "the embeddings moved, the matrix did not"


def test_max_songs_takes_an_even_sample(data: I2IDataModule) -> None:
    """At most so many, from the first to the last."""
    seen: list[list[int]] = []
    real = data.songs_loader
    data.songs_loader = lambda songs, *a: (seen.append(songs.tolist()), real(songs, *a))[1]  # type: ignore[method-assign]
    fit(data, 1, FeatureCorrelation(max_songs=20))
    (songs,) = [one for one in seen if len(one) < len(data.warm)]
    assert 10 <= len(songs) <= 20 and set(songs) <= set(data.warm.tolist()) and max(songs) - min(songs) > 40


def test_restored_from_the_checkpoint(i2i_run: Path) -> None:
    """After a real `train.py i2i`: the checkpoint holds the matrix its last epoch was trained with."""
    run = open_run(i2i_run, "i2i")
    stored = run.weights["correlation"]
    assert stored.shape == (8, 8) and not torch.equal(stored, torch.eye(8)) and torch.isfinite(stored).all()
    module = I2IModule.load_from_checkpoint(i2i_run / "checkpoints" / "best.ckpt", weights_only=True)
    assert torch.equal(module.correlation, stored)


def test_a_song_with_an_empty_view_is_left_out_and_counted(data: I2IDataModule) -> None:
    """Song 8 has no field at all; song 5 has no content: whether it is left out depends on the groups."""
    module = module_for(data)
    module.correlation[:3, :3] = 1.0  # content blocks together
    songs = np.array([0, 8, 1, 8])
    torch.manual_seed(0)
    loss, left_out = module.contrastive_loss(data.fields.gather(songs), torch.from_numpy(songs))
    assert float(left_out) == pytest.approx(0.5) and torch.isfinite(loss)
    torch.manual_seed(0)
    _, none = module.contrastive_loss(data.fields.gather(songs[[0, 2]]), torch.from_numpy(songs[[0, 2]]))
    assert float(none) == 0.0
