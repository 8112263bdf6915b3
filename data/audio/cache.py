"""Decoded audio on disk, in shards: a recording is decoded once, for all epochs and for all catalogues made of it.

A cache folder holds pairs of files. `<name>-<crc32>.raw` holds many recordings one after another, log-mel frames
(float16) or samples (int16), memory-mapped when read; the `.parquet` beside it says which recording is where. The table
is written last, so that a shard without one was never finished: a killed command loses at most one shard's work. What
has changed on disk (path, size or time of change) is decoded again. With audio.store=files the `.raw` are empty: what
is kept is whether a recording can be used, and where in its file the part is that is heard.
"""

from __future__ import annotations

import hashlib
import os
import uuid
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from artifacts.folders import MANIFEST, PART, check_replaceable, read_manifest, remove_left, write_manifest
from configs.errors import UserError
from data.arrays import IntArray
from data.audio.recordings import CHANGES, Bring, Kept, decoded, step_type
from data.audio.shards import SUFFIX

KIND = "audio cache"
SHARD_BYTES = 256 * 2**20  # 1,300 recordings of 30 s as log-mel, 280 as samples: few files, little lost by a kill
ENDS = 2**16  # bytes
NO_SHARD = -1
DECODER = 2  # version of what judges recordings: what another one has refused is tried again
TRIED_AGAIN = ("missing", "unreadable", "damaged")  # a disk may have been away
OF_FRAMES = ("n_mels", "win_length", "hop_length")  # samples do not depend on these
KEY = ["path", "size", "changed_ns"]  # what a recording is recognised by
SCHEMA = {"path": pl.String, "size": pl.Int64, "changed_ns": pl.Int64, "start": pl.Int64, "length": pl.Int64}
SCHEMA |= {"problem": pl.String, **dict.fromkeys(CHANGES, pl.Boolean()), "content": pl.Int64}
SCHEMA |= {"place": pl.Int64, "mix": pl.List(pl.Float64), "decoder": pl.Int64}


@dataclass
class Cached:
    """Where N recordings are: number of the shard (−1: none), first step, number of steps; and what was found.

    A step along time is a log-mel frame or a sample. With audio.store=files `start` counts samples of the file, at its
    own rate, and `mix` has the weights of its channels, else None. `content` is a checksum of each recording, None
    where unused. `problems` and `changes` have rows by their kind (PROBLEMS and CHANGES).
    """

    shard: IntArray
    start: IntArray
    length: IntArray
    shards: list[str]
    problems: dict[str, list[int]]
    changes: dict[str, list[int]]
    content: list[str | None]
    mix: list[list[float] | None]


@dataclass(frozen=True)
class Elsewhere:
    """Recordings that are no files here: size and time of change by address, and how one becomes a file for a while."""

    states: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    bring: Bring = nullcontext


def cached(
    files: Sequence[Path | str | None],
    folder: Path,
    options: dict[str, Any],
    workers: int,
    verify: bool,
    elsewhere: Elsewhere = Elsewhere(),
) -> Cached:
    """Every recording, decoded in parallel where it is not in the cache yet.

    Args:
        files: one a song: a path, or an address `elsewhere`; None where it has no recording.
        folder: of the cache; made where there is none.
        options, workers: as `data.audio.recordings.decoded`.
        verify: compare checksums of all shards; else only that they have their size.
        elsewhere: what is at the addresses.

    Raises:
        UserError: the folder is something else, or was decoded with other options.
    """
    if any(file is not None for file in files):
        open_cache(folder, options)
    decode = partial(decode_into, folder, options=options, workers=workers, bring=elsewhere.bring)
    for lost in damaged(folder, options, verify, elsewhere.states):
        decode(lost)  # one by one: the same files make the same shard again
    wanted = wanted_files(files, elsewhere.states)
    known = read_tables(folder)
    new = wanted.join(known, on=KEY, how="anti").unique(KEY, maintain_order=True)
    if new.height:
        failed = decode(new)
        known = pl.concat([read_tables(folder), failed], how="diagonal")
    found = wanted.join(known.unique(KEY, keep="first"), on=KEY, how="left")
    given = pl.DataFrame({"row": np.arange(len(files)), "given": [file is not None for file in files]})
    found = given.join(found, on="row", how="left", maintain_order="left")
    return located(found, options["store"] == "files")


def located(found: pl.DataFrame, stays: bool) -> Cached:
    """Where recordings are and what was found, from the rows of the tables; `stays`: their sound is in their files."""
    heard = pl.col("length") > 0
    shards = [] if stays else found.filter(heard)["shard"].unique().sort().to_list()
    number = pl.col("shard").replace_strict(shards, range(len(shards)), default=NO_SHARD, return_dtype=pl.Int64)
    # A shard of an earlier version has no checksums of its recordings, but one of all of them in its name.
    content = pl.coalesce(pl.col("content").cast(pl.String), pl.concat_str("shard", "start", separator=":"))
    found = found.with_columns(
        pl.col("place" if stays else "start").fill_null(0).alias("start"),
        pl.col("length").fill_null(0),
        number=pl.when(heard).then(number).otherwise(NO_SHARD),
        content=pl.when(heard).then(content),
        mix=pl.when(heard & stays).then(pl.col("mix")),
    )
    shard, start, length = (found[name].to_numpy() for name in ("number", "start", "length"))
    unusable = found.drop_nulls("problem").group_by("problem", maintain_order=True)
    problems = {str(name): group["row"].to_list() for (name,), group in unusable}
    gone = pl.col("given") & (pl.col("size").is_null() | pl.col("problem").eq_missing("missing"))
    missing = found.filter(gone)["row"].to_list()
    problems |= {"missing": missing} if missing else {}
    changes = {name: found.filter(heard & pl.col(name).fill_null(False))["row"].to_list() for name in CHANGES}
    return Cached(shard, start, length, shards, problems, changes, found["content"].to_list(), found["mix"].to_list())


def of_ends(path: Path) -> str:
    """A file's size and a checksum of its two ends: what it holds, without reading all of it."""
    size = path.stat().st_size
    with path.open("rb") as file:
        crc = zlib.crc32(file.read(ENDS))
        file.seek(max(0, size - ENDS))
        return f"{size}-{zlib.crc32(file.read(ENDS), crc):08x}"


def open_cache(folder: Path, options: dict[str, Any]) -> None:
    """Make the folder, or see that it was decoded with the same options; remove what a kill left a day ago or more."""
    if options["store"] != "logmel":
        options = {name: value for name, value in options.items() if name not in OF_FRAMES}
    remove_left(folder)
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


def wanted_files(files: Sequence[Path | str | None], states: Mapping[str, tuple[int, int]]) -> pl.DataFrame:
    """row, path (or address), size and time of change of every recording that is there."""
    there = ((row, state_of(file, states)) for row, file in enumerate(files) if file is not None)
    rows = [(row, *state) for row, state in there if state is not None]
    return pl.DataFrame(rows, schema={"row": pl.Int64, **{name: SCHEMA[name] for name in KEY}}, orient="row")


def state_of(file: Path | str, states: Mapping[str, tuple[int, int]]) -> tuple[str, int, int] | None:
    """What a recording is recognised by; None where it is not there."""
    if isinstance(file, str):
        return (file, *states[file]) if file in states else None
    if not file.is_file():
        return None
    state = file.stat()
    return str(file.resolve()), state.st_size, state.st_mtime_ns


def as_given(path: str) -> Path | str:
    """What a table calls a path: one, or an address, which alone has two slashes."""
    return path if "://" in path else Path(path)


def read_tables(folder: Path) -> pl.DataFrame:
    """What all finished shards hold, with the name of the shard, but for what another decoder has refused."""
    tables = [
        pl.read_parquet(path, glob=False).with_columns(shard=pl.lit(path.stem))
        for path in sorted(folder.glob("*.parquet"))
    ]
    found = pl.concat([pl.DataFrame(schema=SCHEMA | {"shard": pl.String}), *tables], how="diagonal")
    return found.filter(pl.col("problem").is_null() | (pl.col("decoder") == DECODER).fill_null(False))


def decode_into(
    folder: Path, files: pl.DataFrame, options: dict[str, Any], workers: int, bring: Bring = nullcontext
) -> pl.DataFrame:
    """Decode files and write them in shards, each one whole as soon as it is full.

    Returns the files that could not be read, as `read_tables` would have them. They are in no shard, and are tried
    again the next time: a disk may have been away, or a library too old.
    """
    shard, failed = Shard(folder), []
    keys = files.select(KEY).iter_rows()
    try:
        found = decoded([as_given(one) for one in files["path"]], options, workers, bring)
        for key, kept in zip(keys, found, strict=True):
            if kept.problem in TRIED_AGAIN:
                failed.append(dict(zip(KEY, key, strict=True)) | {"length": 0, "problem": kept.problem})
                continue
            shard.add(key, kept)
            if shard.bytes >= SHARD_BYTES:
                shard.finish()
                shard = Shard(folder)
        shard.finish()
    finally:
        shard.discard()
    return pl.DataFrame(failed, schema=SCHEMA | {"shard": pl.String})


class Shard:
    """One shard that is being written."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.aside = folder / f"{uuid.uuid4().hex[:12]}{SUFFIX}{PART}"  # two commands may fill one cache
        self.file = self.aside.open("wb")
        self.rows: list[tuple[Any, ...]] = []
        self.bytes = self.steps = self.crc = 0

    def add(self, key: tuple[Any, ...], kept: Kept) -> None:
        """Append one recording's frames or samples, or why it has none."""
        data = kept.steps.tobytes()
        self.file.write(data)
        length = len(kept.steps)
        changed = (name in kept.changes for name in CHANGES)
        place = (kept.place.start, list(kept.place.mix_C), DECODER)
        self.rows.append((*key, self.steps, length, kept.problem, *changed, kept.content, *place))
        self.bytes, self.steps, self.crc = self.bytes + len(data), self.steps + length, zlib.crc32(data, self.crc)

    def finish(self) -> None:
        """Data first, then the table: only with it the shard counts."""
        self.file.flush()
        os.fsync(self.file.fileno())
        self.file.close()
        if not self.rows:
            return
        # The same recordings under the same paths make the same shard, whenever their files were written.
        held = [(path, *what) for path, _, _, *what in self.rows]
        name = f"{hashlib.sha256(repr(held).encode()).hexdigest()[:12]}-{self.crc:08x}"
        self.aside.rename(self.folder / f"{name}{SUFFIX}")
        table = pl.DataFrame(self.rows, schema=SCHEMA, orient="row")
        table.write_parquet(self.aside)  # its name is this command's own, and free again
        self.aside.rename(self.folder / f"{name}.parquet")

    def discard(self) -> None:
        """Remove what is not finished."""
        self.file.close()
        self.aside.unlink(missing_ok=True)


def damaged(
    folder: Path, options: dict[str, Any], verify: bool, states: Mapping[str, tuple[int, int]]
) -> Iterator[pl.DataFrame]:
    """The files of each shard that is gone, cut short or, if asked, changed; the shard is removed.

    All of its files that are still as they were, whoever needs them: decoded again in their order they make a shard of
    the same name, so that other catalogues find it again.
    """
    dtype, width = step_type(options)
    for table in sorted(folder.glob("*.parquet")):
        data = table.with_suffix(SUFFIX)
        try:
            rows = pl.read_parquet(table, glob=False)
            expected = dtype.itemsize * width * int(rows["length"].sum())
            whole = data.exists() and data.stat().st_size == expected
        except (OSError, pl.exceptions.PolarsError):
            rows, whole = pl.DataFrame(schema=SCHEMA), False
        if not whole or (verify and f"{checksum(data):08x}" != table.stem.rpartition("-")[2]):
            print(f"{data} is damaged: its recordings are decoded again")
            table.unlink(missing_ok=True)
            data.unlink(missing_ok=True)
            files = wanted_files([as_given(one) for one in rows["path"]], states)
            still = files.join(rows, on=KEY, how="semi", maintain_order="left")
            if still.height:
                yield still


def checksum(path: Path) -> int:
    """CRC-32 of a file."""
    crc = 0
    with path.open("rb") as file:
        while block := file.read(2**24):
            crc = zlib.crc32(block, crc)
    return crc
