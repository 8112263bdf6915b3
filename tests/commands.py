"""The commands in this process: as functions of their options, and as the command line calls them."""

from __future__ import annotations

from functools import partial
from importlib import import_module
from typing import Any, get_type_hints

import train
from configs.load import command, load


def of_name(name: str) -> tuple[Any, type]:
    """A command's function and the schema of its options: a task of train.py or a module of pipeline/."""
    if name in train.TASKS:
        return partial(train.train, name), train.TASKS[name]
    main = import_module(f"pipeline.{name}").main
    return main, get_type_hints(main)["config"]


def run(name: str, *options: str) -> None:
    """Run a command; what it raises comes through."""
    main, schema = of_name(name)
    main(load(schema, options))


def call(line: str) -> None:
    """Run a command line (options without spaces): SystemExit and a line on stderr where it is refused."""
    name, *argv = line.split()
    main, schema = of_name(name)
    command(main, schema, "", argv)
