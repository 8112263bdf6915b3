"""Configuration = dataclass schema ← YAML file ← `key=value`, all OmegaConf.

Every command of FirstPlay starts with `command(main, Schema, __doc__)`: it prints `--help` from the schema,
merges the overrides, and turns a `UserError` into one clear line and exit status 2.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import math
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

from configs.errors import UserError, no_folder
from configs.options import MADE_BY

Schema = TypeVar("Schema")
RENAMED = {"model.memory": "model.residual", "objective.appeal": "objective.item_bias"}  # options of earlier versions
REPLACED = {  # options of earlier versions whose meaning has changed
    "pairs.min_lift": "pairs.drop_above (a posterior probability)",
    "pairs.prior_plays": "pairs.prior_outcomes (in expected good outcomes)",
}
TEXT, NULL, MERGE = (f"tag:yaml.org,2002:{kind}" for kind in ("str", "null", "merge"))


def load(schema: type[Schema], overrides: Sequence[str], config: str | Path | None = None) -> Schema:
    """Merge `schema` defaults, an optional YAML file and `key=value` overrides into a typed object.

    Raises:
        UserError: unknown key (with a suggestion), wrong type, missing required key, unreadable file.
    """
    merged = OmegaConf.structured(schema)
    try:
        if config is not None:
            merged = _merge_file(schema, merged, Path(config))
        merged = OmegaConf.merge(merged, *(_override(schema, item) for item in overrides))
        missing = sorted(OmegaConf.missing_keys(merged))
        if missing:
            raise UserError(f"missing option: {', '.join(f'{key}=…' for key in missing)} (see --help)")
        options = typing.cast(Schema, OmegaConf.to_object(merged))
    except OmegaConfBaseException as error:
        raise UserError(_one_line(error)) from error
    if "://" in str(out := getattr(options, "out", None)):
        raise UserError(f"out={out} is no path: write to this machine's disk, and copy the folder to the object store")
    return options


def dump(config: Any) -> str:
    """The resolved configuration as YAML text."""
    return OmegaConf.to_yaml(OmegaConf.structured(config))


def as_dict(config: Any) -> dict[str, Any]:
    """The configuration as plain nested dict of primitives (what W&B wants)."""
    return typing.cast(dict[str, Any], OmegaConf.to_container(OmegaConf.structured(config)))


def replaced(config: Schema, options: dict[str, Any]) -> Schema:
    """The configuration with other values of the options `group.name`, checked anew."""
    merged = OmegaConf.structured(config)
    for key, value in options.items():
        OmegaConf.update(merged, key, value)
    return typing.cast(Schema, OmegaConf.to_object(merged))


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
        options: Any = load(schema, *parted(arguments))
        check_inputs(options)
        main(options)
    except (UserError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        print("stopped; run the same command again to go on", file=sys.stderr)
        raise SystemExit(130) from None


def parted(arguments: Sequence[str]) -> tuple[list[str], str | None]:
    """The `key=value` of a command line, and the file of its `--config`.

    Raises:
        UserError: `--config` is the last word.
    """
    rest = list(arguments)
    if "--config" not in rest:
        return rest, None
    at = rest.index("--config")
    if at + 1 == len(rest):
        raise UserError("--config needs a YAML file after it")
    file = rest[at + 1]
    del rest[at : at + 2]
    return rest, file


def given(schema: type, arguments: Sequence[str]) -> set[str]:
    """The options `group.name` that a command line sets, itself or by its `--config`."""
    overrides, file = parted(arguments)
    of_file = {} if file is None else OmegaConf.to_container(_read_yaml(schema, Path(file)))
    return set(_names(OmegaConf.to_container(OmegaConf.from_dotlist(list(overrides))))) | set(_names(of_file))


def _names(config: Any, prefix: str = "") -> Iterator[str]:
    for name, value in config.items():
        if isinstance(value, dict):
            yield from _names(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def check_inputs(config: Any) -> None:
    """Raise UserError for a folder or file to read that is not there: at once, before libraries are loaded."""
    for field in dataclasses.fields(config):
        kind, given = field.metadata.get("reads"), getattr(config, field.name)
        if not kind or given is None:
            continue
        for path in given.values() if isinstance(given, dict) else (given,):
            if "://" in str(path):  # a database, which whoever opens it looks for
                continue
            if kind in MADE_BY and not Path(path).is_dir():
                raise no_folder(path, kind, MADE_BY[kind])
            if kind not in MADE_BY and not Path(path).exists():
                raise UserError(f"{field.name}={path}: no such {kind}")


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
    try:
        if _is_text(kind) and value not in ("", "null"):
            value = json.dumps(value, ensure_ascii=False)
        elif typing.get_origin(kind) in (list, dict):
            value = _keep_text(yaml.compose(value), kind).strip()
        return OmegaConf.from_dotlist([f"{key}={value}"])
    except yaml.YAMLError as error:
        raise UserError(f"cannot read '{item}': {_one_line(error)}") from error


def _kind_of(schema: type, key: str) -> Any:
    """The type of the option `group.name`; None if there is no such option."""
    kind: Any = schema
    for part in key.split("."):
        kind = _kind_within(kind, part)
    return kind


def _kind_within(kind: Any, name: str) -> Any:
    """The type of what is called `name` in a group of options or in a dictionary; None if there is no such thing."""
    if dataclasses.is_dataclass(kind):
        return typing.get_type_hints(kind).get(name)
    return typing.get_args(kind)[1] if typing.get_origin(kind) is dict else None


def _is_text(kind: Any) -> bool:
    return kind in (str, str | None) or typing.get_origin(kind) is typing.Literal


def _keep_text(node: yaml.Node | None, kind: Any) -> str:
    """YAML in which names and the values of text options are quoted, so that `off`, `007` and `2026-06-01` are read as
    typed."""
    kept = node and _quoted(node, kind)
    return "" if kept is None else yaml.serialize(kept, Dumper=yaml.SafeDumper, allow_unicode=True, width=math.inf)


def _quoted(node: yaml.Node, kind: Any) -> yaml.Node:
    if isinstance(node, yaml.ScalarNode) and _is_text(kind) and node.tag != NULL:
        return yaml.ScalarNode(TEXT, node.value, style='"')
    if isinstance(node, yaml.SequenceNode) and _is_text(kind) and node.flow_style:  # such as devices: [0, 1]
        start, end = node.start_mark, node.end_mark
        return yaml.ScalarNode(TEXT, start.buffer[start.pointer : end.pointer], style='"')
    if isinstance(node, yaml.MappingNode):
        for at, (key, value) in enumerate(node.value):
            if key.tag == MERGE:
                node.value[at] = key, _quoted(value, kind)
            elif isinstance(key, yaml.ScalarNode):
                node.value[at] = _quoted(key, str), _quoted(value, _kind_within(kind, key.value))
    elif isinstance(node, yaml.SequenceNode) and typing.get_origin(kind) is list:
        for at, item in enumerate(node.value):
            if item.tag == NULL and item.value:  # `null`, as a text of a list
                item.tag = TEXT
            if _is_text(typing.get_args(kind)[0]) and not isinstance(item, yaml.ScalarNode):
                raise yaml.YAMLError("a text that has ': ' in it, or begins with a bracket, must be in quotes")
            node.value[at] = _quoted(item, typing.get_args(kind)[0])
    return node


def _merge_file(schema: type, merged: DictConfig, path: Path) -> DictConfig:
    try:
        return typing.cast(DictConfig, OmegaConf.merge(merged, _read_yaml(schema, path)))
    except OmegaConfBaseException as error:
        raise UserError(f"{path}: {_one_line(error)}") from error


def _read_yaml(schema: type, path: Path) -> DictConfig:
    if not path.is_file():
        raise UserError(f"configuration file not found: {path}")
    try:
        node = yaml.compose(path.read_text("utf-8"))
        if node is not None and not isinstance(node, yaml.MappingNode):
            raise UserError(f"{path}: expected key: value lines, found a list or a text")
        return typing.cast(DictConfig, OmegaConf.create(_keep_text(node, schema)))
    except UserError:
        raise
    except Exception as error:  # PyYAML raises several unrelated types for a malformed file
        raise UserError(f"{path}: not readable as YAML: {_one_line(error)}") from error


def _one_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    useful = [line for line in lines if not line.startswith(("full_key:", "object_type=", "reference_type="))]
    key = next((line.removeprefix("full_key:").strip() for line in lines if line.startswith("full_key:")), "")
    if key in RENAMED and "not in" in useful[0]:
        return f"option '{key}' is now called '{RENAMED[key]}'"
    if key in REPLACED:
        return f"option '{key}' has given way to {REPLACED[key]}"
    text = " ".join(useful)
    return f"option '{key}': {text}" if key and f"'{key}'" not in text else text
