"""Ranking DataModule: the candidates of some songs, with features, contents of songs, histories and labels.

Shapes: G songs that have candidates, P (song, user) pairs, F features.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import lightning as L
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from data.arrays import AnyArray, BoolArray, FloatArray, IntArray
from data.fields import SongFields
from datamodules.batches import batches_of, loader
from datamodules.rank_batches import RankBatches
from retrieval.ranking import Examples, listened


class RankDataModule(L.LightningDataModule):
    """Batches of the ranking task: a row is a song with all its candidates.

    Args:
        examples: labelled candidates, with histories.
        names: the features to be learned from.
        fields: contents of all songs of the catalogue.
        known: songs of the catalogue by which its fields are standardised.
        grades: what a listener is worth who played, completed, favourited.
        left_G: songs left out of training, by which it is stopped.
        batch_size: songs per step.
        seed: order of the songs.
    """

    def __init__(
        self,
        examples: Examples,
        names: tuple[str, ...],
        fields: SongFields,
        known: IntArray,
        grades: Sequence[float],
        left_G: BoolArray,
        batch_size: int,
        seed: int,
    ) -> None:
        super().__init__()
        self.examples, self.names, self.fields, self.known = examples, names, fields, known
        self.grades, self.left_G, self.batch_size, self.seed = grades, left_G, batch_size, seed

    def train_dataloader(self) -> DataLoader[Any]:
        """Songs that are not left out."""
        groups = np.flatnonzero(~self.left_G)
        return loader(self.batches(groups), batches_of(self, len(groups), self.batch_size, shuffle=True))

    def val_dataloader(self) -> DataLoader[Any] | list[Any]:
        """Songs left out, in order; none where none is."""
        groups = np.flatnonzero(self.left_G)
        if not len(groups):
            return []
        return loader(self.batches(groups), batches_of(self, len(groups), self.batch_size, shuffle=False))

    def batches(self, groups: IntArray) -> RankBatches:
        """Some songs."""
        return RankBatches(self.examples, self.names, self.fields, groups, self.grades)

    def dense_statistics(self) -> dict[str, tuple[Tensor, float]]:
        """Centre and overall scale of each dense field over known songs."""
        return self.fields.dense_statistics(self.known)

    def number_statistics(self) -> tuple[Tensor, Tensor]:
        """Centre and spread of each number feature over training pairs that have it; 0 and 1 where that is nothing."""
        numbers = tuple(name for name in self.names if name not in self.examples.codes)
        values = np.ma.masked_invalid(self.examples.columns(numbers)[self.training_P].astype(np.float64))
        mean, scale = (np.ma.filled(one, 0.0) for one in (values.mean(axis=0), values.std(axis=0)))
        return torch.from_numpy(mean).float(), torch.from_numpy(np.where(scale > 0, scale, 1.0)).float()

    def label_rates(self) -> Tensor:
        """Share of training pairs that were played, and of plays that were completed and favourited, (3,)."""
        label_P3 = listened(self.examples)[self.training_P]
        played = label_P3[:, 0] == 1
        rates = [mean_of_known(label_P3[:, 0]), *(mean_of_known(label_P3[played, at]) for at in (1, 2))]
        return torch.tensor(rates)

    @property
    def training_P(self) -> BoolArray:
        """Pairs of songs that are not left out."""
        return ~self.left_G[self.examples.group_P]


def mean_of_known(values: FloatArray) -> float:
    """Mean without NaN; NaN where nothing is known."""
    known: AnyArray = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else float("nan")
