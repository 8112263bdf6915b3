"""The neural ranker of a rank run: weights to scores of candidates, and to what they are made of; without Lightning.

Shapes: P (song, user) pairs, F features, T places of a history, S songs of a catalogue, M other songs, D size of a key.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from configs.errors import UserError
from data.arrays import AnyArray, FloatArray
from data.fields import SongFields
from datamodules.batches import EpochBatches
from datamodules.rank_batches import RankBatches, SongKeys
from models.ranker import RankNetwork
from retrieval.audience import slices
from retrieval.ranking import Examples, Score

SONGS_AT_ONCE = 4  # with all their candidates
CHUNK = 4096  # songs whose keys are made at a time


@torch.inference_mode()
def song_keys(model: RankNetwork, fields: SongFields, n_songs: int, folder: Path) -> FloatArray:
    """What a network's attention reads of all songs of a catalogue, by their contents, (S, D).

    Raises:
        UserError: the songs have other fields than those that the network of this folder was fitted on.
    """
    embedding = model.embedding
    if (fields.dense_dims, fields.vocab_sizes) != (embedding.dense_dims, embedding.vocab_sizes):
        raise UserError(f"{folder} was fitted on songs with other fields: run train.py rank again")
    parts = [model.keys(fields.gather(np.arange(n_songs)[rows])).numpy() for rows in slices(n_songs, CHUNK)]
    return np.concatenate(parts)


def network(model: RankNetwork, names: tuple[str, ...], key_SD: FloatArray) -> tuple[Score, Score, Score]:
    """Of a network by the features `names`: scores, contributions of features to them, and attention to histories.

    `key_SD` are the `song_keys` of the catalogue. Keys of other songs are made of `Examples.content`.
    """

    def batches(examples: Examples) -> RankBatches:
        more_MD = np.zeros((0, key_SD.shape[1]), dtype=np.float32)
        if examples.content is not None:
            with torch.inference_mode():
                more_MD = model.keys(examples.content).numpy()
        return RankBatches(examples, names, SongKeys(key_SD, more_MD), np.arange(len(examples.sizes_G)))

    def contributions(examples: Examples) -> AnyArray:
        """Integrated gradients of all features, (P, F); with what the history adds they sum to the score less that of
        a user who is average in all of them and has no history."""
        found_PF, asked = np.zeros(examples.feature_PF.shape), batches(examples)
        if len(examples):
            of_model = [examples.names.index(name) for name in (*asked.numbers, *asked.codes)]
            found_PF[:, of_model] = np.concatenate([model.contributions(one).numpy()[:, :-1] for one in each(asked)])
        return found_PF

    @torch.inference_mode()
    def attention(examples: Examples) -> AnyArray:
        """Share of attention on each song of the history, mean over heads, (P, T)."""
        assert examples.histories is not None
        length = examples.histories.song_RT.shape[1]
        found = (model.attended(one).numpy() for one in each(batches(examples)))
        padded = [np.pad(share_NT, ((0, 0), (0, length - share_NT.shape[1]))) for share_NT in found]
        return np.concatenate([np.zeros((0, length), dtype=np.float32), *padded])

    return lambda examples: scores(model, batches(examples)), contributions, attention


@torch.inference_mode()
def scores(model: RankNetwork, batches: RankBatches) -> AnyArray:
    """Scores of the pairs of some songs, in order, (P,)."""
    return np.concatenate([np.zeros(0, dtype=np.float32), *(model.score(one).numpy() for one in each(batches))])


def each(batches: RankBatches) -> Iterator[dict[str, Any]]:
    """The batches of some songs, in order."""
    if len(batches.groups):
        yield from (batches[rows] for rows in EpochBatches(len(batches.groups), SONGS_AT_ONCE, shuffle=False))
