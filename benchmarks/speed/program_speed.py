"""Every part of an export as a program, at the default sizes: difference from the model, and time on a CPU.

    python -m benchmarks.speed.program_speed threads=1 out=runs/program_speed.json

The weights are random (but BERT's and musicnn's): neither figure hangs on them. A batch has `rows` rows; a crop is four
seconds, a text `tokens` tokens, a history fifty plays. Each time is the minimum of `rounds` calls, of the model, of
torch.export's program and of onnxruntime in turn.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from benchmarks.measure import tell
from configs.data import AudioConfig
from configs.load import as_dict, command
from configs.options import at_least, opt
from configs.training import BoundaryConfig, ClipConfig, I2IConfig
from export.parts import Part, parts_of
from export.programs import opened, quiet, write_program
from models.clip import ClipModel
from models.song_encoder import SongEncoder
from models.towers import BoundaryModel

FORMATS = ("torch_export", "onnx")
FIELDS = {"clip_audio": 128, "clip_text": 128, "text": 384}, {"language": 20, "genres": 200, "artist_id": 20000}
FRONT = ("sample_rate", "n_mels", "win_length", "hop_length")


@dataclass
class ProgramSpeedConfig:
    """Options of this benchmark."""

    parts: list[str] = opt([], "parts to measure (empty: all)")
    rows: int = opt(32, "rows of a batch")
    tokens: int = opt(64, "tokens of a text")
    rounds: int = opt(5, "calls, of which the fastest counts")
    threads: int = opt(1, "threads of torch and of onnxruntime")
    out: str | None = opt(None, "JSON file to write")


def main(config: ProgramSpeedConfig) -> None:
    """Run the command (see the module's docstring)."""
    at_least(config, 1, "rows", "tokens", "rounds", "threads")
    report = {}
    torch.set_num_threads(config.threads)
    for name, part, size in every_part(config.tokens):
        if not config.parts or name in config.parts:
            with TemporaryDirectory() as folder, torch.no_grad():
                report[name] = measured(part, name.split()[-1], size, config, Path(folder))
    tell(config, report)


def every_part(tokens: int) -> Iterator[tuple[str, Part, int]]:
    """Name, part and the size of a batch's free axis."""
    torch.manual_seed(0)
    clip, audio = as_dict(ClipConfig(data="", out="")), as_dict(AudioConfig())
    own = {"model": "transformer", "dim": 0} | {name: clip["model"][name] for name in ("width", "layers", "heads")}
    text, musicnn = {"model": "minilm", "dim": 384}, {"model": "musicnn", "dim": 200}
    front = {name: audio[name] for name in FRONT}
    for tower, store, size in ((own, "logmel", 201), (own, "samples", 64000), (musicnn, "samples", 64000)):
        model = ClipModel(front, dict(tower), text, clip["model"]["dim"], 0.1, 0.07).eval()
        described = {"task": "clip", "model": {"audio": tower, "text": text}, "prepared": {}}
        found = parts_of(model, described | {"audio": audio | {"store": store}})
        yield f"{tower['model']}, {store}: audio", found["audio"], size
    yield "minilm: text", found["text"], tokens
    sizes = ("field_dim", "hidden", "dim", "dropout")
    i2i, boundary = (as_dict(one(data="", out=""))["model"] for one in (I2IConfig, BoundaryConfig))
    song = SongEncoder(*FIELDS, **{name: i2i[name] for name in (*sizes, "normalise", "input_dropout")}, block=64).eval()
    yield "i2i: song", parts_of(song, {"task": "i2i"})["song"], 8
    shape = [boundary[name] for name in (*sizes, "prior_plays")]
    towers = BoundaryModel(*FIELDS, {"country": 50}, 1, 64, *shape).eval()
    for name, part in parts_of(towers, {"task": "boundary"}).items():
        yield f"boundary: {name}", part, 8 if name == "item" else boundary["history"]


def measured(part: Part, name: str, size: int, config: ProgramSpeedConfig, folder: Path) -> dict[str, Any]:
    """Largest difference, file sizes and milliseconds a batch."""
    written = write_program(part, name, FORMATS, folder)
    calls: dict[str, Any] = {"model": part}
    with quiet():
        calls |= {form: opened(folder / written[form]["file"], config.threads) for form in FORMATS}
    batch, times = part.batch(config.rows, size), dict.fromkeys(calls, float("inf"))
    for _ in range(config.rounds):
        for form, call in calls.items():
            start = time.perf_counter()
            call(batch)
            times[form] = min(times[form], time.perf_counter() - start)
    return {
        "max_difference": {form: written[form]["max_difference"] for form in FORMATS},
        "megabytes": {form: round((folder / written[form]["file"]).stat().st_size / 1e6, 2) for form in FORMATS},
        "milliseconds": {form: round(1000 * seconds, 2) for form, seconds in times.items()},
    }


if __name__ == "__main__":
    command(main, ProgramSpeedConfig, __doc__)
