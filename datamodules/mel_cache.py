"""Log-mel frames on disk, in shards: a recording is decoded once, for all epochs and for all catalogues made of it.

A cache folder holds pairs of files. `<name>-<crc32>.f16` are frames of many recordings one after another, raw float16,
memory-mapped when read; the `.parquet` beside it says which recording is where. The table is written last, so that a
shard without one was never finished: a killed command loses at most one shard's work. What has changed on disk (path,
size or time of change) is decoded again.
"""

from __future__ import annotations

import hashlib
import os
import time
import uuid
import zlib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from configs.errors import UserError
from datamodules.arrays import AnyArray, IntArray
from datamodules.audio import decoded
from datamodules.folders import MANIFEST, PART, check_replaceable, read_manifest, write_manifest

KIND = "audio cache"
SHARD_BYTES = 256 * 2**20  # some 1,300 recordings of 30 s: few files, and little lost by a kill
NO_SHARD = -1
TRIED_AGAIN = ("unreadable", "truncated")
LEFT_SECONDS = 24 * 3600
KEY = ["path", "size", "changed_ns"]  # what a recording is recognised by
SCHEMA = {
    **{"path": pl.String, "size": pl.Int64, "changed_ns": pl.Int64},
    **{"start": pl.Int64, "frames": pl.Int64, "problem": pl.String, "resampled": pl.Boolean, "downmixed": pl.Boolean},
}


@dataclass
class Cached:
    """Where the frames of N recordings are: number of the shard (−1: none), first frame, frames; and what was found."""

    shard: IntArray
    start: IntArray
    frames: IntArray
    shards: list[str]
    problems: dict[str, list[int]]
    info: dict[str, int]


def cached(paths: Sequence[Path | None], folder: Path, options: dict[str, Any], workers: int, verify: bool) -> Cached:
    """Every recording's frames, decoded in parallel where they are not in the cache yet.

    Args:
        paths: one a song; None where it has no recording.
        folder: of the cache; made where there is none.
        options: sample_rate, n_mels, win_length, hop_length, max_seconds, min_seconds.
        workers: decoding processes of one thread each (0: in this process).
        verify: compare checksums of all shards; else only that they have their size.

    Raises:
        UserError: the folder is something else, or was decoded with other options.
    """
    open_cache(folder, options)
    for files in damaged(folder, int(options["n_mels"]), verify):
        decode_into(folder, files, options, workers)  # one by one: the same files make the same shard again
    wanted = wanted_files(paths)
    known = read_tables(folder)
    new = wanted.join(known, on=KEY, how="anti").unique(KEY, maintain_order=True)
    if new.height:
        failed = decode_into(folder, new, options, workers)
        known = pl.concat([read_tables(folder), failed])
    found = wanted.join(known.unique(KEY, keep="first"), on=KEY, how="left", maintain_order="left")
    used = sorted(found.filter(pl.col("frames") > 0)["shard"].unique().to_list())
    number = {name: at for at, name in enumerate(used)}
    shard, start, frames = np.full(len(paths), NO_SHARD), np.zeros(len(paths), int), np.zeros(len(paths), int)
    rows, heard = found["row"].to_numpy(), found["frames"].fill_null(0).to_numpy()
    numbers = found["shard"].replace_strict(number, default=NO_SHARD, return_dtype=pl.Int64).to_numpy()
    shard[rows] = np.where(heard > 0, numbers, NO_SHARD)
    start[rows], frames[rows] = found["start"].fill_null(0).to_numpy(), heard
    problems = {str(name): group["row"].to_list() for (name,), group in found.group_by("problem") if name is not None}
    missing = [row for row, path in enumerate(paths) if path is not None and not path.is_file()]
    used_rows = found.filter(pl.col("frames") > 0)
    info = {name: int(used_rows[name].sum()) for name in ("resampled", "downmixed")}
    return Cached(shard, start, frames, used, problems | ({"missing": missing} if missing else {}), info)


def open_cache(folder: Path, options: dict[str, Any]) -> None:
    """Make the folder, or see that it was decoded with the same options; remove what a kill left a day ago or more."""
    for path in folder.glob(f"*{PART}"):
        with suppress(FileNotFoundError):  # another command may be finishing it
            if time.time() - path.stat().st_mtime > LEFT_SECONDS:
                path.unlink()
    if (folder / MANIFEST).exists():
        made = read_manifest(folder, KIND, "python -m pipeline.prepare").get("options")
        if made != options:
            raise UserError(
                f"{folder} was decoded with other audio.* options: choose another audio.cache= or remove it"
            )
        return
    check_replaceable(folder, KIND)
    folder.mkdir(parents=True, exist_ok=True)
    write_manifest(folder, KIND, {"options": options})


def wanted_files(paths: Sequence[Path | None]) -> pl.DataFrame:
    """row, path, size and time of change of every recording that is there."""
    rows = []
    for row, path in enumerate(paths):
        if path is not None and path.is_file():
            state = path.stat()
            rows.append((row, str(path.resolve()), state.st_size, state.st_mtime_ns))
    return pl.DataFrame(rows, schema={"row": pl.Int64, **{name: SCHEMA[name] for name in KEY}}, orient="row")


def read_tables(folder: Path) -> pl.DataFrame:
    """What all finished shards hold, with the name of the shard."""
    tables = [pl.read_parquet(path).with_columns(shard=pl.lit(path.stem)) for path in sorted(folder.glob("*.parquet"))]
    return pl.concat(tables) if tables else pl.DataFrame(schema=SCHEMA | {"shard": pl.String})


def decode_into(folder: Path, files: pl.DataFrame, options: dict[str, Any], workers: int) -> pl.DataFrame:
    """Decode files and write them in shards, each one whole as soon as it is full.

    Returns the files that could not be read, as `read_tables` would have them. They are in no shard, and are tried
    again the next time: a disk may have been away, or a library too old.
    """
    shard, failed = Shard(folder), []
    keys = files.select(KEY).iter_rows()
    try:
        found = decoded([Path(one) for one in files["path"]], options, workers)
        for key, (problem, mel_TM, changes) in zip(keys, found, strict=True):
            if problem in TRIED_AGAIN:
                failed.append((*key, 0, 0, problem, False, False, None))
                continue
            shard.add(key, problem, mel_TM, changes)
            if shard.bytes >= SHARD_BYTES:
                shard.finish()
                shard = Shard(folder)
        shard.finish()
    finally:
        shard.discard()
    return pl.DataFrame(failed, schema=SCHEMA | {"shard": pl.String}, orient="row")


class Shard:
    """One shard that is being written."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.aside = folder / f"{uuid.uuid4().hex[:12]}.f16{PART}"  # two commands may fill one cache
        self.file = self.aside.open("wb")
        self.rows: list[tuple[Any, ...]] = []
        self.bytes = self.frames = self.crc = 0

    def add(self, key: tuple[Any, ...], problem: str | None, mel_TM: AnyArray, changes: Sequence[str]) -> None:
        """One recording's frames, or why it has none."""
        data = mel_TM.tobytes()
        self.file.write(data)
        frames = len(mel_TM) if problem is None else 0
        changed = ("resampled" in changes, "downmixed" in changes)
        self.rows.append((*key, self.frames, frames, problem, *changed))
        self.bytes, self.frames, self.crc = self.bytes + len(data), self.frames + frames, zlib.crc32(data, self.crc)

    def finish(self) -> None:
        """Frames first, then the table: only with it the shard counts."""
        self.file.flush()
        os.fsync(self.file.fileno())
        self.file.close()
        if not self.rows:
            return
        # The same files in the same order make the same name, so that a catalogue made again is the same.
        name = f"{hashlib.sha256(repr(self.rows).encode()).hexdigest()[:12]}-{self.crc:08x}"
        self.aside.rename(self.folder / f"{name}.f16")
        table = pl.DataFrame(self.rows, schema=SCHEMA, orient="row")
        table.write_parquet(self.aside)  # its name is this command's own, and free again
        self.aside.rename(self.folder / f"{name}.parquet")

    def discard(self) -> None:
        """Remove what is not finished."""
        self.file.close()
        self.aside.unlink(missing_ok=True)


def damaged(folder: Path, n_mels: int, verify: bool) -> list[pl.DataFrame]:
    """The files of each shard that is gone, cut short or, if asked, changed; the shard is removed.

    All of its files that are still as they were, whoever needs them: decoded again in their order they make a shard of
    the same name, so that other catalogues find it again.
    """
    files = []
    for table in sorted(folder.glob("*.parquet")):
        frames = table.with_suffix(".f16")
        try:
            rows = pl.read_parquet(table)
            expected = 2 * n_mels * int(rows["frames"].sum())
            whole = frames.exists() and frames.stat().st_size == expected
        except (OSError, pl.exceptions.PolarsError):
            rows, whole = pl.DataFrame(schema=SCHEMA), False
        if not whole or (verify and f"{checksum(frames):08x}" != table.stem.rpartition("-")[2]):
            print(f"{frames} is damaged: its recordings are decoded again")
            table.unlink(missing_ok=True)
            frames.unlink(missing_ok=True)
            still = wanted_files([Path(one) for one in rows["path"]]).join(
                rows, on=KEY, how="semi", maintain_order="left"
            )
            files += [still] if still.height else []
    return files


def checksum(path: Path) -> int:
    """CRC-32 of a file."""
    crc = 0
    with path.open("rb") as file:
        while block := file.read(2**24):
            crc = zlib.crc32(block, crc)
    return crc


class LogMel:
    """The shards of a catalogue, each (frames, bands) float16, memory-mapped when first asked for."""

    def __init__(self, folder: Path, shards: Sequence[str], n_mels: int) -> None:
        self.folder, self.shards, self.n_mels = folder, list(shards), n_mels
        self.maps: dict[int, AnyArray] = {}

    def shard(self, number: int) -> AnyArray:
        """Frames of one shard.

        Raises:
            UserError: it is gone.
        """
        if number not in self.maps:
            path = self.folder / f"{self.shards[number]}.f16"
            if not path.exists():
                raise UserError(f"{path} is gone: put the audio cache back, or prepare the catalogue again")
            self.maps[number] = np.memmap(path, dtype=np.float16, mode="r").reshape(-1, self.n_mels)
        return self.maps[number]

    def by_shard(self, shard: IntArray) -> Iterator[tuple[AnyArray, tuple[AnyArray, ...]]]:
        """For each shard that occurs in an array of any shape: its frames, and where in the array it is."""
        for number in np.unique(shard[shard >= 0]):
            yield self.shard(int(number)), np.nonzero(shard == number)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"maps": {}}  # a process that is spawned opens the files itself
