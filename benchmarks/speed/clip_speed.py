"""How fast audio and text go through CLIP, everything in one run, each beside what it is compared with.

    python -m benchmarks.speed.clip_speed data=$FIRSTPLAY_DATA/moodclips out=runs/clip_speed

- a training step by train.py, against the same model, batches and optimiser in a bare PyTorch loop, in turns;
- the share of that loop's time in which it waits for data;
- songs read a second, from log-mel frames, from samples, and decoded from the files for each crop;
- songs embedded a second and peak memory, of catalogues of several sizes (random frames, a process for each).

Writes results.json. Times are of this machine while it does this; the ratios are what to look at.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from omegaconf import MISSING

from artifacts.folders import writing
from benchmarks.measure import memory, write_json
from benchmarks.speed.train_overhead import QUIET, side_by_side
from callbacks.index_recall import IndexRecall
from configs.data import AudioConfig, PrepareConfig
from configs.errors import UserError
from configs.load import command, load
from configs.options import opt
from configs.training import ClipConfig
from data.audio.shards import SUFFIX
from data.catalogue import KIND
from data.preparation import prepare
from datamodules.batches import Batch
from datamodules.clip import FRAME_OPTIONS
from training.parts import clip_parts
from training.tasks import train_clip

STORES = ("logmel", "samples", "files")
FRAMES, BANDS = 250, 64  # of a generated recording: five seconds


@dataclass
class SpeedConfig:
    """Options of this benchmark."""

    data: str = opt(MISSING, "dataset folder with recordings and genres or tags")
    out: str = opt("runs/clip_speed", "folder for catalogues and results.json")
    rounds: int = opt(9, "rounds, in each of which both loops run")
    steps: int = opt(15, "timed steps a loop and round")
    sizes: list[int] = opt([1000, 5000, 20000], "songs of the catalogues that are embedded")
    clip: list[str] = opt(["batch_size=64", "model.crop_seconds=4"], "options of train.py clip")
    embed: list[str] = opt(["model.width=64", "model.layers=2", "model.crops=1"], "further ones, of the embedding run")


def main(config: SpeedConfig) -> None:
    """Run the command (see the module's docstring)."""
    if min(config.rounds, config.steps, *config.sizes) < 1:
        raise UserError("rounds, steps and sizes must be at least 1")
    out = Path(config.out)
    for store in STORES:
        if not (out / store).exists():
            given = [f"source={config.data}", f"out={out}/{store}", f"audio.store={store}", "split.by=random"]
            prepare(load(PrepareConfig, given))
    report: dict[str, Any] = {"threads": torch.get_num_threads(), "cpus": os.cpu_count()}
    report |= {"step": step(config, out), "reading": reading(config, out), "embedding": embedding(config, out)}
    write_json(out / "results.json", report)
    print(json.dumps(report, indent=1))


def options(config: SpeedConfig, catalogue: Path, out: Path, *more: str) -> ClipConfig:
    """A CLIP training's options; it is stopped long before its last epoch."""
    given = [f"data={catalogue}", f"out={out}", *QUIET, "text.fields=[genres,tags]"]
    return load(ClipConfig, [*given, *config.clip, *more])


def step(config: SpeedConfig, out: Path) -> dict[str, float]:
    """Songs a second by train.py's trainer and by a bare loop, medians over rounds of one beside the other."""
    chosen = options(config, out / "logmel", out / "step")

    def parts() -> tuple[Any, Any, list[Any]]:
        return *clip_parts(chosen), [IndexRecall(1, 5, 10, both_ways=True)]

    found = side_by_side(parts, chosen.trainer, config.rounds, config.steps, "step")
    rates = {name: found.pop(f"steps{name}") * chosen.batch_size for name in ("_a_second", "_a_second_bare")}
    return {f"songs{name}": rate for name, rate in rates.items()} | found


def reading(config: SpeedConfig, out: Path) -> dict[str, float]:
    """Songs whose crops are read a second, by what `prepare` kept of the recordings; each epoch reads every song."""
    found = {store: 0.0 for store in STORES}
    for turn in range(2):  # the first fills the page cache
        for store in STORES:
            _, data = clip_parts(options(config, out / store, out / "reading"))
            data.prepare_data()
            data.setup("predict")
            rows, started = data.rows("warm"), time.perf_counter()
            items: Any = data.train_dataloader().dataset
            for at in range(0, len(rows), 64):
                items[Batch(np.arange(at, min(at + 64, len(rows))), (turn, at))]
            found[store] = len(rows) / (time.perf_counter() - started)
    return found | {f"{store}_over_files": found[store] / found["files"] for store in STORES[:2]}


def embedding(config: SpeedConfig, out: Path) -> list[dict[str, float]]:
    """Time and memory of `pipeline.embed`, text and audio, for catalogues of each size.

    `songs_a_second` counts what a catalogue has more than the one before, so that the start of the process is left out;
    memory is what the process cannot give back (RssAnon: the pages of mapped files are the kernel's).
    """
    train_clip(options(config, out / "logmel", out / "encoder", *config.embed, "trainer.epochs=1"))
    rows: list[dict[str, float]] = []
    for size in config.sizes:
        catalogue = generated(out, size)
        shutil.rmtree(catalogue / "text_cache", ignore_errors=True)  # of an earlier run
        given = [f"clip={out}/encoder", f"data={catalogue}", f"out={out}/features_{size}", "accelerator=cpu"]
        seconds, peak = measured([sys.executable, "-m", "pipeline.embed", *given])
        rows.append({"songs": size, "seconds": seconds, "peak_mb": peak})
    for one, before in zip(rows[1:], rows, strict=False):
        one["songs_a_second"] = (one["songs"] - before["songs"]) / (one["seconds"] - before["seconds"])
    return rows


def generated(out: Path, size: int) -> Path:
    """A catalogue of songs with short titles and random frames, made unless it is there."""
    folder, rng = out / f"generated_{size}", np.random.default_rng(size)
    if folder.exists():
        return folder
    with writing(folder, KIND, manifest := {"audio": {"store": "logmel", "n_mels": BANDS}}) as aside:
        (aside / "audio").mkdir()
        with (aside / "audio" / f"all{SUFFIX}").open("wb") as file:
            for _ in range(size):
                file.write(rng.standard_normal((FRAMES, BANDS), dtype=np.float32).astype(np.float16).tobytes())
        made = AudioConfig()
        manifest["audio"] |= {name: getattr(made, name) for name in FRAME_OPTIONS}
        manifest["audio_shards"] = {"folders": ["audio"], "names": ["all"]}
        columns: dict[str, Any] = {"audio_shard": np.zeros(size, int), "audio_start": np.arange(size) * FRAMES}
        words = [f"genre {row % 97}, mood {row % 89}" for row in range(size)]
        lists = pl.Series([[word] for word in words], dtype=pl.List(pl.String))
        columns |= {"song_id": [f"s{row}" for row in range(size)], "genres": lists, "tags": lists}
        columns |= {"split": ["warm"] * size, "audio_length": np.full(size, FRAMES)}
        pl.DataFrame(columns).write_parquet(aside / "songs.parquet")
    return folder


def measured(line: list[str]) -> tuple[float, int]:
    """Seconds that a command takes, and the most memory of its own, MB."""
    started, peak = time.perf_counter(), 0
    with tempfile.TemporaryFile("w+") as said:  # a pipe that nobody reads would fill up and stop the command
        process = subprocess.Popen(line, stdout=said, stderr=subprocess.STDOUT)
        while process.poll() is None:
            peak = max(peak, memory("RssAnon", process.pid))
            time.sleep(0.05)
        seconds = time.perf_counter() - started
        if process.returncode != 0:
            said.seek(0)
            raise UserError(f"{' '.join(line)} failed: {said.read()[-500:]}")
    return seconds, peak


if __name__ == "__main__":
    command(main, SpeedConfig, __doc__)
