"""One open catalogue behind the DataModules of several tasks: read once, and each trains as if it had its own."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch

from artifacts.runs import fingerprint
from configs.training import BoundaryConfig, I2IConfig
from data.catalogue import Catalogue
from datamodules.boundary import BoundaryDataModule
from datamodules.catalogue import CatalogueDataModule
from datamodules.clip import ClipDataModule
from datamodules.i2i import I2IDataModule
from lightning_modules.boundary import BoundaryModule
from lightning_modules.i2i import I2IModule
from tests.conftest import module_options

SIZES: dict[str, Any] = {"block": 4, "field_dim": 5, "hidden": 8, "dim": 6}


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each table of a catalogue is read, and its fields are collected."""
    from datamodules import catalogue

    counted: Counter[str] = Counter()
    table, fields = Catalogue._table, catalogue.read_fields
    monkeypatch.setattr(Catalogue, "_table", lambda self, name: (counted.update([name]), table(self, name))[1])
    monkeypatch.setattr(catalogue, "read_fields", lambda *given: (counted.update(["fields"]), fields(*given))[1])
    return counted


def train(module: L.LightningModule, data: CatalogueDataModule, folder: Path) -> str:
    """Train for an epoch; the fingerprint of the weights."""
    quiet: dict[str, Any] = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = L.Trainer(
        max_epochs=1, accelerator="cpu", use_distributed_sampler=False, enable_model_summary=False,
        default_root_dir=folder, **quiet,
    )  # fmt: skip
    torch.manual_seed(1)
    trainer.fit(module, datamodule=data)
    return fingerprint(module.state_dict())


def train_i2i(data: str | CatalogueDataModule, folder: Path) -> str:
    torch.manual_seed(0)
    source = I2IDataModule(data, batch_size=64, bcl_batch_size=16, negatives=16, users=8, seed=3)
    sizes: dict[str, Any] = module_options(I2IConfig, residual_size=source.residual_size, **SIZES)
    return train(I2IModule(source.fields.dense_dims, source.fields.vocab_sizes, **sizes), source, folder)


def train_boundary(data: str | CatalogueDataModule, folder: Path) -> str:
    torch.manual_seed(0)
    source = BoundaryDataModule(data, batch_size=64, seed=3)
    dims = (source.fields.dense_dims, source.fields.vocab_sizes, source.profile.vocab_sizes, source.profile.n_numbers)
    return train(BoundaryModule(*dims, **module_options(BoundaryConfig, **SIZES)), source, folder)


def test_two_modules_train_on_one_catalogue(catalogue_folder: Path, reads: Counter[str], tmp_path: Path) -> None:
    data = CatalogueDataModule(catalogue_folder)
    shared = [train_i2i(data, tmp_path), train_boundary(data, tmp_path)]
    assert reads.pop("pairs") == 1 and reads.pop("val_pairs") >= 1, "the pairs are of one task alone"
    assert reads == dict.fromkeys(("songs", "users", "plays", "cold_plays", "fields"), 1)
    assert shared == [train_i2i(str(catalogue_folder), tmp_path), train_boundary(str(catalogue_folder), tmp_path)]


def test_whichever_task_opens_it(catalogue_folder: Path, reads: Counter[str]) -> None:
    """A DataModule made from another task's shares its catalogue and fields, and keeps what is its own."""
    first = I2IDataModule(str(catalogue_folder), seed=3)
    second = BoundaryDataModule(first, seed=4, batch_size=7)
    third = CatalogueDataModule(second)
    assert third.fields is second.fields is first.fields and third.catalogue is first.catalogue
    assert (first.seed, second.seed, second.batch_size) == (3, 4, 7) and reads["songs"] == reads["fields"] == 1
    batches = [next(iter(data.songs_loader(np.arange(4)))) for data in (first, second)]
    assert "residual" in batches[0] and "residual" not in batches[1]


def test_clip_reads_no_fields(catalogue_folder: Path, reads: Counter[str]) -> None:
    """Songs, their audio and their words are what it needs; of the same open catalogue."""
    data = CatalogueDataModule(catalogue_folder, use=["content"])
    assert ClipDataModule(data, text_fields=["genres"]).catalogue is data.catalogue
    assert reads["songs"] == 1 and reads["fields"] == 0
    assert list(data.fields.dense_dims) == ["content"] and not data.fields.vocab_sizes
