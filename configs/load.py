"""Configuration = dataclass schema ← YAML file ← `key=value`, all OmegaConf.

Every command of FirstPlay starts with `command(main, Schema, __doc__)`: it prints `--help` from the schema,
merges the overrides, and turns a `UserError` into one clear line and exit status 2.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import sys
import textwrap
import typing
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from configs.errors import UserError

Schema = TypeVar("Schema")


def load(schema: type[Schema], overrides: Sequence[str], config: str | Path | None = None) -> Schema:
    """Merge `schema` defaults, an optional YAML file and `key=value` overrides into a typed object.

    Raises:
        UserError: unknown key (with a suggestion), wrong type, missing required key, unreadable file.
    """
    merged = OmegaConf.structured(schema)
    try:
        if config is not None:
            merged = _merge_file(merged, Path(config))
        merged = OmegaConf.merge(merged, *(_override(schema, item) for item in overrides))
        missing = sorted(OmegaConf.missing_keys(merged))
        if missing:
            raise UserError(f"missing option: {', '.join(f'{key}=…' for key in missing)} (see --help)")
        return typing.cast(Schema, OmegaConf.to_object(merged))
    except OmegaConfBaseException as error:
        raise UserError(_one_line(error)) from error


def dump(config: Any) -> str:
    """The resolved configuration as YAML text."""
    return OmegaConf.to_yaml(OmegaConf.structured(config))


def as_dict(config: Any) -> dict[str, Any]:
    """The configuration as plain nested dict of primitives (what W&B wants)."""
    return typing.cast(dict[str, Any], OmegaConf.to_container(OmegaConf.structured(config)))


def recorded(config: Any) -> dict[str, Any]:
    """The options that a folder's manifest keeps: all but where figures go, which change nothing in the folder."""
    return {name: value for name, value in as_dict(config).items() if name != "logger"}


def command(main: Callable[[Any], None], schema: type, doc: str, argv: Sequence[str] | None = None) -> None:
    """Run `main(config)` for a command line: `[--help] [--config FILE] key=value …`."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if "--help" in arguments or "-h" in arguments:
        print(help_text(schema, doc))
        return
    share_cores()
    quieten()
    try:
        config = None
        if "--config" in arguments:
            at = arguments.index("--config")
            if at + 1 == len(arguments):
                raise UserError("--config needs a YAML file after it")
            config = arguments[at + 1]
            del arguments[at : at + 2]
        main(load(schema, arguments, config))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except OSError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        print("stopped; run the same command again to go on", file=sys.stderr)
        raise SystemExit(130) from None


def share_cores() -> None:
    """Let idle OpenMP threads sleep instead of spin, unless the user has chosen (benchmarks/speed/busy.py).

    Read when torch or FAISS is loaded: that is why commands import them later.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def quieten() -> None:
    """Keep the screen for what the command says: no tips, no telemetry, no libraries' quarrels."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("WANDB_SILENT", "true")
    logging.getLogger("lightning.pytorch.utilities.rank_zero").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", module="lightning")
    warnings.filterwarnings("ignore", message=".*logging interval.*")


def help_text(schema: type, doc: str) -> str:
    """`--help`: the command's docstring and one line an option (key, default, meaning)."""
    lines = [textwrap.dedent(doc).strip(), "", "options (key=value; --config FILE reads them from YAML):"]
    for key, default, meaning in _options(schema):
        shown = "required" if default is MISSING else f"{default}"
        lines.append(f"  {key:<30} {shown:<14} {meaning}")
    return "\n".join(lines)


def _options(schema: type, prefix: str = "") -> Iterator[tuple[str, Any, str]]:
    hints = typing.get_type_hints(schema)
    for field in dataclasses.fields(schema):
        kind = hints[field.name]
        if dataclasses.is_dataclass(kind):
            yield from _options(typing.cast(type, kind), f"{prefix}{field.name}.")
            continue
        default = field.default
        if default is dataclasses.MISSING and field.default_factory is not dataclasses.MISSING:
            default = field.default_factory()
        choices = typing.get_args(kind) if typing.get_origin(kind) is typing.Literal else ()
        meaning = field.metadata.get("help", "")
        yield f"{prefix}{field.name}", default, f"[{'|'.join(map(str, choices))}] {meaning}" if choices else meaning


def _override(schema: type, item: str) -> DictConfig:
    """One `key=value`. A text option keeps what was typed: `show=007` is song 007, `off` is no Boolean."""
    key, equals, value = item.partition("=")
    if not equals or item.startswith("-"):
        raise UserError(f"cannot read '{item}': options are written key=value (see --help)")
    kind = _kind_of(schema, key)
    if dataclasses.is_dataclass(kind):
        raise UserError(f"'{key}' is a group of options: write {key}.NAME=value (see --help)")
    if typing.get_origin(kind) is list and not value.startswith("["):
        raise UserError(f"option '{key}' is a list: write {key}=[a,b]")
    if (kind in (str, str | None) or typing.get_origin(kind) is typing.Literal) and value not in ("", "null"):
        value = json.dumps(value, ensure_ascii=False)
    try:
        return OmegaConf.from_dotlist([f"{key}={value}"])
    except yaml.YAMLError as error:
        raise UserError(f"cannot read '{item}': {_one_line(error)}") from error


def _kind_of(schema: type, key: str) -> Any:
    """The type of the option `group.name`; None if there is no such option."""
    kind: Any = schema
    for part in key.split("."):
        kind = typing.get_type_hints(kind).get(part) if dataclasses.is_dataclass(kind) else None
    return kind


def _merge_file(merged: DictConfig, path: Path) -> DictConfig:
    try:
        return typing.cast(DictConfig, OmegaConf.merge(merged, _read_yaml(path)))
    except OmegaConfBaseException as error:
        raise UserError(f"{path}: {_one_line(error)}") from error


def _read_yaml(path: Path) -> DictConfig:
    if not path.is_file():
        raise UserError(f"configuration file not found: {path}")
    try:
        read = OmegaConf.load(path)
    except Exception as error:  # PyYAML raises several unrelated types for a malformed file
        raise UserError(f"{path}: not readable as YAML: {_one_line(error)}") from error
    if not isinstance(read, DictConfig):
        raise UserError(f"{path}: expected key: value lines, found a list")
    return read


def _one_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    useful = [line for line in lines if not line.startswith(("full_key:", "object_type=", "reference_type="))]
    key = next((line.removeprefix("full_key:").strip() for line in lines if line.startswith("full_key:")), "")
    text = " ".join(useful)
    return f"option '{key}': {text}" if key and f"'{key}'" not in text else text
