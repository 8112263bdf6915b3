"""Ranking DataModule: the candidates of some songs, with features, contents of songs, histories and labels.

Shapes: G songs that have candidates, P (song, user) pairs, N pairs of a batch, R histories of a batch, T places of a
history, S distinct songs of a batch, F features, L labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import lightning as L
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from data.arrays import AnyArray, BoolArray, FloatArray, IntArray
from data.fields import SongFields
from datamodules.batches import Batch, batches_of, loader
from retrieval.ranking import Examples, grade_shares, listened


class RankBatches(Dataset[Any]):
    """Batches of `models.ranker` from the candidates of whole songs; with `label` (N, 3) and `share` where told."""

    def __init__(
        self, examples: Examples, names: tuple[str, ...], fields: SongFields, groups: IntArray, grades: Sequence[float]
    ) -> None:
        self.examples, self.fields, self.groups, self.grades = examples, fields, groups, grades
        self.codes = [name for name in names if name in examples.codes]
        self.numbers = [name for name in names if name not in examples.codes]
        self.size_G = examples.sizes_G
        self.start_G = np.cumsum(self.size_G) - self.size_G

    def __getitem__(self, batch: Batch) -> dict[str, Any]:
        size, start = (of_G[self.groups[batch.rows]] for of_G in (self.size_G, self.start_G))
        at = np.repeat(start - np.cumsum(size) + size, size) + np.arange(size.sum())
        part = self.examples.take(at)
        found = {
            "numbers": torch.from_numpy(part.columns(tuple(self.numbers))),
            "codes": torch.from_numpy(np.nan_to_num(part.columns(tuple(self.codes))).astype(np.int64)),
            **self._songs(part),
        }
        if part.label_PL is None:
            return found
        labels = {"label": listened(part), "share": grade_shares(part, self.grades)}
        return found | {name: torch.from_numpy(values.astype(np.float32)) for name, values in labels.items()}

    def _songs(self, part: Examples) -> dict[str, Any]:
        """Contents of the pairs' songs and of those in their histories, each once."""
        assert part.histories is not None
        rows, row_N = np.unique(part.histories.row_P, return_inverse=True)
        song_RT, signal_RT = part.histories.song_RT[rows], part.histories.signal_RT[rows]
        places = max(1, int((song_RT >= 0).sum(axis=1).max(initial=0)))  # never of width 0: the mask says what is there
        song_RT, signal_RT = song_RT[:, :places].astype(np.int64), signal_RT[:, :places].astype(np.int64)
        mask_RT = song_RT >= 0
        new, new_N = np.unique(part.song_P, return_inverse=True)
        every = np.concatenate([new, np.where(mask_RT, song_RT, new[0]).ravel()])
        songs, place = np.unique(every, return_inverse=True)
        return {
            "songs": self.fields.gather(songs),
            "new": torch.from_numpy(place[: len(new)]),
            "song": torch.from_numpy(new_N),
            "row": torch.from_numpy(row_N),
            "history": torch.from_numpy(place[len(new) :].reshape(mask_RT.shape)),
            "mask": torch.from_numpy(mask_RT),
            "signal": torch.from_numpy(signal_RT),
        }


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
