"""Where training figures go: a CSV file always, Weights & Biases if asked."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from configs.schema import LoggerConfig


def loggers(out: Path, options: LoggerConfig, config: dict[str, Any]) -> list[Any]:
    """CSV always, each row at once (a kill loses none); W&B if asked, its id from the folder: a requeue goes on."""
    from lightning.pytorch.loggers import CSVLogger, WandbLogger

    found: list[Any] = [CSVLogger(out, name="logs", version="", flush_logs_every_n_steps=1)]
    if options.wandb != "off":
        wandb = WandbLogger(
            name=out.name,
            id=hashlib.sha256(str(out.resolve()).encode()).hexdigest()[:12],
            project=options.project,
            save_dir=out,
            offline=options.wandb == "offline",
            resume="allow",
            config=config,
            allow_val_change=True,  # what may differ in a run that goes on: devices, workers
        )
        found.append(wandb)
    return found
