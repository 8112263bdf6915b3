"""The neural ranker of a rank run: weights to scores of candidates.

Shapes: P (song, user) pairs.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from artifacts.runs import Run
from configs.errors import UserError
from data.arrays import AnyArray
from data.fields import SongFields
from datamodules.batches import EpochBatches, loader
from datamodules.rank import RankBatches
from inference.vectors import restore
from lightning_modules.rank import RankModule
from retrieval.ranking import Examples, Score

SONGS_AT_ONCE = 4  # with all their candidates


def network(run: Run, names: tuple[str, ...], fields: SongFields) -> Score:
    """The scores of a run's network by the features `names`; `fields` are contents of all songs of the catalogue.

    Raises:
        UserError: the songs have other fields than those that it was fitted on, or its weights do not fit.
    """
    hparams = run.hparams
    if (fields.dense_dims, fields.vocab_sizes) != (hparams["dense_dims"], hparams["vocab_sizes"]):
        raise UserError(f"{run.folder} was fitted on songs with other fields: run train.py rank again")
    module = restore(RankModule, run)

    def score(examples: Examples) -> AnyArray:
        groups = np.arange(len(examples.sizes_G))
        return scores(module, RankBatches(examples, names, fields, groups, hparams["grades"]))

    return score


def restored(hparams: dict[str, Any], weights: dict[str, Tensor]) -> RankModule:
    """A network with its weights, ready to score."""
    module = RankModule(**hparams)
    module.load_state_dict(weights)
    return module.eval()


def scores(module: RankModule, batches: RankBatches) -> AnyArray:
    """Scores of the pairs of some songs, in order, (P,)."""
    if not len(batches.groups):
        return np.zeros(0, dtype=np.float32)
    in_order = EpochBatches(len(batches.groups), SONGS_AT_ONCE, shuffle=False)
    with torch.inference_mode():
        found = [module.predict_step(batch, at) for at, batch in enumerate(loader(batches, in_order))]
    return torch.cat(found).numpy()
