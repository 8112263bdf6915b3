"""What an export says of itself: the README.md of its folder."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from pipeline.runs import Run

if TYPE_CHECKING:
    from datamodules.catalogue import Catalogue

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
    "boundary": "items = model.item_vectors(fields)\n"
    "    from pipeline.export import load_tower    # one tower alone: item, user or boundary\n"
    '    item = load_tower("this folder", "item")',
}


def call(run: Run) -> str:
    """How the model is used, for its card."""
    from models.pretrained_audio import OWN

    audio = run.hparams["model"]["audio"] if run.task == "clip" else {}
    if audio.get("model", OWN) != OWN and audio.get("frozen", True):
        return CALL["frozen"].format(encoder=audio["model"])
    return CALL[run.task]


def model_card(run: Run, numbers: int, catalogue: Catalogue) -> str:
    """The README.md of an export whose model has so many numbers."""
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
        count=f"{numbers:,}",
    )
