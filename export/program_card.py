"""What a model card says of the programs of an export: what they take, and how to run them without FirstPlay."""

from __future__ import annotations

import json
from typing import Any

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
SONGS = "`songs.NAME` is the field NAME of songs: numbers (a row of NaN: missing) or category codes, filled up with 0."
CROPS = "A recording's vector is the mean over a few crops ({crops} here), at length 1."
EXTRACTED = "The audio inputs are what the feature extractor of {encoder} makes of a crop."
FEW = 2  # rows of an example
FREE = 8  # its other free axes, or the least that they may be


def programs(config: dict[str, Any]) -> str:
    """The card's section on programs; empty where an export has none."""
    told = {name: config[name] for name in FORMATS if name in config}
    if not told:
        return ""
    parts = next(iter(told.values()))
    formats = [FORMATS[name].format(opset=next(iter(one.values())).get("opset")) for name, one in told.items()]
    section = PROGRAMS.format(
        formats=" and ".join(formats),
        names=", ".join(f"`{name}`" for name in parts),
        difference=max(part["max_difference"] for one in told.values() for part in one.values()),
        inputs="\n".join(meanings(config, parts)),
    )
    return section + "".join(example(name, next(iter(one.values()))) for name, one in told.items())


def meanings(config: dict[str, Any], parts: dict[str, Any]) -> list[str]:
    """A line or two on every kind of input."""
    from models import musicnn
    from models.pretrained_audio import MUSICNN

    inputs = [name for part in parts.values() for name in part["inputs"]]
    said = [text for name, text in MEANING.items() if name in inputs]
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
    least = part.get("at_least", {})
    lines = []
    for key, one in part["inputs"].items():
        axes = [FEW if at == 0 else max(FREE, least.get(width, 0)) for at, width in enumerate(one["shape"])]
        shape = tuple(n if isinstance(width, str) else width for n, width in zip(axes, one["shape"], strict=True))
        value = ONES[name].format(shape=shape, dtype=one["dtype"])
        lines.append(f"    {json.dumps(key, ensure_ascii=False)}: {value},  # {' × '.join(map(str, one['shape']))}")
    return EXAMPLES[name].format(file=part["file"], inputs="\n".join(lines))
