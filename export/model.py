"""Write a trained run as a folder for production, and load it without Lightning."""

from __future__ import annotations

import inspect
import json
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from artifacts.folders import kind_of, read_manifest, writing
from artifacts.runs import Run, open_run, read_vocabularies
from artifacts.tracking import made, tracked, used
from configs import options
from configs.errors import UserError
from configs.serving import ExportConfig

if TYPE_CHECKING:
    from data.catalogue import Catalogue  # at run time in main() alone: `load` works without Polars

KIND = "export"
MADE_BY = "python -m pipeline.export run=RUN out=EXPORT"
CLASSES = {
    "clip": "models.clip.ClipModel",
    "i2i": "models.song_encoder.SongEncoder",
    "boundary": "models.towers.BoundaryModel",
    "rank": "models.ranker.RankNetwork",
}
TOWERS = ("item", "user", "boundary")  # of the boundary task: a file each, since each may be served apart


@tracked("export")
def export_model(config: ExportConfig, tracking: Any) -> None:
    """Run `pipeline.export` (its docstring says what it reads and writes)."""
    from data.catalogue import Catalogue
    from export.model_card import model_card
    from export.programs import check_installed, write_programs
    from inference.ranking import open_network

    check_installed(config.formats)
    task = task_of(config.run)
    run = open_network(Path(config.run)) if task == "rank" else open_run(config.run, task)
    catalogue = Catalogue.read(run.config["data"])
    with writing(config.out, KIND, {"task": run.task, "fingerprint": run.fingerprint}) as folder:
        model, description = write_model(run, catalogue, folder)
        catalogue.songs.select("song_id", "split").write_parquet(folder / "song_ids.parquet")
        catalogue.users.select("user_id").write_parquet(folder / "user_ids.parquet")
        if config.formats:
            description |= write_programs(model, description, config.formats, folder)
            write_config(folder, description)
        numbers = sum(value.numel() for value in model.state_dict().values())
        (folder / "README.md").write_text(model_card(run, numbers, catalogue, description))
    used(tracking, run.folder)
    made(tracking, config.out, config.logger.upload)
    print(f"{config.out}: {run.task} model {run.fingerprint}, {numbers:,} numbers")


def write_model(run: Run, catalogue: Catalogue, folder: Path) -> tuple[nn.Module, dict[str, Any]]:
    """Weights and config.json of a run into a folder, read back: an export that does not load is no export.

    Returns:
        The model in evaluation mode, and its config.json.
    """
    return write_weights(within(run.weights, "model"), describe(run, catalogue), folder)


def write_weights(
    weights: dict[str, Tensor], description: dict[str, Any], folder: Path
) -> tuple[nn.Module, dict[str, Any]]:
    """As `write_model`, of a plain model's weights and what its config.json is to say."""
    from safetensors.torch import save

    for name in files_of(description["task"]):
        part = weights if name == "model" else within(weights, name)
        # save_file makes files for their owner alone: a service under another account could not read its model
        (folder / f"{name}.safetensors").write_bytes(save(part, {"format": "pt"}))
    write_config(folder, description)
    return load(folder, check=False)


def load(folder: str | Path, check: bool = True) -> tuple[nn.Module, dict[str, Any]]:
    """The model of an export folder, in evaluation mode, and its config.json. No Lightning, FAISS or Polars needed.

    Raises:
        UserError: not an export folder, or one whose weights do not fit its config.
    """
    folder = Path(folder)
    if check:
        read_manifest(folder, KIND, MADE_BY)
    return read(folder)


def load_tower(folder: str | Path, name: str) -> nn.Module:
    """One tower of a boundary export, in evaluation mode; only its own weights are read.

    "item" takes the fields of songs and gives i (songs, D); "user" and "boundary" take a user batch (`models.towers`)
    and give u and b (users, D). A song is for a user if ⟨u, i⟩ > ⟨u, b⟩.

    Raises:
        UserError: no such tower, not a boundary export, or weights that do not fit its config.
    """
    folder = Path(folder)
    if name not in TOWERS:
        raise UserError(f"tower {name!r}: choose from {', '.join(TOWERS)}")
    task = read_manifest(folder, KIND, MADE_BY).get("task")
    if task != "boundary":
        raise UserError(f"{folder} holds a model of the task {task}, which has no towers: export a boundary run")
    tower: nn.Module = getattr(read(folder, (name,))[0], name)
    return tower


def read(folder: Path, files: Sequence[str] = ()) -> tuple[nn.Module, dict[str, Any]]:
    """As `load`, unchecked; with the weights of some of its files alone, if they are named."""
    from safetensors.torch import load_file

    try:
        config = json.loads((folder / "config.json").read_text())
        model: nn.Module = model_class(config["task"])(**config["model"])
        for name in files or files_of(config["task"]):
            part = model if name == "model" else getattr(model, name)
            part.load_state_dict(load_file(folder / f"{name}.safetensors"))
    except Exception as error:  # tampered files raise many types
        reason = " ".join([type(error).__name__, *str(error).splitlines()[:1]])
        raise UserError(f"{folder} cannot be loaded ({reason}); make it again with: {MADE_BY}") from None
    return model.eval(), config


def files_of(task: str) -> tuple[str, ...]:
    """Names of the files of weights: one for all, or one a tower."""
    return TOWERS if task == "boundary" else ("model",)


def model_class(task: str) -> Any:
    """The plain module of a task; imported here, so that a model for songs does not need the text libraries."""
    module, _, name = CLASSES[task].rpartition(".")
    return getattr(import_module(module), name)


def task_of(folder: str | Path) -> str:
    """Which task a run folder belongs to.

    Raises:
        UserError: it is no run folder.
    """
    task = (kind_of(Path(folder)) or "").removesuffix(" run")
    if task not in CLASSES:
        raise UserError(f"{folder} is not a run folder (made by: {options.MADE_BY['run']})")
    return task


def within(weights: dict[str, Tensor], part: str) -> dict[str, Tensor]:
    """The weights of one part of a module, named as in the part."""
    prefix = f"{part}."
    return {name.removeprefix(prefix): value.contiguous() for name, value in weights.items() if name.startswith(prefix)}


def describe(run: Run, catalogue: Catalogue) -> dict[str, Any]:
    """Everything that is needed beside the weights: constructor arguments, category codes, audio front end."""
    accepted = inspect.signature(model_class(run.task)).parameters
    given = run.hparams | run.hparams["model"] if run.task == "clip" else run.hparams
    return {
        "task": run.task,
        "class": CLASSES[run.task],
        "model": {name: value for name, value in given.items() if name in accepted},
        "vocabulary": read_vocabularies(run.folder),
        "audio": catalogue.manifest["audio"],
        **({"prepared": run.hparams.get("prepared", {})} if run.task == "clip" else {}),
        **({name: run.hparams[name] for name in ("numbers", "codes")} if run.task == "rank" else {}),
        "trained_with": run.config,
    }


def write_config(folder: Path, description: dict[str, Any]) -> None:
    """The folder's config.json."""
    (folder / "config.json").write_text(json.dumps(description, indent=2, ensure_ascii=False) + "\n")
