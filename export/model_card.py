"""What an export says of itself: the README.md of its folder, a model card as Hugging Face reads it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import yaml

from artifacts.runs import Run
from export.program_card import programs

if TYPE_CHECKING:
    from data.catalogue import Catalogue

CARD = """---
{front}---

# FirstPlay {task} model {fingerprint}

{purpose}

- trained on: {songs} songs ({warm} known), {users} users, {plays} plays
- chosen by: {chosen}
- numbers in the model: {count}

## Use

    from export.model import load
    model, config = load("this folder")
    {call}

`config.json` holds the constructor's arguments, the category codes (0 = none, 1 = unknown, 2… = `vocabulary`) and the
log-mel settings. `song_ids.parquet` and `user_ids.parquet` give the ids in row order.
{programs}
## Limits

The figures above come from this training catalogue alone. A category value that it lacks is "unknown" to the model.
"""
PURPOSE = {
    "clip": "Puts a song's recording (log-mel frames) and its words (BERT vectors) into one space.",
    "i2i": "Turns a song's content into a vector whose inner product follows shared listeners, unheard songs too.\n"
    "Known songs have a residual embedding beside it: their vectors are those of the index folder, not of this model.",
    "boundary": "Scores songs for users; a new song goes only to users whose score clears their own interest boundary.",
}
CALL = {
    "clip": "vectors = model.embed_audio(dict(samples=int16_NL, length=length_N))    # or logmel=, frames=",
    "frozen": "vectors = model.embed_audio(dict(pooled=vectors_NB))    # those of {encoder}: data.audio.inputs",
    "i2i": "vectors = model(fields)    # as data.fields.SongFields.gather makes them",
    "boundary": "items = model.item_vectors(fields)\n"
    "    from export.model import load_tower    # one tower alone: item, user or boundary\n"
    '    item = load_tower("this folder", "item")',
}
TAGS = ["music", "recommender-system", "cold-start"]


def call(run: Run) -> str:
    """How the model is used, for its card."""
    from models.pretrained_audio import OWN

    audio = run.hparams["model"]["audio"] if run.task == "clip" else {}
    if audio.get("model", OWN) != OWN and audio.get("frozen", True):
        return CALL["frozen"].format(encoder=audio["model"])
    return CALL[run.task]


def model_card(run: Run, numbers: int, catalogue: Catalogue, config: dict[str, Any]) -> str:
    """The README.md of an export whose model has so many numbers, and whose config.json is `config`."""
    counts = catalogue.manifest["counts"]
    best = json.loads((run.folder / "manifest.json").read_text()).get("best", {})
    return CARD.format(
        front=yaml.safe_dump(front_matter(run, best, counts, config), sort_keys=False),
        task=run.task,
        fingerprint=run.fingerprint,
        purpose=PURPOSE[run.task],
        call=call(run),
        songs=counts["songs"],
        warm=counts.get("songs_warm", 0),
        users=counts["users"],
        plays=counts["training_plays"],
        chosen=", ".join(f"{name} {value:.4f}" for name, value in best.items()) or "training not finished",
        count=f"{numbers:,}",
        programs=programs(config),
    )


def front_matter(run: Run, best: dict[str, float], counts: dict[str, Any], config: dict[str, Any]) -> dict[str, Any]:
    """What Hugging Face's hub reads of a card: library, task, tags, and the figures that the model was chosen by.

    Nobody but its owner knows what the training data allow: the licence is "unknown" until they write another.
    """
    found: dict[str, Any] = {"library_name": "firstplay", "license": "unknown"}
    if run.task != "boundary":  # the hub has no name for what that one does
        found["pipeline_tag"] = "feature-extraction"
    found["tags"] = TAGS + (["onnx"] if "onnx" in config else [])
    if best:
        result = {
            "task": {"type": "retrieval"},
            "dataset": {"type": "private", "name": f"a catalogue of {counts['songs']} songs, its validation songs"},
            "metrics": [{"type": name, "value": value} for name, value in best.items()],
        }
        found["model-index"] = [{"name": f"firstplay-{run.task}-{run.fingerprint}", "results": [result]}]
    return found
