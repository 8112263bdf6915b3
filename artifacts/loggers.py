"""Where training figures go: a CSV file always, Weights & Biases if asked."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from artifacts.tracking import first_rank, running
from configs.options import LoggerConfig


def loggers(out: Path, options: LoggerConfig, config: dict[str, Any], task: str) -> list[Any]:
    """CSV always, each row at once (a kill loses none); W&B if asked.

    The W&B run's id comes from the folder, so that a requeued job goes on in its run; a sweep's agent chooses its own.
    """
    from lightning.pytorch.loggers import CSVLogger, WandbLogger

    found: list[Any] = [CSVLogger(out, name="logs", version="", flush_logs_every_n_steps=1)]
    if options.wandb != "off":
        by_agent = "WANDB_SWEEP_ID" in os.environ
        of_folder = hashlib.sha256(str(out.resolve()).encode()).hexdigest()[:12]
        wandb = WandbLogger(
            name=None if by_agent else out.name,
            id=os.environ.get("WANDB_RUN_ID") or of_folder,
            project=options.project,
            save_dir=out,
            mode=options.wandb,
            job_type=f"train {task}",
            resume="allow",
            config=config,
            allow_val_change=True,  # what may differ in a run that goes on: devices, workers
        )
        found.append(wandb)
    return found


@contextmanager
def wandb_run(trainer: Any) -> Iterator[Any]:
    """The W&B run of a training, begun before anything is computed; None where it is off, and on all ranks but 0.

    Raises:
        UserError: W&B is to be online, and is not.
    """
    from lightning.pytorch.loggers import WandbLogger

    found = [one for one in trainer.loggers if isinstance(one, WandbLogger)]
    if found and first_rank():
        with running(lambda: found[0].experiment) as run:
            yield run
    else:
        yield None
