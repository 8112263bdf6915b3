"""I2I DataModule: verified pairs with uniform global negatives, and songs drawn uniformly for the contrastive part."""

from __future__ import annotations

from typing import Any

import lightning as L
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from configs.errors import UserError
from datamodules.arrays import IntArray
from datamodules.batches import Batch, EpochBatches, loader
from datamodules.catalogue import NO_VALIDATION, Catalogue
from datamodules.fields import SongFields, Vocabulary, read_fields


class PairBatches(Dataset[Any]):
    """A batch: N pairs, M uniform negatives shared by them, and S songs drawn uniformly over the warm catalogue.

    The warm catalogue includes songs without any play. Cold validation and test songs are not among `songs`.
    """

    def __init__(
        self, fields: SongFields, source: IntArray, target: IntArray, songs: IntArray, negatives: int, drawn: int
    ) -> None:
        self.fields, self.source, self.target, self.songs = fields, source, target, songs
        self.negatives, self.drawn = negatives, drawn

    def __getitem__(self, batch: Batch) -> dict[str, Any]:
        rng = np.random.default_rng(batch.seed)
        source, target = self.source[batch.rows], self.target[batch.rows]
        negatives, drawn = rng.choice(self.songs, self.negatives), rng.choice(self.songs, self.drawn)
        return {
            "pairs": self.fields.gather(np.concatenate([source, target, negatives])),
            "source": torch.from_numpy(source),
            "target": torch.from_numpy(target),
            "negatives": torch.from_numpy(negatives),
            "drawn": self.fields.gather(drawn),
            "drawn_ids": torch.from_numpy(drawn),
        }


class SongBatches(Dataset[Any]):
    """Songs in order: their row numbers and fields."""

    def __init__(self, fields: SongFields, songs: IntArray) -> None:
        self.fields, self.songs = fields, songs

    def __getitem__(self, batch: Batch) -> dict[str, Any]:
        rows = self.songs[batch.rows]
        return {"id": torch.from_numpy(rows), "fields": self.fields.gather(rows)}


class PairDataModule(L.LightningDataModule):
    """Batches of the I2I task from a catalogue folder and, if given, a feature folder."""

    def __init__(
        self,
        data: str,
        features: str | None = None,
        use: list[str] | None = None,
        min_count: int = 2,
        batch_size: int = 256,
        bcl_batch_size: int = 256,
        negatives: int = 512,
        workers: int = 0,
        seed: int = 0,
        vocabulary: Vocabulary | None = None,
    ) -> None:
        super().__init__()
        self.batch_size, self.bcl_batch_size, self.negatives = batch_size, bcl_batch_size, negatives
        self.workers, self.seed = workers, seed
        self.catalogue = Catalogue.read(data)
        self.fields = read_fields(self.catalogue, features, use or [], min_count, vocabulary)
        self.warm = self.catalogue.rows("warm")

    def train_dataloader(self) -> DataLoader[Any]:
        """Pairs, negatives and uniformly drawn songs."""
        source, target = self.catalogue.pairs()
        dataset = PairBatches(self.fields, source, target, self.warm, self.negatives, self.bcl_batch_size)
        return loader(dataset, self._batches(len(source), self.batch_size, shuffle=True), self.workers)

    def val_dataloader(self) -> list[DataLoader[Any]]:
        """Loader 0: warm songs to index; loader 1: cold validation songs that ask.

        Raises:
            UserError: there is nothing to validate with.
        """
        if not len(self.val_positives()[0]):
            raise UserError(f"{self.catalogue.folder}: {NO_VALIDATION}")
        return [self.songs_loader(self.warm), self.songs_loader(self.catalogue.rows("cold_val"))]

    def songs_loader(self, songs: IntArray, batch_size: int = 1024) -> DataLoader[Any]:
        """Fields of the given songs, in order."""
        return loader(SongBatches(self.fields, songs), self._batches(len(songs), batch_size, shuffle=False))

    def val_positives(self) -> tuple[IntArray, IntArray]:
        """(cold validation song, warm song with the same listeners)."""
        return self.catalogue.pairs("val_pairs")

    def dense_statistics(self) -> dict[str, tuple[Tensor, float]]:
        """Centre and overall scale of each dense field over warm songs."""
        return self.fields.dense_statistics(self.warm)

    def _batches(self, n: int, batch_size: int, shuffle: bool) -> EpochBatches:
        trainer = self.trainer
        rank, world_size = (trainer.global_rank, trainer.world_size) if trainer else (0, 1)
        return EpochBatches(n, batch_size, self.seed, rank, world_size, shuffle)
