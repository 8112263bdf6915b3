"""The neural ranker: fitted like the trees, the number of epochs being found on songs that are left out in turn.

Shapes: P (song, user) pairs, G songs that have candidates.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import lightning as L
import numpy as np
from safetensors.torch import save

from callbacks.checkpoint import StepSeed
from callbacks.divergence import StopOnDivergence
from callbacks.early_stopping import BestWeights
from configs.load import as_dict
from configs.ranking import GRADES, NetworkConfig
from data.arrays import BoolArray, IntArray
from data.fields import SongFields, Vocabulary
from datamodules.rank import RankDataModule
from inference.rank_network import scores
from inference.vectors import restored
from lightning_modules.rank import RankModule
from retrieval.rank_features import PROFILE
from retrieval.ranking import Examples
from training.rank_trees import Fitted, informative, left_out

OF_DATA = ("history", "batch_size", "epochs", "patience", "parts")  # options that the module does not take


def fit_network(
    examples: Examples,
    fields: SongFields,
    known: IntArray,
    profile: Vocabulary,
    options: NetworkConfig,
    seed: int,
    worth: Sequence[float] = GRADES,
) -> Fitted:
    """Fit the network to labelled candidates; for how many epochs comes from songs that are left out in turn.

    Args:
        examples: labelled candidates, with histories.
        fields: contents of all songs of the catalogue.
        known: songs by which these are standardised.
        profile: codes of profile columns.
        options: of the network.
        seed: of parts, weights, batches and dropout.
        worth: of a listener who played, completed, favourited the song.
    """
    names = informative(examples)
    hparams = described(examples, names, fields, profile, options) | {"grades": list(worth)}
    part_G, parts = left_out(examples, options.parts, seed)
    part_P, apart_P, counts = part_G[examples.group_P], np.zeros(len(examples), dtype=np.float32), []

    def data_without(left_G: BoolArray) -> RankDataModule:
        return RankDataModule(examples, names, fields, known, worth, left_G, options.batch_size, seed)

    for part in parts:
        data = data_without(part_G == part)
        best = trained(hparams, data, options.epochs, options.patience, seed)
        counts.append(best.epochs)
        model = restored(RankModule, hparams, best.weights).model
        apart_P[part_P == part] = scores(model, data.batches(np.flatnonzero(data.left_G)))
    rounds = max(1, int(np.median(counts))) if counts else 1
    weights = trained(hparams, data_without(np.zeros(len(part_G), dtype=bool)), options.epochs, rounds, seed).weights
    about = {"epochs": rounds, "network": hparams}
    return Fitted(save(weights, {"format": "pt"}), names, rounds, apart_P, about)


def described(
    examples: Examples, names: tuple[str, ...], fields: SongFields, profile: Vocabulary, options: NetworkConfig
) -> dict[str, Any]:
    """Arguments of the LightningModule, and which features are its `numbers` and its `codes`, in order."""
    codes = [name for name in names if name in examples.codes]
    numbers = [name for name in names if name not in codes]
    return {
        "dense_dims": fields.dense_dims,
        "vocab_sizes": fields.vocab_sizes,
        "code_sizes": [len(profile[name.removeprefix(PROFILE)]) + 2 for name in codes],
        "n_numbers": len(numbers),
        "numbers": numbers,
        "codes": codes,
        **{name: value for name, value in as_dict(options).items() if name not in OF_DATA},
    }


def trained(hparams: dict[str, Any], data: RankDataModule, epochs: int, patience: int, seed: int) -> BestWeights:
    """Train a network on the songs that are not left out; see `BestWeights` for when it ends."""
    L.seed_everything(seed, verbose=False)
    best = BestWeights(patience)
    trainer = L.Trainer(
        max_epochs=epochs,
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        gradient_clip_val=1.0,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        callbacks=[StepSeed(seed), StopOnDivergence("network"), best],
    )
    trainer.fit(RankModule(**hparams), datamodule=data)
    return best
