"""Train one of the tasks. A run found in out= goes on where it stopped.

python train.py text     corpus=LYRICS.jsonl out=RUN                   (a character BERT; then text.model=RUN/model)
python train.py clip     data=CATALOGUE out=RUN
python train.py i2i      data=CATALOGUE features=FEATURES out=RUN      (objective.bcl_weight=0: CB2CF)
python train.py boundary data=CATALOGUE features=FEATURES out=RUN

torchrun --nproc-per-node 8 train.py i2i data=… out=… trainer.devices=8      (several GPUs)
python train.py i2i --config configs/i2i.yaml data=… out=…                   (options from a file)
python train.py i2i --help                                                   (every option)
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from configs.errors import UserError
from configs.load import as_dict, command
from configs.schema import BoundaryConfig, ClipConfig, CorpusConfig, I2IConfig
from pipeline.fit import Built, fit

PARTS = ("text", "audio", "model", "objective")  # of ClipConfig, beside data and training


def train_text(config: CorpusConfig) -> None:
    """A BERT for a script that the packaged one cannot read; best checkpoint by hidden tokens of held-out documents."""
    from lightning.pytorch.utilities import rank_zero_only

    from datamodules.corpus import CorpusDataModule, character_tokenizer
    from lightning_modules.masked_lm import MaskedLMModule
    from pipeline.runs import open_run, read_vocabulary
    from pipeline.vectors import restore

    def build() -> Built:
        same = {name: getattr(config, name) for name in ("max_tokens", "min_count", "batch_size", "seed")}
        data = CorpusDataModule(config.corpus, list(config.fields), workers=config.trainer.workers, **same)
        options = as_dict(config.model) | as_dict(config.optim)
        module = MaskedLMModule(len(data.tokenizer), config.max_tokens, **options)
        return module, data, [], {"text": {"characters": data.characters}}

    fit("text", config, build, monitor="val/accuracy")
    model = Path(config.out) / "model"
    if getattr(rank_zero_only, "rank", 0) == 0 and not model.exists():
        run, aside = open_run(config.out, "text"), model.with_suffix(".part")
        restore(MaskedLMModule(**run.hparams), run).model.bert.save_pretrained(aside)
        characters = read_vocabulary(run.folder, "text")["characters"]
        character_tokenizer(characters, config.max_tokens).save_pretrained(aside)
        aside.rename(model)


def train_clip(config: ClipConfig) -> None:
    """Audio-text pretraining; best checkpoint by text→audio recall@10 on the cold validation songs."""
    from callbacks.index_recall import IndexRecall
    from callbacks.pictures import Pictures

    def build() -> Built:
        recall = IndexRecall(1, 5, 10, both_ways=True)
        return *clip_parts(config), [recall, Pictures(recall, {0: "audio", 1: "text"})], {}

    if config.trainer.accumulate > 1 and not config.objective.micro_batch:
        print(
            f"warning: trainer.accumulate={config.trainer.accumulate} adds no negatives: each batch has a loss of its "
            "own. For one loss over a larger batch raise batch_size and set objective.micro_batch.",
            file=sys.stderr,
        )
    fit("clip", config, build, monitor="val/recall@10")


def clip_parts(config: ClipConfig) -> tuple[Any, Any]:
    """The LightningModule and the DataModule of `train_clip`.

    Raises:
        UserError: the data cannot be used, or the options do not go together.
        ValueError: sizes that a model cannot have.
    """
    from datamodules.songs import SongDataModule
    from lightning_modules.clip import ClipModule
    from models.pretrained_audio import OWN

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
    if audio["model"] == OWN and (not audio["frozen"] or audio["last_layers"] or audio["lora_rank"]):
        raise UserError(f"audio.frozen, last_layers, lora_rank are of published encoders: audio.model={OWN} is trained")
    if audio["model"] != OWN and (augment["gain_db"] or augment["noise_db"]):
        raise UserError(f"objective.gain_db and noise_db are of audio.model={OWN}: others make their own input")
    if data.crops.is_logmel and (augment["gain_db"] or augment["noise_db"]):
        raise UserError("objective.gain_db and noise_db change samples: prepare the catalogue with audio.store=samples")
    widths, tuned = data.widths(), ("model", "frozen", "last_layers", "lora_rank")
    own = {name: model.pop(name) for name in ("width", "layers", "heads")}
    recompute = {"recompute": model.pop("recompute")}
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
        **objective,
        **as_dict(config.optim),
    )
    return module, data


def train_i2i(config: I2IConfig) -> None:
    """Song encoder; best checkpoint by how well cold validation songs and their listeners find each other."""
    from callbacks.audience_recall import AudienceRecall
    from callbacks.correlation import FeatureCorrelation
    from callbacks.pictures import Pictures
    from datamodules.pairs import PairDataModule
    from lightning_modules.i2i import I2IModule

    def build() -> Built:
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
        recall = AudienceRecall(config.recall_k, config.recall_users)
        callbacks = [FeatureCorrelation(), recall, Pictures(recall, {0: "known song", 1: "new song"})]
        return module, data, callbacks, {"songs": data.fields.vocabulary, "known": {"song_id": data.known}}

    fit("i2i", config, build, monitor="val/audience")


def train_boundary(config: BoundaryConfig) -> None:
    """User, item and boundary towers; best checkpoint by recall of cold validation songs for their listeners."""
    from callbacks.index_recall import IndexRecall
    from callbacks.pictures import Pictures

    def build() -> Built:
        module, data, vocabulary = boundary_parts(config)
        recall = IndexRecall(config.recall_k)
        return module, data, [recall, Pictures(recall, {0: "new song"})], vocabulary

    fit("boundary", config, build, monitor=f"val/recall@{config.recall_k}")


def boundary_parts(config: BoundaryConfig) -> tuple[Any, Any, dict[str, Any]]:
    """The LightningModule, the DataModule and the vocabulary of `train_boundary`.

    Raises:
        UserError: the data cannot be used.
    """
    from datamodules.interactions import InteractionDataModule
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


TASKS: dict[str, tuple[Callable[[Any], None], type]] = {
    "text": (train_text, CorpusConfig),
    "clip": (train_clip, ClipConfig),
    "i2i": (train_i2i, I2IConfig),
    "boundary": (train_boundary, BoundaryConfig),
}


def main() -> None:
    """`python train.py TASK key=value …`"""
    task = sys.argv[1] if len(sys.argv) > 1 else ""
    if task in ("-h", "--help"):
        print(__doc__)
    elif task not in TASKS:
        got = f"got {task or 'nothing'}; see train.py --help"
        print(f"error: name a task first: {' | '.join(TASKS)} ({got})", file=sys.stderr)
        raise SystemExit(2)
    else:
        run, schema = TASKS[task]
        command(run, schema, __doc__ or "", sys.argv[2:])


if __name__ == "__main__":
    main()
