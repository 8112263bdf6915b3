"""How an option is declared, and the options that several areas share."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal


def opt(default: Any, help: str) -> Any:
    """A dataclass field with its meaning, shown by `--help`. Lists and dicts become default factories."""
    if isinstance(default, list | dict):
        return field(default_factory=lambda: type(default)(default), metadata={"help": help})
    return field(default=default, metadata={"help": help})


@dataclass
class LoggerConfig:
    wandb: Literal["online", "offline", "off"] = opt("offline", "Weights & Biases (a CSV log is always written)")
    project: str = opt("firstplay", "W&B project")
    upload: bool = opt(False, "keep the files of what was made in W&B too, not their names and sizes alone")


@dataclass
class CommandLoggerConfig(LoggerConfig):
    wandb: Literal["online", "offline", "off"] = opt("off", "Weights & Biases: what was made of what (adds seconds)")
