"""Reading random crops of log-mel frames from three formats, side by side: our raw shards, Parquet, LitData.

    pip install litdata          # (optional; without it its row is left out)
    python -m benchmarks.speed.shard_formats songs=2000 out=runs/shard_formats

Recordings of 30 seconds with random frames are written once in each format. Then whole epochs are read in a new random
order, a batch of random crops at a time, as training does it, in one process; the first epoch, which fills the page
cache, is not counted. Written: songs a second (median over epochs), seconds to write, megabytes. Writes results.json.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow.parquet as pq
from tqdm import tqdm

from artifacts.folders import write_text
from benchmarks.table import markdown
from configs.errors import UserError
from configs.load import command
from configs.options import opt
from data.arrays import AnyArray, IntArray
from data.audio.shards import SUFFIX, Shards

BANDS, FRAMES, CROP = 64, 1500, 200  # recordings of 30 seconds, crops of four
ROW_GROUP = 1  # recordings that Parquet unpacks at a time: one is the fastest to enter anywhere
CHUNK = "64MB"  # LitData's default

Read = Callable[[IntArray, IntArray], AnyArray]  # (songs, first frames) → crops (N, T, M)


@dataclass
class FormatsConfig:
    """Options of this benchmark."""

    out: str = opt("runs/shard_formats", "folder for the shards and results.json")
    songs: int = opt(2000, "recordings")
    batch: int = opt(64, "crops a batch")
    epochs: int = opt(3, "counted epochs")


def main(config: FormatsConfig) -> None:
    """Run the command (see the module's docstring)."""
    if min(config.songs, config.batch, config.epochs) < 1:
        raise UserError("songs, batch and epochs must be at least 1")
    rows: list[dict[str, Any]] = []
    out = Path(config.out)
    for name, write, opened in FORMATS:
        folder = out / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        started = time.perf_counter()
        try:
            write(folder, config.songs)
        except ImportError as error:
            print(f"{name}: left out ({error})")
            continue
        written = time.perf_counter() - started
        size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        rate = float(np.median([epoch(config, opened(folder), turn) for turn in range(config.epochs + 1)][1:]))
        rows.append({"method": name, "songs a second": rate, "seconds to write": written, "megabytes": size / 1e6})
    for row in rows:
        row["raw over it"] = rows[0]["songs a second"] / row["songs a second"]
    write_text(out / "results.json", json.dumps(rows, indent=1) + "\n")
    print(markdown("method", [rows], ["songs a second", "raw over it", "seconds to write", "megabytes"]))


def epoch(config: FormatsConfig, read: Read, turn: int) -> float:
    """Songs a second over one epoch; each crop is looked at, so that it is really read."""
    rng = np.random.default_rng(turn)
    order = rng.permutation(config.songs)
    started, total = time.perf_counter(), 0.0
    for at in range(0, config.songs, config.batch):
        songs = order[at : at + config.batch]
        crops = read(songs, rng.integers(0, FRAMES - CROP + 1, len(songs)))
        total += float(crops[:, 0, 0].sum())
    assert np.isfinite(total)
    return config.songs / (time.perf_counter() - started)


def recording(song: int) -> AnyArray:
    """Frames (FRAMES, BANDS) of one song: the same in all formats."""
    values: AnyArray = np.random.default_rng(song).standard_normal((FRAMES, BANDS), dtype=np.float32)
    return values.astype(np.float16)


def recordings(songs: int) -> Iterator[AnyArray]:
    """All of them, one after another."""
    return (recording(song) for song in tqdm(range(songs), "write", unit="song"))


def write_raw(folder: Path, songs: int) -> None:
    """One shard, as `data.audio.cache` writes them."""
    with (folder / f"all{SUFFIX}").open("wb") as file:
        for frames in recordings(songs):
            file.write(frames.tobytes())


def read_raw(folder: Path) -> Read:
    """As `data.audio.crops` reads them."""
    lines = Shards(folder, ["all"], np.dtype(np.float16), BANDS).shard(0)

    def read(songs: IntArray, first: IntArray) -> AnyArray:
        return lines[(songs * FRAMES + first)[:, None] + np.arange(CROP)]

    return read


def write_parquet(folder: Path, songs: int) -> None:
    """One table, a recording a row, uncompressed (noise does not compress)."""
    table = pl.DataFrame({"frames": [frames.tobytes() for frames in recordings(songs)]})
    table.write_parquet(folder / "all.parquet", row_group_size=ROW_GROUP, compression="uncompressed")


def read_parquet(folder: Path) -> Read:
    """The row group of each song is read, as there is no finer access."""
    file = pq.ParquetFile(folder / "all.parquet", memory_map=True)

    def read(songs: IntArray, first: IntArray) -> AnyArray:
        made = []
        for song, start in zip(songs, first, strict=True):
            column = file.read_row_group(int(song) // ROW_GROUP, columns=["frames"]).column(0)
            frames = np.frombuffer(column[int(song) % ROW_GROUP].as_buffer(), np.float16).reshape(FRAMES, BANDS)
            made.append(frames[start : start + CROP])
        return np.stack(made)

    return read


def frames_of(song: int) -> dict[str, AnyArray]:
    """A recording as LitData's writer asks for it."""
    return {"frames": recording(song)}


def write_litdata(folder: Path, songs: int) -> None:
    """Chunks of LitData's default size, by one worker."""
    from litdata import optimize

    optimize(frames_of, list(range(songs)), output_dir=str(folder), chunk_bytes=CHUNK, num_workers=1)


def read_litdata(folder: Path) -> Read:
    """By index: the order is ours, as for the others (its own shuffling stays within a few chunks)."""
    from litdata import StreamingDataset

    data = StreamingDataset(str(folder))

    def read(songs: IntArray, first: IntArray) -> AnyArray:
        frames = [data[int(song)]["frames"] for song in songs]
        return np.stack([np.asarray(one)[start : start + CROP] for one, start in zip(frames, first, strict=True)])

    return read


FORMATS: list[tuple[str, Callable[[Path, int], None], Callable[[Path], Read]]] = [
    ("raw", write_raw, read_raw),
    ("parquet", write_parquet, read_parquet),
    ("litdata", write_litdata, read_litdata),
]


if __name__ == "__main__":
    command(main, FormatsConfig, __doc__)
