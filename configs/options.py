"""How an option is declared and checked, and the options that several areas share."""

from __future__ import annotations

import math
from collections.abc import Callable
from copy import copy
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, TypeVar

from omegaconf import MISSING

from configs.errors import UserError

T = TypeVar("T")
REQUIRED: str = MISSING  # default of a text option that has none

CATALOGUE, FEATURES, INDEX, SERVICE = "catalogue", "features", "index", "service"
AUDIENCE, MARGINS, WAVES = "audience", "margins", "waves"
MADE_BY = {  # kind of folder → the command that makes one
    CATALOGUE: "python -m pipeline.prepare source=DATASET out=CATALOGUE",
    FEATURES: "python -m pipeline.embed clip=RUN data=CATALOGUE out=FEATURES",
    INDEX: "python -m pipeline.index run=RUN out=INDEX",
    MARGINS: "python -m pipeline.margins run=RUN out=MARGINS",
    SERVICE: "python -m pipeline.service index=INDEX out=SERVICE",
    AUDIENCE: "python -m pipeline.audience index=INDEX out=AUDIENCE",
    WAVES: "python -m pipeline.waves audience=AUDIENCE data=CATALOGUE exposures=N out=WAVES",
    "store": "python -m serving model=SERVICE store=STORE",
    "run": "python train.py clip|i2i|boundary data=CATALOGUE out=RUN",
    **{f"{task} run": f"python train.py {task} data=CATALOGUE out=RUN" for task in ("clip", "i2i", "boundary", "text")},
    "rank run": "python train.py rank data=CATALOGUE i2i=RUN out=RUN",
}


def opt(default: T, help: str, reads: str = "") -> T:
    """A dataclass field with its meaning, shown by `--help`.

    What it `reads` must be there: a folder of a kind of MADE_BY, or what the words say.
    """
    metadata = {"help": help, "reads": reads}
    if isinstance(default, list | dict):
        return field(default_factory=lambda: copy(default), metadata=metadata)
    return field(default=default, metadata=metadata)


def at_least(options: Any, low: float, *names: str, below: float = math.inf) -> None:
    """Raise UserError for those of the options (`group.name`) that are not from `low` on and below `below`."""
    _refuse(options, names, lambda value: low <= value < below, f"at least {low:g}", below)


def above(options: Any, low: float, *names: str, below: float = math.inf) -> None:
    """Raise UserError for those of the options (`group.name`) that are not between `low` and `below`."""
    _refuse(options, names, lambda value: low < value < below, f"above {low:g}", below)


def _refuse(options: Any, names: tuple[str, ...], allowed: Callable[[float], bool], limit: str, below: float) -> None:
    values = {name: getattr(options, name.rpartition(".")[2]) for name in names}
    if wrong := {name: value for name, value in values.items() if not allowed(value)}:
        also = f" and below {below:g}" if below < math.inf else ""
        also = also or " and finite" * any(isinstance(value, float) for value in wrong.values())
        raise UserError(f"{', '.join(f'{name}={value:g}' for name, value in wrong.items())}: must be {limit}{also}")


def a_date(name: str, text: str | None) -> None:
    """Raise UserError for a text that is no date."""
    try:
        datetime.fromisoformat(text or "2000-01-01")
    except ValueError:
        raise UserError(f"{name}={text!r} is not a date: write YYYY-MM-DD") from None


@dataclass
class LoggerConfig:
    wandb: Literal["online", "offline", "off"] = opt("offline", "Weights & Biases (a CSV log is always written)")
    project: str = opt("firstplay", "W&B project")
    group: str = opt("", "W&B group; also the first part of a training's name there (search= sets it)")
    upload: bool = opt(False, "also upload the output files to W&B (default: only their names and sizes)")


@dataclass
class CommandLoggerConfig(LoggerConfig):
    wandb: Literal["online", "offline", "off"] = opt("off", "Weights & Biases: what was made of what (adds seconds)")


@dataclass
class SparkConfig:
    master: str | None = opt(None, "engine=spark: where it runs, e.g. local[8] (default: as its own settings say)")
