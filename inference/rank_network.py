"""The neural ranker of a rank run: weights to scores of candidates.

Shapes: P (song, user) pairs.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load
from torch import Tensor

from configs.errors import UserError
from data.arrays import AnyArray
from data.fields import SongFields
from datamodules.batches import EpochBatches, loader
from datamodules.rank import RankBatches
from lightning_modules.rank import RankModule
from retrieval.ranking import Examples, Score

SONGS_AT_ONCE = 4  # with all their candidates


def network(path: Path, names: tuple[str, ...], hparams: dict[str, Any], fields: SongFields) -> Score:
    """The scores of a network, read from its file; `fields` are contents of all songs of the catalogue.

    Raises:
        UserError: the file is damaged, or the songs have other fields than those that it was fitted on.
    """
    other = fields.dense_dims, fields.vocab_sizes
    if other != (hparams["dense_dims"], hparams["vocab_sizes"]):
        raise UserError(f"{path} was fitted on songs with other fields: run train.py rank again")
    try:
        module = restored(hparams, load(path.read_bytes()))
    except Exception as error:  # safetensors raises types of its own
        raise UserError(f"{path}: cannot be read ({type(error).__name__}); run train.py rank again") from None

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
