"""The DataModule of an open catalogue, which those of the CLIP, I2I and boundary tasks extend and can share."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from data.arrays import IntArray
from data.catalogue import Catalogue
from data.fields import SongFields, Vocabulary, read_fields
from datamodules.batches import Batch, batches_of, loader


class SongBatches(Dataset[Any]):
    """Songs in order: their row numbers, fields and, where the task has them, codes of residual embeddings."""

    def __init__(self, fields: SongFields, songs: IntArray, residual_codes: IntArray | None = None) -> None:
        self.fields, self.songs, self.residual_codes = fields, songs, residual_codes

    def __getitem__(self, batch: Batch) -> dict[str, Any]:
        rows = self.songs[batch.rows]
        item = {"id": torch.from_numpy(rows), "fields": self.fields.gather(rows)}
        return item if self.residual_codes is None else item | {"residual": torch.from_numpy(self.residual_codes[rows])}


class CatalogueDataModule(L.LightningDataModule):
    """Opens a catalogue with its song fields and splits, and gives its songs in order.

    Tables and fields are read when first asked for. A DataModule made from another one (`BoundaryDataModule(data)`)
    shares all that this has read: several LightningModules train on one open catalogue.

    Args:
        data: catalogue folder, the catalogue, or the DataModule that has opened it.
        features, use, min_count, vocabulary: as `read_fields`; they belong to a folder, not to a DataModule.

    Raises:
        UserError: the folder is not a catalogue.
    """

    residual_codes: IntArray | None = None

    def __init__(
        self,
        data: str | Path | Catalogue | CatalogueDataModule,
        features: str | None = None,
        use: list[str] | None = None,
        min_count: int = 2,
        vocabulary: Vocabulary | None = None,
        batch_size: int = 1024,
        workers: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.batch_size, self.workers, self.seed = batch_size, workers, seed
        self.source: CatalogueDataModule = data.source if isinstance(data, CatalogueDataModule) else self
        opened = data.catalogue if isinstance(data, CatalogueDataModule) else data
        self.catalogue: Catalogue = opened if isinstance(opened, Catalogue) else Catalogue.read(opened)
        self.field_options = (features, use or [], min_count, vocabulary)

    @cached_property
    def fields(self) -> SongFields:
        """Feature fields of all songs."""
        return read_fields(self.catalogue, *self.field_options) if self.source is self else self.source.fields

    @cached_property
    def warm(self) -> IntArray:
        """Songs that training may see."""
        return self.catalogue.rows("warm")

    def songs_loader(self, songs: IntArray, batch_size: int = 1024) -> DataLoader[Any]:
        """Load `id`, `fields` and, where the task has residual embeddings, `residual` of the given songs, in order."""
        batches = batches_of(self, len(songs), batch_size, shuffle=False)
        return loader(SongBatches(self.fields, songs, self.residual_codes), batches)

    def dense_statistics(self) -> dict[str, tuple[Tensor, float]]:
        """Centre and overall scale of each dense field over warm songs."""
        return self.fields.dense_statistics(self.warm)
