"""Weights & Biases: which command made which folder of which others, and what it found (docs/tracking.md).

A folder is an artifact by its manifest and the names and sizes of its files: whoever reads it names the very version
that whoever wrote it has logged, and gigabytes stay where they are. All of it works offline too.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import socket
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

from artifacts.folders import MANIFEST, PART, kind_of
from configs.errors import UserError
from configs.load import as_dict
from configs.options import LoggerConfig

if TYPE_CHECKING:
    import polars as pl

NOT_KEPT = {"wandb", "logs", "last.ckpt"}  # of a run folder: what nobody loads a model from


def tracked(job: str) -> Callable[[Callable[[Any, Any], None]], Callable[[Any], None]]:
    """Give a command's `main(config, run)` the W&B run that it asks for by logger.wandb, None if it asks for none."""

    def give(main: Callable[[Any, Any], None]) -> Callable[[Any], None]:
        @wraps(main)
        def command(config: Any) -> None:
            with command_run(job, config) as run:
                main(config, run)

        return command

    return give


def command_run(job: str, config: Any) -> AbstractContextManager[Any]:
    """A W&B run beside the folder `config.out`; None where W&B is off, and on all ranks but the first."""
    if config.logger.wandb == "off" or not first_rank():
        return nullcontext()
    import wandb

    out = Path(config.out).resolve()
    out.parent.mkdir(parents=True, exist_ok=True)
    given = {"project": config.logger.project, "mode": config.logger.wandb, "config": as_dict(config)}
    given["group"] = config.logger.group or None
    return running(lambda: wandb.init(name=out.name, job_type=job, dir=str(out.parent), **given))


def wandb_run(trainer: Any) -> AbstractContextManager[Any]:
    """The W&B run of a training, begun before anything is computed; None where it is off, and on all ranks but 0."""
    from lightning.pytorch.loggers import WandbLogger

    found = [one for one in trainer.loggers if isinstance(one, WandbLogger)]
    return running(lambda: found[0].experiment) if found and first_rank() else nullcontext()


@contextmanager
def running(begin: Callable[[], Any]) -> Iterator[Any]:
    """The W&B run that `begin` gives; it is closed as failed if it ends before its end; resumed, it is running again.

    Raises:
        UserError: W&B cannot be reached, or does not know who asks.
    """
    from wandb.errors import Error

    try:
        run = begin()
    except Error as error:
        raise UserError(
            f"Weights & Biases: {str(error).splitlines()[0]} Without it: logger.wandb=offline (uploaded later by "
            "`wandb sync`) or logger.wandb=off"
        ) from error
    failed = 1
    try:
        yield run
        failed = 0
    finally:
        run.finish(exit_code=failed)


def first_rank() -> bool:
    """Whether this is the one process, of however many, that writes."""
    from lightning.pytorch.utilities import rank_zero_only

    return getattr(rank_zero_only, "rank", 0) == 0


def used(run: Any, *folders: str | Path | None) -> None:
    """The W&B run reads these folders (None: not given); one that no run has logged is logged by this one."""
    for folder in folders:
        if run is not None and folder is not None:
            # What `run.use_artifact` does with an artifact of our own; itself it refuses to work offline.
            run._log_artifact(artifact(folder), is_user_created=True, use_after_commit=True)


def made(run: Any, folder: str | Path, upload: bool = False) -> None:
    """The W&B run wrote this folder; with `upload` its files follow, as an artifact NAME-files beside the other."""
    if run is None:
        return
    found = artifact(folder)
    run.log_artifact(found)
    if upload:
        import wandb

        files = wandb.Artifact(f"{found.name}-files", f"{found.type}-files")
        for path in sorted(Path(folder).rglob("*")):
            within = path.relative_to(folder)
            if path.is_file() and not NOT_KEPT & set(within.parts) and path.suffix != PART:
                files.add_file(str(path), name=within.as_posix(), policy="immutable", skip_cache=True)  # no copy
        run.log_artifact(files)


def log_table(run: Any, name: str, table: pl.DataFrame) -> None:
    """A table to be looked at in W&B."""
    if run is not None:
        import wandb

        run.log({name: wandb.Table(columns=table.columns, data=[list(row) for row in table.iter_rows()])})


def artifact(folder: str | Path) -> Any:
    """A folder (or a file) as a wandb.Artifact, equal wherever it lies and whoever asks."""
    import wandb

    folder = Path(folder).resolve()
    files = [path for path in sorted(folder.iterdir()) if path.is_file()] if folder.is_dir() else [folder]
    sizes = {path.name: path.stat().st_size for path in files if path.suffix != PART}
    manifest = folder / MANIFEST
    kind = kind_of(folder) or "dataset"
    called = "-".join(folder.parts[-2:])
    name = re.sub(r"[^A-Za-z0-9_.-]", "-", called)[-100:]
    if name != called:  # other names may come out the same
        name += "-" + hashlib.sha256(called.encode()).hexdigest()[:8]
    where = {"folder": str(folder), "machine": socket.gethostname()}
    found = wandb.Artifact(name, kind.replace(" ", "-"), metadata=where)
    with found.new_file("files.json") as file:
        json.dump(sizes, file, indent=1)
    if manifest.exists():
        found.add_file(str(manifest))
    return found


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
            name=None if by_agent else "-".join(filter(None, (options.group, out.name))),
            group=options.group or None,
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
