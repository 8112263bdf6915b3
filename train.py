"""Train one of the three tasks. A run found in out= goes on where it stopped.

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
from configs.load import as_dict, command, dump
from configs.schema import BoundaryConfig, ClipConfig, I2IConfig, LoggerConfig, TrainerConfig

Built = tuple[Any, Any, list[Any], dict[str, Any]]  # LightningModule, DataModule, callbacks, vocabulary


def train_clip(config: ClipConfig) -> None:
    """Audio-text pretraining; best checkpoint by text→audio recall@10 on the cold validation songs."""
    from callbacks.index_recall import IndexRecall
    from datamodules.songs import SongDataModule
    from lightning_modules.clip import ClipModule

    def build() -> Built:
        objective = as_dict(config.objective)
        data = SongDataModule(
            config.data,
            batch_size=config.batch_size,
            text_model=config.text.model,
            text_fields=list(config.text.fields),
            max_tokens=config.text.max_tokens,
            frozen_text=config.text.frozen,
            text_variants=config.text.variants,
            keep=config.text.keep,
            unpaired=objective.pop("unpaired"),
            crop_seconds=config.model.crop_seconds,
            crops=config.model.crops,
            workers=config.trainer.workers,
            seed=config.seed,
        )
        module = ClipModule(
            **data.front_end(),
            **as_dict(config.model),
            **objective,
            **as_dict(config.optim),
            text_model=config.text.model,
            text_fields=list(config.text.fields),
            max_tokens=config.text.max_tokens,
            frozen_text=config.text.frozen,
            text_lr_scale=config.text.lr_scale,
        )
        return module, data, [IndexRecall(1, 5, 10, both_ways=True)], {}

    if config.trainer.accumulate > 1 and not config.objective.micro_batch:
        print(
            f"warning: trainer.accumulate={config.trainer.accumulate} adds no negatives: each batch has a loss of its "
            "own. For one loss over a larger batch raise batch_size and set objective.micro_batch.",
            file=sys.stderr,
        )
    fit("clip", config, build, monitor="val/recall@10")


def train_i2i(config: I2IConfig) -> None:
    """Song encoder; best checkpoint by how well cold validation songs and their listeners find each other."""
    from callbacks.audience_recall import AudienceRecall
    from callbacks.correlation import FeatureCorrelation
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
        callbacks = [FeatureCorrelation(), AudienceRecall(config.recall_k, config.recall_users)]
        return module, data, callbacks, {"songs": data.fields.vocabulary, "known": {"song_id": data.known}}

    fit("i2i", config, build, monitor="val/audience")


def train_boundary(config: BoundaryConfig) -> None:
    """User, item and boundary towers; best checkpoint by recall of cold validation songs for their listeners."""
    from callbacks.index_recall import IndexRecall
    from datamodules.interactions import InteractionDataModule
    from lightning_modules.boundary import BoundaryModule

    def build() -> Built:
        data = InteractionDataModule(
            config.data,
            config.features,
            use=list(config.fields.use),
            min_count=config.fields.min_count,
            batch_size=config.batch_size,
            negatives=config.objective.negatives,
            history=config.model.history,
            positives=config.objective.positives,
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
        vocabulary = {"songs": data.fields.vocabulary, "users": data.profile.vocabulary}
        return module, data, [IndexRecall(config.recall_k)], vocabulary

    fit("boundary", config, build, monitor=f"val/recall@{config.recall_k}")


def fit(task: str, config: Any, build: Callable[[], Built], monitor: str) -> None:
    """Check, build, train or go on, and mark the run as finished.

    Raises:
        UserError: the out folder holds something else, or the data cannot be used.
    """
    from lightning import seed_everything

    from callbacks.checkpoint import LAST
    from pipeline.runs import check_sizes, finish_run, is_finished, run_folder

    out = Path(config.out)
    if is_finished(out, task, as_dict(config)):
        print(f"{out}: already finished (remove it to train again)")
        return
    check_sizes(config)
    seed_everything(config.seed, verbose=False)
    module, data, callbacks, vocabulary = build()  # before the folder is made: bad data leaves nothing behind
    trainer = build_trainer(out, config.trainer, config.logger, as_dict(config), config.seed, callbacks, monitor)
    last = out / "checkpoints" / LAST
    with run_folder(out, task, dump(config), vocabulary):
        trainer.fit(module, datamodule=data, ckpt_path=last if last.exists() else None, weights_only=True)
    if trainer.interrupted:
        raise KeyboardInterrupt
    if trainer.is_global_zero:
        best = float(trainer.checkpoint_callbacks[0].best_model_score)
        finish_run(out, task, {monitor: best})
        print(f"{out}: best {monitor} {best:.4f}")


def build_trainer(
    out: Path,
    options: TrainerConfig,
    logging: LoggerConfig,
    config: dict[str, Any],
    seed: int,
    callbacks: list[Any],
    monitor: str,
) -> Any:
    """A Lightning Trainer with FirstPlay's habits: atomic checkpoints, epoch seeds, CSV and W&B logs.

    Raises:
        UserError: devices, accelerator, strategy or precision are not to be had here.
    """
    import lightning as L
    from lightning.pytorch.callbacks import LearningRateMonitor, TQDMProgressBar
    from lightning.pytorch.utilities.exceptions import MisconfigurationException

    from callbacks.checkpoint import AtomicCheckpointIO, EpochSeed, checkpoint_callbacks
    from pipeline.loggers import loggers

    bar = [TQDMProgressBar(refresh_rate=20)] if options.progress else []
    checkpoints = checkpoint_callbacks(out / "checkpoints", monitor)
    try:
        return L.Trainer(
            max_epochs=options.epochs,
            devices=int(options.devices) if options.devices.lstrip("-").isdigit() else options.devices,
            num_nodes=options.nodes,
            accelerator=options.accelerator,
            strategy=options.strategy,
            precision=options.precision,  # type: ignore[arg-type]
            accumulate_grad_batches=options.accumulate,
            gradient_clip_val=options.clip_norm or None,
            log_every_n_steps=options.log_every,
            num_sanity_val_steps=0,
            use_distributed_sampler=False,  # EpochBatches deals rows to ranks itself
            enable_progress_bar=options.progress,
            enable_model_summary=False,
            plugins=[AtomicCheckpointIO()],
            logger=loggers(out, logging, config),
            callbacks=[EpochSeed(seed), *callbacks, LearningRateMonitor(), *bar, *checkpoints],
        )
    except (MisconfigurationException, ImportError, TypeError, ValueError) as error:
        raise UserError(f"trainer.* options: {str(error).splitlines()[0]}") from error


TASKS: dict[str, tuple[Callable[[Any], None], type]] = {
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
