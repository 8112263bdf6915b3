"""Batches of `models.ranker`, without Lightning: the candidates of some songs, with features, contents and histories.

Shapes: G songs that have candidates, N pairs of a batch, R histories of a batch, T places of a history, S songs of a
catalogue, M other songs, D size of a key.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from data.arrays import FloatArray, IntArray
from data.fields import SongFields
from datamodules.batches import Batch
from retrieval.ranking import Examples, grade_shares, listened


@dataclass(frozen=True)
class SongKeys:
    """What a network's attention reads of songs: of those of a catalogue (S, D), and of others after them (M, D)."""

    known_SD: FloatArray
    more_MD: FloatArray

    def gather(self, songs: IntArray) -> Tensor:
        """Keys of some songs."""
        more = songs - len(self.known_SD)
        found = np.array(self.known_SD[np.where(more < 0, songs, 0)])
        found[more >= 0] = self.more_MD[more[more >= 0]]
        return torch.from_numpy(found)


class RankBatches(Dataset[Any]):
    """Batches of `models.ranker` from the candidates of whole songs; with `label` (N, 3) and `share` where told.

    A pair's `share` is by the worth of `grades`; without them no labels are asked for.
    """

    def __init__(
        self,
        examples: Examples,
        names: tuple[str, ...],
        fields: SongFields | SongKeys,
        groups: IntArray,
        grades: Sequence[float] = (),
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
        if part.label_PL is None or not self.grades:
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
