"""Memory and time of `prepare` on the public data sets that it reads: generated files of the published form.

    OMP_NUM_THREADS=1 python -m benchmarks.speed.public_sets plays=1000000 memory_gb=0.2 out=runs/public_sets.json

Every format has a log with long tails of users and of songs. Reading alone, and the whole of `prepare`, are processes
of their own, so that their peak memory is their own. Written: size of the files, seconds, memory before (that of the
program) and at most, and the plays that are kept.
"""

from __future__ import annotations

import bz2
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from benchmarks.measure import memory, tell, timed
from configs.data import PrepareConfig
from configs.errors import UserError
from configs.load import command
from configs.options import opt

CHUNK = 100_000
START = 1_600_000_000  # Unix time, seconds
DAYS = 300


@dataclass
class PublicSetsConfig:
    """Options of this benchmark."""

    formats: list[str] = opt(["yambda", "recbole", "music4all", "listenbrainz", "mpd"], "formats to read")
    plays: int = opt(1_000_000, "rows of each log")
    users: int = opt(15_000, "listeners, or playlists")
    songs: int = opt(50_000, "songs")
    dim: int = opt(128, "numbers of a vector, where the format has vectors")
    memory_gb: float = opt(0.2, "memory_gb of prepare")
    work: str = opt("runs/public_sets", "folder for the files and catalogues, emptied at the end")
    seed: int = opt(0, "seed of the logs")
    out: str | None = opt(None, "JSON file to write")
    stage: str | None = opt(None, "one stage of one format, in this process (what the benchmark calls itself with)")


def main(config: PublicSetsConfig) -> None:
    """Run the command (see the module's docstring)."""
    if unknown := [name for name in config.formats if name not in WRITERS]:
        raise UserError(f"formats={unknown}: known are {', '.join(WRITERS)}")
    if config.stage:
        print(json.dumps(STAGES[config.stage](config, config.formats[0])))
        return
    tell(config, {name: of_format(config, name) for name in config.formats})


def of_format(config: PublicSetsConfig, name: str) -> dict[str, Any]:
    """Generate the files of a format, read and prepare them."""
    source = Path(config.work) / name
    shutil.rmtree(source, ignore_errors=True)
    source.mkdir(parents=True)
    try:
        WRITERS[name](source, log_of(config), config)
        size = sum(path.stat().st_size for path in source.rglob("*") if path.is_file())
        return {"files_mb": round(size / 1e6)} | {stage: alone(stage, config, name) for stage in STAGES}
    finally:
        shutil.rmtree(source)


def alone(stage: str, config: PublicSetsConfig, name: str) -> dict[str, Any]:
    """A stage in a process of its own: what it prints last."""
    options = [f"stage={stage}", f"formats=[{name}]", f"work={config.work}", f"memory_gb={config.memory_gb}"]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.speed.public_sets", *options], capture_output=True, text=True
    )
    if done.returncode:
        raise UserError(f"stage={stage} of format={name} failed: {done.stderr.strip().splitlines()[-1]}")
    return dict(json.loads(done.stdout.splitlines()[-1]))


def read(config: PublicSetsConfig, name: str) -> dict[str, Any]:
    """The files as a dataset folder."""
    from data.preparation import CONVERTED
    from data.published.files import convert

    source = Path(config.work) / name
    found: dict[str, Any] = {"memory_before_mb": memory("VmRSS")}
    with timed(found, "seconds"):
        convert(CONVERTED[name], source, source / "dataset")
    shutil.rmtree(source / "dataset")
    return found | {"peak_memory_mb": memory("VmHWM")}


def prepared(config: PublicSetsConfig, name: str) -> dict[str, Any]:
    """The whole command."""
    from data.preparation import prepare

    source = Path(config.work) / name
    out = source / "catalogue"
    options: dict[str, Any] = {"source": str(source), "out": str(out), "format": name}
    found: dict[str, Any] = {"memory_before_mb": memory("VmRSS")}
    with timed(found, "seconds"):
        prepare(PrepareConfig(**options, memory_gb=config.memory_gb))
    counts = json.loads((out / "manifest.json").read_text())["counts"]
    kept = counts["training_plays"] + counts["held_out_plays_of_cold_songs"]
    return found | {"peak_memory_mb": memory("VmHWM"), "songs": counts["songs"], "plays_kept": kept}


STAGES: dict[str, Callable[[PublicSetsConfig, str], dict[str, Any]]] = {"read": read, "prepare": prepared}


# ------------------------------------------------------------------------------------------------- files


def log_of(config: PublicSetsConfig) -> pl.DataFrame:
    """A log sorted by user and time: `user`, `song`, and a `second` of DAYS days."""
    rng = np.random.default_rng(config.seed)
    activity_U = np.cumsum(rng.pareto(1.5, config.users) + 0.5)
    drawn = {
        "user": np.searchsorted(activity_U, rng.random(config.plays) * activity_U[-1]),
        "song": rng.permutation(config.songs)[(rng.random(config.plays) ** 2.5 * config.songs).astype(np.int64)],
        "second": rng.integers(0, DAYS * 86_400 // 5, config.plays) * 5,
    }
    return pl.DataFrame(drawn).sort("user", "second")


def vectors(config: PublicSetsConfig) -> np.ndarray:
    """A vector of each song."""
    return np.random.default_rng(config.seed).normal(size=(config.songs, config.dim)).astype(np.float32)


def write_yambda(folder: Path, log: pl.DataFrame, config: PublicSetsConfig) -> None:
    """Write the flat files of one size, with likes of every fiftieth listen, and the vectors of all songs."""
    number = pl.int_range(pl.len())
    event = log.select(
        uid=pl.col("user").cast(pl.UInt32),
        timestamp=pl.col("second").cast(pl.UInt32),
        item_id=pl.col("song").cast(pl.UInt32),
        is_organic=(number % 3 > 0).cast(pl.UInt8),
    )
    ratio, length = (number * 37 % 120).cast(pl.UInt16), pl.lit(200, pl.UInt32)
    listens = event.with_columns(played_ratio_pct=ratio, track_length_seconds=length)
    listens.write_parquet(folder / "listens.parquet")
    for at, (name, every) in enumerate({"likes": 50, "dislikes": 200, "unlikes": 500, "undislikes": 900}.items()):
        event.gather_every(every, at).with_columns(pl.col("timestamp") + 5).write_parquet(folder / f"{name}.parquet")
    songs = np.arange(config.songs)
    pl.DataFrame({"artist_id": songs // 8, "item_id": songs}).write_parquet(folder / "artist_item_mapping.parquet")
    table = pl.DataFrame({"item_id": songs, "normalized_embed": vectors(config)})
    table.with_columns(pl.col("normalized_embed").arr.to_list()).write_parquet(folder / "embeddings.parquet")


def write_recbole(folder: Path, log: pl.DataFrame, config: PublicSetsConfig) -> None:
    """Write NAME.inter, NAME.item with a vector, and NAME.user."""
    names = {"user": "user_id:token", "song": "item_id:token", "second": "timestamp:float"}
    log.with_columns(pl.col("second") + START).rename(names).write_csv(folder / "made.inter", separator="\t")
    numbers = pl.DataFrame({"v": vectors(config).round(4)})["v"].arr.to_list().cast(pl.List(pl.String)).list.join(" ")
    song = pl.Series("item_id:token", np.arange(config.songs))
    items = pl.DataFrame([song, numbers.alias("emb:float_seq")]).with_columns(
        pl.format("Song {}", "item_id:token").alias("title:token_seq"),
        pl.format("genre{} of", pl.col("item_id:token") % 20).alias("genre:token_seq"),
    )
    items.write_csv(folder / "made.item", separator="\t")
    user = pl.Series("user_id:token", np.arange(config.users))
    pl.DataFrame([user, (user % 50).cast(pl.Float64).alias("age:float")]).write_csv(
        folder / "made.user", separator="\t"
    )


def write_music4all(folder: Path, log: pl.DataFrame, config: PublicSetsConfig) -> None:
    """Write Onion's log and vectors, .bz2, and tables of the base set."""
    song = pl.col("song").cast(pl.String).str.zfill(16)
    years = START + (pl.col("second") - DAYS * 86_400) * 16  # 13 of them, since releases are of a year
    at = pl.from_epoch(years).dt.strftime("%Y-%m-%d %H:%M:%S")
    with bz2.open(folder / "userid_trackid_timestamp.tsv.bz2", "wb", compresslevel=1) as file:
        for rows in log.iter_slices(CHUNK):
            table = rows.select(user_id=pl.format("user_{}", "user"), track_id=song, timestamp=at)
            file.write(table.write_csv(separator="\t", include_header=file.tell() == 0).encode())
    songs = pl.DataFrame({"song": np.arange(config.songs)})
    ids = songs.select(id=song)
    numbers = pl.DataFrame(vectors(config).round(4), schema=[str(number) for number in range(config.dim)])
    text = pl.concat([ids, numbers], how="horizontal").write_csv(separator="\t")
    (folder / "id_lyrics_bert.tsv.bz2").write_bytes(bz2.compress(text.encode(), 1))
    about = songs.select(id=song, artist=pl.format("A{}", pl.col("song") // 8), song=pl.format("Song {}", "song"))
    about.with_columns(album_name=pl.lit("Album")).write_csv(folder / "id_information.csv", separator="\t")
    year = songs.select(id=song, release=1990 + pl.col("song") % 31)
    year.write_csv(folder / "id_metadata.csv", separator="\t")


def write_listenbrainz(folder: Path, log: pl.DataFrame, config: PublicSetsConfig) -> None:
    """Write a dump in JSON lines, a file for each 100,000 listens; a third of the listens names no recording."""
    text = (
        '{"listened_at":{},"user_id":{},"user_name":"user {}","recording_msid":"5d5a2ba8-{}","track_metadata":'
        '{"artist_name":"Artist {}","track_name":"Song {}","release_name":"Some album","additional_info":'
        '{"recording_mbid":"{}","artist_mbids":["0a1b2c3d-0000-4107-b9cd-ab1b2c6adb0a"],"duration_ms":200000,'
        '"submission_client":"client","submission_client_version":"1.0","music_service":"example.org"}}}'
    )
    parts = text.split("{}")
    mbid = pl.format("c605c224-245b-4107-b9cd-{}", pl.col("song").cast(pl.String).str.zfill(12))
    known = pl.when(pl.int_range(pl.len()) % 3 > 0).then(mbid).otherwise(pl.lit(""))
    song = pl.col("song")
    values = [pl.col("second") + START, pl.col("user"), pl.col("user"), song, song // 8, song, known]
    whole = [value for pair in zip(map(pl.lit, parts), values, strict=False) for value in pair] + [pl.lit(parts[-1])]
    for number, rows in enumerate(log.sort("second").iter_slices(CHUNK)):
        path = folder / "listens" / "2020" / f"{number + 1}.listens"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(rows.select(pl.concat_str(whole)).to_series().to_list()) + "\n")


def write_mpd(folder: Path, log: pl.DataFrame, config: PublicSetsConfig) -> None:
    """Write slices of a thousand playlists."""
    uri = pl.format("spotify:track:{}", pl.col("song").cast(pl.String).str.zfill(22))
    artist = pl.format("spotify:artist:{}", (pl.col("song") // 8).cast(pl.String).str.zfill(22))
    track = pl.struct(
        pos=pl.int_range(pl.len()).over("user"), track_uri=uri, artist_uri=artist, duration_ms=pl.lit(200_000),
        artist_name=pl.format("Artist {}", pl.col("song") // 8), track_name=pl.format("Song {}", "song"),
        album_uri=pl.lit("spotify:album:0000000000000000000000"), album_name=pl.lit("Some album"),
    )  # fmt: skip
    for first in range(0, config.users, 1000):
        rows = log.filter(pl.col("user").is_between(first, first + 999)).select("user", track=track)
        lists = rows.group_by(pid="user", maintain_order=True).agg(tracks="track")
        about = {"collaborative": pl.lit("false"), "modified_at": pl.lit(1493424000), "num_edits": pl.lit(6)}
        lists = lists.with_columns(name=pl.format("List {}", pl.col("pid") % 99), **about)
        text = f'{{"info": {{"slice": "{first}-{first + 999}"}}, "playlists": {lists.write_json()}}}'
        (folder / f"mpd.slice.{first}-{first + 999}.json").write_text(text)


WRITERS: dict[str, Callable[[Path, pl.DataFrame, PublicSetsConfig], None]] = {
    "yambda": write_yambda,
    "recbole": write_recbole,
    "music4all": write_music4all,
    "listenbrainz": write_listenbrainz,
    "mpd": write_mpd,
}


if __name__ == "__main__":
    command(main, PublicSetsConfig, __doc__)
