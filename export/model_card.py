"""The README.md of an export: a model card as Hugging Face reads it, with how programs run without FirstPlay."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import yaml

from artifacts.runs import Run
from models import musicnn
from models.pretrained_audio import MUSICNN, OWN

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

The figures above come from this training catalogue alone. A category value that it lacks is "unknown" to the model;
a year is the nearest that it has.
"""
PURPOSE = {
    "clip": "Puts a song's recording (log-mel frames) and its words (BERT vectors) into one space.",
    "i2i": "Turns a song's content into a vector whose inner product follows shared listeners, unheard songs too.\n"
    "Known songs have a residual embedding beside it: their vectors are those of the index folder, not of this model.",
    "boundary": "Scores songs for users; a new song goes only to users whose score clears their own interest boundary.",
    "rank": "Scores users who may hear a new song: the log-odds of the expected grade of their listening.",
}
CALL = {
    "clip": "vectors = model.embed_audio(dict(samples=int16_NL, length=length_N))    # or logmel=, frames=",
    "frozen": "vectors = model.embed_audio(dict(pooled=vectors_NB))    # those of {encoder}: data.audio.inputs",
    "i2i": "vectors = model(fields)    # as data.fields.SongFields.gather makes them",
    "boundary": "items = model.item_vectors(fields)\n"
    "    from export.model import load_tower    # one tower alone: item, user or boundary\n"
    '    item = load_tower("this folder", "item")',
    "rank": "scores = model.score(batch)    # models.ranker says what a batch is, datamodules.rank_batches makes one",
}
TAGS = ["music", "recommender-system", "cold-start"]
PROGRAMS = """
## Programs

{formats}
hold {names}. Each takes named tensors, any number of rows, and gives `vector`; dtypes and shapes are in `config.json`.
On random batches of two sizes their vectors differed from the model's by at most {difference:.1e}.

{inputs}
"""
FORMATS = {"onnx": "`onnx/` for ONNX (opset {opset})", "torch_export": "`torch_export/` for `torch.export.load`"}
EXAMPLES = {
    "onnx": """
```python
import numpy as np
import onnxruntime

session = onnxruntime.InferenceSession("{file}")
given = {{
{inputs}
}}
(vector,) = session.run(["vector"], given)
```
""",
    "torch_export": """
```python
import torch

program = torch.export.load("{file}").module(check_guards=False)
given = {{
{inputs}
}}
vector = program(given)
```
""",
}
ONES = {"onnx": 'np.ones({shape}, "{dtype}")', "torch_export": "torch.ones({shape}, dtype=torch.{dtype})"}
MEANING = {
    "samples": "`samples` are 16-bit at {rate} Hz, zero from `length` on.",
    "logmel": "`logmel` are frames as `models.log_mel` makes them at {rate} Hz, of which the first `frames` are real.",
    "pooled": "`pooled` are the vectors of {encoder}, which is not part of this model (`models.pretrained_audio`).",
    "input_ids": "`input_ids` and `attention_mask` come from `tokenizer.json`. The weights of {text} are in the\n"
    "program: their licence goes with it.",
    "history": "A user has `codes` and `numbers` (NaN: unknown) of the profile, and a history, latest play first:\n"
    "positions in the songs where `mask` holds, of `strength` -1 disliked, 0, 1 played, 2 completed, 3 favourited.\n"
    "A song is for a user if the product of user and item is above that of user and boundary.",
}
PAIRS = (
    "A pair has features, `numbers` (NaN: unknown) and maybe `codes`, in the order of these lists in `config.json`;\n"
    "its `song` among the `new` songs, which are positions in the songs, and its `row` among the histories: positions\n"
    "in the songs where `mask` holds, newest first, with `signal` 1 played, 2 completed, 3 favourited.\n"
    "`vector` has one number, the score."
)
SONGS = "`songs.NAME` is the field NAME of songs: numbers (a row of NaN: missing) or category codes, filled up with 0."
CROPS = "A recording's vector is the mean over a few crops ({crops} here), at length 1."
EXTRACTED = "The audio inputs are what the feature extractor of {encoder} makes of a crop."
ROWS = 2  # rows of an example
FREE = 8  # its other free axes, or the least that they may be


def call(run: Run) -> str:
    """How the model is used, for its card."""
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
    if run.task not in ("boundary", "rank"):  # the hub has no name for what these do
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


def programs(config: dict[str, Any]) -> str:
    """The card's section on programs; empty where an export has none."""
    written = {name: config[name] for name in FORMATS if name in config}
    if not written:
        return ""
    parts = next(iter(written.values()))
    formats = [FORMATS[name].format(opset=next(iter(one.values())).get("opset")) for name, one in written.items()]
    section = PROGRAMS.format(
        formats=" and ".join(formats),
        names=", ".join(f"`{name}`" for name in parts),
        difference=max(part["max_difference"] for one in written.values() for part in one.values()),
        inputs="\n".join(meanings(config, parts)),
    )
    return section + "".join(example(name, next(iter(one.values()))) for name, one in written.items())


def meanings(config: dict[str, Any], parts: dict[str, Any]) -> list[str]:
    """A line or two on every kind of input."""
    inputs = [name for part in parts.values() for name in part["inputs"]]
    said = [PAIRS] if "row" in inputs else [text for name, text in MEANING.items() if name in inputs]
    said += [SONGS] if any(name.startswith("songs.") for name in inputs) else []
    if "audio" in parts:
        said += [] if {"samples", "logmel", "pooled"} & set(inputs) else [EXTRACTED]
        said += [CROPS]
    tower, text = (config["model"].get(name, {}).get("model") for name in ("audio", "text"))
    rate = musicnn.RATE if tower == MUSICNN else config["audio"]["sample_rate"]
    crops = config.get("prepared", {}).get("crops")
    return [one.format(encoder=tower, text=text, rate=rate, crops=crops) for one in said]


def example(name: str, part: dict[str, Any]) -> str:
    """A program with inputs that are 1 throughout: lines to run in the export's folder."""
    minimum = part.get("at_least", {})
    lines = []
    for key, one in part["inputs"].items():
        axes = [ROWS if at == 0 else max(FREE, minimum.get(width, 0)) for at, width in enumerate(one["shape"])]
        shape = tuple(n if isinstance(width, str) else width for n, width in zip(axes, one["shape"], strict=True))
        value = ONES[name].format(shape=shape, dtype=one["dtype"])
        lines.append(f"    {json.dumps(key, ensure_ascii=False)}: {value},  # {' × '.join(map(str, one['shape']))}")
    return EXAMPLES[name].format(file=part["file"], inputs="\n".join(lines))
