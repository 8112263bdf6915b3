"""Build a task's LightningModule and DataModule from its options.

Each function raises UserError where the data cannot be used or the options do not go together, and ValueError for sizes
that a model cannot have.
"""

from __future__ import annotations

import sys
from typing import Any

from artifacts.runs import Run
from configs.errors import UserError
from configs.load import as_dict
from configs.training import BoundaryConfig, ClipConfig, I2IConfig
from data.catalogue import Catalogue, known_songs
from datamodules.boundary import BoundaryDataModule
from datamodules.catalogue import CatalogueDataModule
from datamodules.clip import ClipDataModule
from datamodules.i2i import I2IDataModule
from lightning_modules.boundary import BoundaryModule
from lightning_modules.clip import ClipModule
from lightning_modules.i2i import I2IModule
from training.start import profile_vocabulary, song_vocabulary

OWN_AUDIO = ("width", "layers", "heads")  # of ClipModelConfig: our own audio encoder
AUGMENT = ("gain_db", "noise_db", "freq_mask", "time_mask")
OF_BATCHES = ("negatives", "bcl_sampling", "draws", "artist_negatives", "history", "candidates")
TUNED = ("model", "frozen", "last_layers", "lora_rank")


def clip_parts(config: ClipConfig) -> tuple[ClipModule, ClipDataModule]:
    """Build the LightningModule and the DataModule of `train_clip`."""
    prepared: dict[str, Any] = {  # how audio and text have to be prepared for the model; its checkpoint says so, too
        "text_model": config.text.model,
        "text_fields": list(config.text.fields),
        "max_tokens": config.text.max_tokens,
        "windows": config.text.windows,
        "frozen_text": config.text.frozen,
        "audio_model": config.audio.model,
        "frozen_audio": config.audio.frozen,
        "crop_seconds": config.model.crop_seconds,
        "crops": config.model.crops,
    }
    data = ClipDataModule(
        config.data,
        batch_size=config.batch_size,
        text_variants=config.text.variants,
        keep=config.text.keep,
        unpaired=config.objective.unpaired,
        workers=config.trainer.workers,
        seed=config.seed,
        **prepared,
    )
    if data.crops.is_logmel and (config.objective.gain_db or config.objective.noise_db):
        raise UserError("objective.gain_db and noise_db change samples: prepare the catalogue with audio.store=samples")
    module = ClipModule(
        model=clip_model_options(config, data.audio, data.widths()),
        prepared=prepared | data.audio,
        micro_batch=config.objective.micro_batch,
        text_lr_scale=config.text.lr_scale,
        audio_lr_scale=config.audio.lr_scale,
        compiled=config.model.compile,
        **as_dict(config.optim),
    )
    return module, data


def clip_model_options(config: ClipConfig, front: dict[str, int], widths: dict[str, int]) -> dict[str, Any]:
    """Arguments of `models.clip.ClipModel`."""
    text, audio, model, objective = map(as_dict, (config.text, config.audio, config.model, config.objective))
    recompute = {"recompute": config.model.recompute}
    own = {name: model[name] for name in OWN_AUDIO}
    return {
        "front": front | {name: objective[name] for name in AUGMENT},
        "audio": {name: audio[name] for name in TUNED} | {"dim": widths["audio"]} | own | recompute,
        "text": {name: text[name] for name in TUNED} | {"dim": widths["text"]} | recompute,
        "dim": config.model.dim,
        "dropout": config.model.dropout,
        "temperature": config.objective.temperature,
        "sigmoid": config.objective.loss == "siglip",
    }


def catalogue_of(config: I2IConfig | BoundaryConfig, start: Run | None) -> CatalogueDataModule:
    """Open the catalogue of a training, with the fields that it uses: those of the run that it starts from."""
    use, vocabulary = list(config.fields.use), None
    if start is not None:
        vocabulary = song_vocabulary(start, Catalogue.read(config.data), config.fields.min_count)
        use = [*start.hparams["dense_dims"], *vocabulary]
    return CatalogueDataModule(config.data, config.features, use, config.fields.min_count, vocabulary)


def i2i_parts(config: I2IConfig, start: Run | None = None) -> tuple[I2IModule, I2IDataModule, dict[str, Any]]:
    """Build the LightningModule, the DataModule and the vocabulary of `train_i2i`, for weights of the run `start`."""
    objective = as_dict(config.objective)
    data = I2IDataModule(
        catalogue_of(config, start),
        batch_size=config.batch_size,
        bcl_batch_size=config.bcl_batch_size,
        workers=config.trainer.workers,
        seed=config.seed,
        **{key: objective.pop(key) for key in OF_BATCHES},
        users=objective.pop("users") if config.objective.listening_weight > 0 else 0,
        in_batch=config.objective.in_batch,
    )
    fields = [*data.fields.dense_dims, *data.fields.vocab_sizes]
    if config.objective.bcl_weight > 0 and len(fields) < 2 and not config.objective.cut_fields:
        print(f"note: the contrastive part is off: {fields[0]} is the only field, and views need two", file=sys.stderr)
        objective["bcl_weight"] = 0.0
    model = as_dict(config.model)
    module = I2IModule(
        data.fields.dense_dims,
        data.fields.vocab_sizes,
        block=config.fields.block,
        residual_size=data.residual_size if model.pop("residual") else 0,
        **model,
        **{key: value for key, value in objective.items() if key != "users"},
        **as_dict(config.optim),
    )
    return module, data, {"songs": data.fields.vocabulary, "known": {"song_id": data.known}}


def boundary_parts(
    config: BoundaryConfig, start: Run | None = None
) -> tuple[BoundaryModule, BoundaryDataModule, dict[str, Any]]:
    """Build the LightningModule, the DataModule and the vocabulary of `train_boundary`, for weights of `start`."""
    model, objective = as_dict(config.model), as_dict(config.objective)
    alpha, source = objective.pop("alpha"), catalogue_of(config, start)
    data = BoundaryDataModule(
        source,
        profile_vocabulary=None if start is None else profile_vocabulary(start, source.catalogue),
        batch_size=config.batch_size,
        history=model.pop("history"),
        workers=config.trainer.workers,
        seed=config.seed,
        **objective,
    )
    module = BoundaryModule(
        data.fields.dense_dims,
        data.fields.vocab_sizes,
        data.profile.vocab_sizes,
        n_numbers=data.profile.n_numbers,
        block=config.fields.block,
        alpha=alpha,
        **model,
        **as_dict(config.optim),
    )
    known = {"song_id": known_songs(data.catalogue)}
    return module, data, {"songs": data.fields.vocabulary, "users": data.profile.vocabulary, "known": known}
