"""Run folders: what `train.py` writes and the later commands take.

A run folder holds `manifest.json` (kind "clip run", "i2i run", "boundary run" or "text run"), `config.yaml` (resolved),
`vocabulary.json` (category codes, and the songs known by plays), `checkpoints/best.ckpt` and `last.ckpt`,
`logs/metrics.csv` and the W&B files; one that has started from another run also `origin.yaml`, the options of the first
of them. Of a "rank run" docs/ranking.md tells what it holds in place of checkpoints and logs.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from torch import Tensor

from artifacts.fingerprints import of_file, of_folder
from artifacts.folders import check_replaceable, read_manifest, write_manifest, write_text
from configs.errors import UserError
from configs.options import MADE_BY

VOCABULARY, ORIGIN = "vocabulary.json", "origin.yaml"
MAY_CHANGE = ("out", "logger", "trainer.devices", "trainer.nodes", "trainer.accelerator", "trainer.strategy",
              "trainer.workers", "trainer.progress", "trainer.log_every", "trainer.checkpoint_steps",
              "model.compile")  # fmt: skip


@dataclass
class Run:
    """A trained run: its options, its weights and a fingerprint that ties later folders to it."""

    folder: Path
    task: str
    config: dict[str, Any]
    hparams: dict[str, Any]
    weights: dict[str, Tensor]
    fingerprint: str


def open_run(folder: str | Path, task: str) -> Run:
    """Read the best checkpoint of a run (tensors and primitives only: nothing is unpickled).

    Raises:
        UserError: not a run folder, a run of another task, not trained yet, or a damaged checkpoint.
    """
    folder = Path(folder)
    read_manifest(folder, f"{task} run", MADE_BY[f"{task} run"])
    path = folder / "checkpoints" / "best.ckpt"
    if not path.exists():
        raise UserError(
            f"{folder} has no {path.name} yet: its training has not finished an epoch; run train.py {task} again"
        )
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        weights, hparams = checkpoint["state_dict"], dict(checkpoint["hyper_parameters"])
    except Exception as error:  # a damaged zip raises many types
        raise UserError(f"{path}: not a readable checkpoint ({type(error).__name__}); train the run again") from None
    return Run(folder, task, read_config(folder), hparams, weights, fingerprint(weights))


def read_config(folder: Path) -> dict[str, Any]:
    """The resolved options of a run.

    Raises:
        UserError: the file is missing or damaged.
    """
    path = folder / "config.yaml"
    try:
        config: Any = OmegaConf.to_container(OmegaConf.load(path))
        if not isinstance(config, dict):
            raise ValueError("no options in it")
    except Exception as error:  # PyYAML raises several unrelated types
        raise UserError(f"{path}: cannot be read ({type(error).__name__}); remove the run and train it again") from None
    return config


def origin(folder: Path) -> Path:
    """The options by which a run would be trained anew: its own, or those of the run that it goes back to."""
    return folder / ORIGIN if (folder / ORIGIN).exists() else folder / "config.yaml"


def fingerprint(weights: dict[str, Tensor]) -> str:
    """A short hash of all weights: equal for the same model, whatever folder it lies in."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        digest.update(name.encode())
        digest.update(weights[name].detach().contiguous().cpu().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def is_finished(folder: Path, task: str, config: dict[str, Any]) -> bool:
    """Whether the run is already done; writes nothing.

    Raises:
        UserError: the folder is something else, or a run with other options or on other data.
    """
    check_replaceable(folder, f"{task} run")
    if not (folder / "config.yaml").exists():
        return False
    changed = differences(read_config(folder), config)
    if changed:
        on = "start" in config and all(one.startswith("trainer.epochs:") for one in changed)
        more = f"; for further epochs train on from it: start={folder} and another out=" if on else ""
        raise UserError(
            f"{folder} holds a run with other options ({'; '.join(changed)}): choose another out= or remove it{more}"
        )
    manifest = read_manifest(folder, f"{task} run", MADE_BY[f"{task} run"])
    if manifest.get("made_from", {}) != sources(config):
        source = config.get("data") or config.get("corpus")
        raise UserError(
            f"{folder} was trained on an earlier state of {source}, of its features or of start=: choose another out= "
            "or remove it"
        )
    return bool(manifest.get("finished"))


def sources(config: dict[str, Any]) -> dict[str, str]:
    """Fingerprint of each folder that a run reads, and of a corpus file: with other content it is another source."""
    folders = {key: of_folder(Path(config[key])) for key in ("data", "features", "start") if config.get(key)}
    found = {key: content for key, content in folders.items() if content is not None}
    if config.get("corpus") and Path(config["corpus"]).is_file():
        found["corpus"] = of_file(Path(config["corpus"]))
    return found


@contextmanager
def run_folder(folder: Path, task: str, config_yaml: str, vocabulary: dict[str, Any]) -> Iterator[None]:
    """Make the run folder, or go on in it; if the data then proves unusable, a new folder is removed again.

    Not one that has a checkpoint: training has diverged later. The log of a killed run is kept as metrics.1.csv,
    metrics.2.csv …: Lightning deletes it when the run goes on.
    """
    new = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    config: Any = OmegaConf.to_container(OmegaConf.create(config_yaml))
    write_manifest(folder, f"{task} run", {"finished": False, "made_from": sources(config)})
    write_text(folder / VOCABULARY, json.dumps(vocabulary, ensure_ascii=False))
    if config.get("start"):
        write_text(folder / ORIGIN, origin(Path(config["start"])).read_text("utf-8"))
    write_text(folder / "config.yaml", config_yaml)
    earlier = len(list(folder.glob("logs/metrics.*.csv")))
    with suppress(FileNotFoundError):
        (folder / "logs" / "metrics.csv").rename(folder / "logs" / f"metrics.{earlier + 1}.csv")
    try:
        yield
    except UserError:
        if new and not any(folder.rglob("checkpoints/*.ckpt")):
            shutil.rmtree(folder, ignore_errors=True)
        raise


def read_vocabulary(folder: Path, part: str = "songs") -> dict[str, list[str]]:
    """The category codes that a run was trained with, of its songs or its users.

    Raises:
        UserError: the file is missing or damaged.
    """
    try:
        return read_vocabularies(folder)[part]
    except KeyError as error:
        raise UserError(f"{folder / VOCABULARY}: cannot be read (no {error}); train the run again") from None


def read_vocabularies(folder: Path) -> dict[str, dict[str, list[str]]]:
    """All category codes of a run, by part.

    Raises:
        UserError: the file is missing or damaged.
    """
    try:
        found: Any = json.loads((folder / VOCABULARY).read_text("utf-8"))
        if not isinstance(found, dict):
            raise ValueError("no JSON object")
    except (OSError, ValueError) as error:
        raise UserError(f"{folder / VOCABULARY}: cannot be read ({error}); train the run again") from None
    return found


def finish_run(folder: Path, task: str, metrics: dict[str, float], **about: Any) -> None:
    """Mark the run as finished, with the validation figures of its best epoch, and what else is told `about` it."""
    made_from = read_manifest(folder, f"{task} run", f"python train.py {task}").get("made_from", {})
    write_manifest(folder, f"{task} run", {"finished": True, "made_from": made_from, "best": metrics, **about})


def differences(earlier: Any, now: Any, prefix: str = "") -> list[str]:
    """Options that differ and may not, as "group.name: earlier → now".

    An option that an earlier version did not have was off (0, false, none).
    """
    if prefix.rstrip(".") in MAY_CHANGE:
        return []
    if isinstance(earlier, dict) and isinstance(now, dict):
        keys = sorted({*earlier, *(key for key in now if now[key])})
        was = {key: type(now[key])() for key in keys if isinstance(now.get(key), int | float)} | earlier
        return [one for key in keys for one in differences(was.get(key), now.get(key), f"{prefix}{key}.")]
    return [] if earlier == now else [f"{prefix.rstrip('.')}: {earlier} → {now}"]
