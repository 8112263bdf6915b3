"""What training is for every task: check, build, train or go on, finish; one kind of checkpoints, seeds and logs."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.accelerators import CPUAccelerator
from lightning.pytorch.callbacks import LearningRateMonitor, TQDMProgressBar
from lightning.pytorch.strategies import ModelParallelStrategy
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch.nn.attention import SDPBackend, sdpa_kernel

from artifacts.runs import finish_run, is_finished, run_folder
from artifacts.tracking import loggers, made, used, wandb_run
from callbacks.checkpoint import LAST, AtomicCheckpointIO, StepSeed, Stopped, checkpoint_callbacks
from callbacks.divergence import StopOnDivergence
from configs.errors import UserError
from configs.load import as_dict, dump
from configs.options import LoggerConfig
from configs.training import TrainerConfig
from data.fields import made_with
from models.processor import has_bfloat16

Built = tuple[Any, Any, list[Any], dict[str, Any]]  # LightningModule, DataModule, callbacks, vocabulary


def fit(task: str, config: Any, build: Callable[[], Built], monitor: str) -> None:
    """Check, build, train or go on, and mark the run as finished.

    Raises:
        UserError: the out folder holds something else, or the data cannot be used.
    """
    out = Path(config.out)
    if is_finished(out, task, as_dict(config)):
        print(f"{out}: already finished (remove it to train again)")
        return
    L.seed_everything(config.seed, verbose=False)
    try:
        module, data, callbacks, vocabulary = build()  # before the folder is made: bad data leaves nothing behind
    except ValueError as error:  # sizes that a model cannot have
        raise UserError(f"model.* or text.* options: {str(error).splitlines()[0]}") from error
    trainer = build_trainer(task, out, config.trainer, config.logger, as_dict(config), config.seed, callbacks, monitor)
    last = out / "checkpoints" / LAST
    with run_folder(out, task, dump(config), vocabulary), wandb_run(trainer) as run:
        used(run, *(getattr(config, name, None) for name in ("data", "features", "corpus", "start")))
        try:
            with attention(trainer):
                trainer.fit(module, datamodule=data, ckpt_path=last if last.exists() else None, weights_only=True)
        except Stopped:
            print(f"{out}: stopped by a signal at step {trainer.global_step}; run the same command again to go on")
            raise
        if trainer.interrupted:
            raise KeyboardInterrupt
        if trainer.is_global_zero:
            best = float(trainer.checkpoint_callbacks[0].best_model_score)
            finish_run(out, task, {monitor: best}, **made_with(getattr(config, "features", None)))
            made(run, out, config.logger.upload)
            print(f"{out}: best {monitor} {best:.4f}")


def precision_of(options: TrainerConfig) -> str:
    """bfloat16 where a GPU that has it trains, by "fast" also where a processor has it; full precision elsewhere."""
    if options.precision not in ("auto", "fast"):
        return options.precision
    if options.accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available():
        return "bf16-mixed" if torch.cuda.is_bf16_supported() else "32-true"
    return "bf16-mixed" if options.precision == "fast" and has_bfloat16() else "32-true"


def attention(trainer: Any) -> AbstractContextManager[None]:
    """Attention of a training in bfloat16 on processors: the backward pass of torch's fused kernel takes five times as
    long there as that of plain products."""
    half = trainer.precision.startswith("bf16") and isinstance(trainer.accelerator, CPUAccelerator)
    return sdpa_kernel(SDPBackend.MATH) if half else nullcontext()


def strategy_of(options: TrainerConfig) -> Any:
    """What Lightning is given; "fsdp" is torch's second one, in which gradients are clipped by norm as everywhere."""
    if options.strategy != "fsdp":
        return options.strategy
    found = torch.cuda.device_count() if options.accelerator != "cpu" else 1
    ranks = options.nodes * (int(options.devices) if options.devices.isdigit() else max(1, found))
    return ModelParallelStrategy(data_parallel_size=ranks, tensor_parallel_size=1, save_distributed_checkpoint=False)


def build_trainer(
    task: str,
    out: Path,
    options: TrainerConfig,
    logging: LoggerConfig,
    config: dict[str, Any],
    seed: int,
    callbacks: list[Any],
    monitor: str,
) -> Any:
    """Make a Lightning Trainer with FirstPlay's habits: atomic checkpoints, epoch seeds, CSV and W&B logs.

    Raises:
        UserError: devices, accelerator, strategy or precision are not to be had here.
    """
    bar = [TQDMProgressBar(refresh_rate=20)] if options.progress else []
    checkpoints = checkpoint_callbacks(out / "checkpoints", monitor, options.checkpoint_steps)
    try:
        return L.Trainer(
            max_epochs=options.epochs,
            devices=int(options.devices) if options.devices.lstrip("-").isdigit() else options.devices,
            num_nodes=options.nodes,
            accelerator=options.accelerator,
            strategy=strategy_of(options),
            precision=precision_of(options),  # type: ignore[arg-type]
            accumulate_grad_batches=options.accumulate,
            gradient_clip_val=options.clip_norm or None,
            log_every_n_steps=options.log_every,
            num_sanity_val_steps=0,
            use_distributed_sampler=False,  # EpochBatches deals rows to ranks itself
            enable_progress_bar=options.progress,
            enable_model_summary=False,
            plugins=[AtomicCheckpointIO()],
            logger=loggers(out, logging, config, task),
            callbacks=[StepSeed(seed), StopOnDivergence(), *callbacks, LearningRateMonitor(), *bar, *checkpoints],
        )
    except (MisconfigurationException, ImportError, TypeError, ValueError) as error:
        raise UserError(f"trainer.* options: {str(error).splitlines()[0]}") from error
