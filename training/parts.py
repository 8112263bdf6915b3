"""What a training is made of: from a task's options to its LightningModule and its DataModule."""

from __future__ import annotations

from typing import Any

from configs.errors import UserError
from configs.load import as_dict
from configs.training import BoundaryConfig, ClipConfig, I2IConfig

PARTS = ("text", "audio", "model", "objective")  # of ClipConfig, beside data and training


def clip_parts(config: ClipConfig) -> tuple[Any, Any]:
    """The LightningModule and the DataModule of `train_clip`.

    Raises:
        UserError: the data cannot be used, or the options do not go together.
        ValueError: sizes that a model cannot have.
    """
    from datamodules.clip import SongDataModule
    from lightning_modules.clip import ClipModule

    text, audio, model, objective = (as_dict(getattr(config, part)) for part in PARTS)
    prepared = {
        "text_model": config.text.model,
        "text_fields": list(config.text.fields),
        "max_tokens": config.text.max_tokens,
        "windows": config.text.windows,
        "frozen_text": config.text.frozen,
        "audio_model": config.audio.model,
        "frozen_audio": config.audio.frozen,
        "crop_seconds": model.pop("crop_seconds"),
        "crops": model.pop("crops"),
    }
    data = SongDataModule(
        config.data,
        batch_size=config.batch_size,
        text_variants=config.text.variants,
        keep=config.text.keep,
        unpaired=objective.pop("unpaired"),
        workers=config.trainer.workers,
        seed=config.seed,
        **prepared,
    )
    augment = {name: objective.pop(name) for name in ("gain_db", "noise_db", "freq_mask", "time_mask")}
    if data.crops.is_logmel and (augment["gain_db"] or augment["noise_db"]):
        raise UserError("objective.gain_db and noise_db change samples: prepare the catalogue with audio.store=samples")
    widths, tuned = data.widths(), ("model", "frozen", "last_layers", "lora_rank")
    own = {name: model.pop(name) for name in ("width", "layers", "heads")}
    recompute, compiled = {"recompute": model.pop("recompute")}, model.pop("compile")
    towers = {
        "front": data.audio | augment,
        "audio": {name: audio[name] for name in tuned} | {"dim": widths["audio"]} | own | recompute,
        "text": {name: text[name] for name in tuned} | {"dim": widths["text"]} | recompute,
    }
    module = ClipModule(
        model=towers
        | model
        | {"temperature": objective.pop("temperature"), "sigmoid": objective.pop("loss") == "siglip"},
        prepared=prepared | data.audio,
        text_lr_scale=text["lr_scale"],
        audio_lr_scale=audio["lr_scale"],
        compiled=compiled,
        **objective,
        **as_dict(config.optim),
    )
    return module, data


def i2i_parts(config: I2IConfig) -> tuple[Any, Any, dict[str, Any]]:
    """The LightningModule, the DataModule and the vocabulary of `train_i2i`.

    Raises:
        UserError: the data cannot be used.
    """
    from datamodules.i2i import PairDataModule
    from lightning_modules.i2i import I2IModule

    objective = as_dict(config.objective)
    data = PairDataModule(
        config.data,
        config.features,
        use=list(config.fields.use),
        min_count=config.fields.min_count,
        batch_size=config.batch_size,
        bcl_batch_size=config.bcl_batch_size,
        workers=config.trainer.workers,
        seed=config.seed,
        known=None if config.model.memory else [],
        **{key: objective.pop(key) for key in ("negatives", "bcl_sampling", "history", "candidates")},
        users=objective.pop("users") if config.objective.listening_weight > 0 else 0,
        in_batch=config.objective.in_batch,
    )
    model = as_dict(config.model)
    module = I2IModule(
        data.fields.dense_dims,
        data.fields.vocab_sizes,
        block=config.fields.block,
        memory_size=data.memory_size if model.pop("memory") else 0,
        **model,
        **{key: value for key, value in objective.items() if key != "users"},
        **as_dict(config.optim),
    )
    return module, data, {"songs": data.fields.vocabulary, "known": {"song_id": data.known}}


def boundary_parts(config: BoundaryConfig) -> tuple[Any, Any, dict[str, Any]]:
    """The LightningModule, the DataModule and the vocabulary of `train_boundary`.

    Raises:
        UserError: the data cannot be used.
    """
    from datamodules.boundary import InteractionDataModule
    from lightning_modules.boundary import BoundaryModule

    data = InteractionDataModule(
        config.data,
        config.features,
        use=list(config.fields.use),
        min_count=config.fields.min_count,
        batch_size=config.batch_size,
        negatives=config.objective.negatives,
        history=config.model.history,
        positives=config.objective.positives,
        sampling=config.objective.sampling,
        strengths=list(config.objective.strengths),
        workers=config.trainer.workers,
        seed=config.seed,
    )
    module = BoundaryModule(
        data.fields.dense_dims,
        data.fields.vocab_sizes,
        data.profile.vocab_sizes,
        n_numbers=data.profile.n_numbers,
        block=config.fields.block,
        field_dim=config.model.field_dim,
        hidden=config.model.hidden,
        dim=config.model.dim,
        dropout=config.model.dropout,
        alpha=config.objective.alpha,
        **as_dict(config.optim),
    )
    return module, data, {"songs": data.fields.vocabulary, "users": data.profile.vocabulary}
