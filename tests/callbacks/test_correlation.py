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
    """Linear CKA of each pair of fields over the songs that have both, from the songs' kernels."""
    with torch.no_grad():
        e, present = (x.numpy() for x in embedding(fields))
    of = np.array(embedding.field_of)
    has = [present[:, of == g].any(axis=1) for g in range(of[-1] + 1)]
    x = [e[:, of == g].reshape(len(e), -1).astype(np.float64) for g in range(of[-1] + 1)]

    def cka(i: int, j: int) -> float:
        both = has[i] & has[j]
        k, m = kernel(x[i][both]), kernel(x[j][both])
        return float((k * m).sum() / np.sqrt((k * k).sum() * (m * m).sum()))

    def kernel(one: np.ndarray) -> np.ndarray:
        one = one - one.mean(axis=0)
        return one @ one.T

    return np.array([[cka(i, j) for j in range(len(x))] for i in range(len(x))])


@pytest.mark.parametrize("size", [1, 7, 1024])
def test_against_brute_force_over_all_warm_songs(data: I2IDataModule, size: int) -> None:
    embedding = trained_embedding(data).eval()
    expected = brute_correlation(embedding, data.fields.gather(data.warm))
    assert expected.shape == (5, 5), "content, mood, language, genres, tags"
    embedding.train()
    batches = (batch["fields"] for batch in data.songs_loader(data.warm, size))
    got = correlate(embedding, batches, torch.tensor(embedding.field_of))
    assert embedding.training and not got.requires_grad and got.dtype == torch.float32
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)
    content, genres, language = map(embedding.field_names.index, ("content", "genres", "language"))
    assert got[content, genres] > 2 * got[content, language], "what carries taste goes together"


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


def module_for(data: I2IDataModule, **options: Any) -> I2IModule:
    """The article's two parts."""
    sizes: Any = {"block": 4, "field_dim": 5, "hidden": 8, "dim": 6, "residual_size": 0, "input_dropout": 0.0}
    options = module_options(I2IConfig, **sizes, listening_weight=0.0, lr=0.05, **options)
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
    assert stored.shape == (5, 5) and not torch.equal(stored, torch.eye(5)) and torch.isfinite(stored).all()
    module = I2IModule.load_from_checkpoint(i2i_run / "checkpoints" / "best.ckpt", weights_only=True)
    assert torch.equal(module.correlation, stored)


@pytest.mark.parametrize("views", ["complementary", "anchored"])
def test_a_song_with_an_empty_view_is_left_out_and_counted(data: I2IDataModule, views: str) -> None:
    """Song 8 has no field at all: it is left out of every comparison."""
    module = module_for(data, views=views)
    for songs, share in (([0, 8, 1, 8], 0.5), ([0, 1], 0.0)):
        e_NFE, present_NF = module.model.embedding(data.fields.gather(np.array(songs)))
        drawn = {"drawn": torch.arange(len(songs)), "drawn_ids": torch.tensor(songs), "views_seed": 0}
        whole_ND, _ = module.model.content(e_NFE, present_NF)
        loss, left_out = module.contrastive_loss(drawn, e_NFE, present_NF, whole_ND)
        assert float(left_out) == pytest.approx(share) and torch.isfinite(loss)
