"""A trained run → a folder for production: safetensors + config + ids + model card, loadable without Lightning.

    python -m pipeline.export run=RUN out=EXPORT

Load it anywhere that has FirstPlay's `models/`:

    from pipeline.export import load
    model, config = load("EXPORT")
    vectors = model(fields)            # i2i: song vectors; see the folder's README.md for the other tasks
"""

from __future__ import annotations

import inspect
import json
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from configs.errors import UserError
from configs.load import command
from configs.schema import ExportConfig
from datamodules.folders import read_manifest, writing
from pipeline.runs import Run, open_run, read_vocabularies

if TYPE_CHECKING:
    from datamodules.catalogue import Catalogue  # at run time in main() alone: `load` works without Polars

KIND = "export"
MADE_BY = "python -m pipeline.export run=RUN out=EXPORT"
CLASSES = {
    "clip": "models.clip.ClipModel",
    "i2i": "models.song_encoder.SongEncoder",
    "boundary": "models.towers.BoundaryModel",
}


def main(config: ExportConfig) -> None:
    """Run the command (see the module's docstring)."""
    from safetensors.torch import save_file

    from datamodules.catalogue import Catalogue

    run = open_run(config.run, task_of(config.run))
    catalogue = Catalogue.read(run.config["data"])
    description = describe(run, catalogue)
    with writing(config.out, KIND, {"task": run.task, "fingerprint": run.fingerprint}) as folder:
        save_file(model_weights(run.weights), folder / "model.safetensors")
        (folder / "config.json").write_text(json.dumps(description, indent=2, ensure_ascii=False) + "\n")
        catalogue.songs.select("song_id", "split").write_parquet(folder / "song_ids.parquet")
        catalogue.users.select("user_id").write_parquet(folder / "user_ids.parquet")
        (folder / "README.md").write_text(model_card(run, description, catalogue))
        load(folder, check=False)  # an export that does not load is no export
    print(f"{config.out}: {run.task} model {run.fingerprint}, {count(run):,} numbers")


def load(folder: str | Path, check: bool = True) -> tuple[nn.Module, dict[str, Any]]:
    """The model of an export folder, in evaluation mode, and its config.json. No Lightning, FAISS or Polars needed.

    Raises:
        UserError: not an export folder, or one whose weights do not fit its config.
    """
    from safetensors.torch import load_file

    folder = Path(folder)
    if check:
        read_manifest(folder, KIND, MADE_BY)
    try:
        config = json.loads((folder / "config.json").read_text())
        model: nn.Module = model_class(config["task"])(**config["model"])
        model.load_state_dict(load_file(folder / "model.safetensors"))
    except Exception as error:  # tampered files raise many types
        told = " ".join([type(error).__name__, *str(error).splitlines()[:1]])
        raise UserError(f"{folder} cannot be loaded ({told}); make it again with: {MADE_BY}") from None
    return model.eval(), config


def model_class(task: str) -> Any:
    """The plain module of a task; imported here, so that a model for songs does not need the text libraries."""
    module, _, name = CLASSES[task].rpartition(".")
    return getattr(import_module(module), name)


def task_of(folder: str | Path) -> str:
    """Which task a run folder belongs to.

    Raises:
        UserError: it is no run folder.
    """
    try:
        kind = json.loads((Path(folder) / "manifest.json").read_text())["kind"]
    except (OSError, ValueError, KeyError, TypeError):
        kind = None
    for task in CLASSES:
        if kind == f"{task} run":
            return task
    raise UserError(f"{folder} is not a run folder (made by: python train.py clip|i2i|boundary data=CATALOGUE out=RUN)")


def model_weights(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights of the plain model: the LightningModule's own buffers are left out, the prefix is dropped."""
    prefix = "model."
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
        "trained_with": run.config,
    }


def count(run: Run) -> int:
    """Numbers in the exported model."""
    return sum(value.numel() for value in model_weights(run.weights).values())


CARD = """# FirstPlay {task} model {fingerprint}

{purpose}

- trained on: {songs} songs ({warm} known), {users} users, {plays} plays
- chosen by: {chosen}
- numbers in the model: {count}

## Use

    from pipeline.export import load
    model, config = load("this folder")
    {call}

`config.json` holds the constructor's arguments, the category codes (0 = none, 1 = unknown, 2… = `vocabulary`) and the
log-mel settings. `song_ids.parquet` and `user_ids.parquet` give the ids in row order.

## Limits

The figures above come from this training catalogue alone. A category value that it lacks is "unknown" to the model.
"""
PURPOSE = {
    "clip": "Puts a song's recording (log-mel frames) and its words (BERT vectors) into one space.",
    "i2i": "Turns a song's content into a vector whose inner product follows shared listeners, unheard songs too.\n"
    "Known songs have a memory beside it: their vectors are those of the index folder, not of this model.",
    "boundary": "Scores songs for users; a new song goes only to users whose score clears their own interest boundary.",
}
CALL = {
    "clip": "vectors = model.embed_audio(dict(samples=int16_NL, length=length_N))    # or logmel=, frames=",
    "frozen": "vectors = model.embed_audio(dict(pooled=vectors_NB))    # those of {encoder}: datamodules.audio_inputs",
    "i2i": "vectors = model(fields)    # as datamodules.fields.SongFields.gather makes them",
    "boundary": "items = model.item_vectors(fields)",
}


def call(run: Run) -> str:
    """How the model is used, for its card."""
    from models.pretrained_audio import OWN

    audio = run.hparams["model"]["audio"] if run.task == "clip" else {}
    if audio.get("model", OWN) != OWN and audio.get("frozen", True):
        return CALL["frozen"].format(encoder=audio["model"])
    return CALL[run.task]


def model_card(run: Run, description: dict[str, Any], catalogue: Catalogue) -> str:
    """The README.md of an export."""
    counts = catalogue.manifest["counts"]
    best = json.loads((run.folder / "manifest.json").read_text()).get("best", {})
    return CARD.format(
        task=run.task,
        fingerprint=run.fingerprint,
        purpose=PURPOSE[run.task],
        call=call(run),
        songs=counts["songs"],
        warm=counts.get("songs_warm", 0),
        users=counts["users"],
        plays=counts["training_plays"],
        chosen=", ".join(f"{name} {value:.4f}" for name, value in best.items()) or "training not finished",
        count=f"{count(run):,}",
    )


if __name__ == "__main__":
    command(main, ExportConfig, __doc__)
