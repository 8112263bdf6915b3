"""Validate a dataset, split it into known and new songs, mine verified song pairs, decode audio."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from artifacts.fingerprints import CONTENT, of_file, of_table, of_values
from artifacts.folders import scratch, writing
from artifacts.remote import is_remote
from artifacts.tracking import made, tracked, used
from configs.data import PrepareConfig
from configs.errors import UserError
from configs.load import as_dict, recorded
from data import adapters, play_tables, words
from data.arrays import IntArray
from data.audio import cache as audio_cache
from data.audio.recordings import CHANGES, PROBLEMS, REMEDIES, USUAL
from data.catalogue import AUDIO_STATS, KIND, NO_VALIDATION, Catalogue
from data.contract import dataset as contract
from data.contract import play_rules
from data.contract.row_rules import rejection_table
from data.item_pairs import mining as positives
from data.music_folder import Each, Opened, open_file, read_folder
from data.published import files, listenbrainz, mpd, music4all, recbole, yambda
from data.remote_source import READERS, RemoteSource, brought
from data.spark import pairs as spark_pairs
from data.spark import plays as spark_plays
from data.split import COLD_VAL, WARM, Split, released_before, split_songs
from data.tags import join_tags
from data.text import song_texts, unknown_share

# Columns of songs.parquet that say where sound lies; checksums of it are part of the fingerprint by themselves.
PLACES = ("audio_shard", "audio_start", "audio_mix", "audio_content")
PUBLISHED = {"lfm2k": adapters.read_lfm2k, "hetrec": adapters.read_hetrec}
CONVERTED = {  # written as a dataset folder first
    "yambda": yambda.read,
    "recbole": recbole.read,
    "music4all": music4all.read,
    "listenbrainz": listenbrainz.read,
    "mpd": mpd.read,
}


@tracked("prepare")
def prepare(config: PrepareConfig, run: Any) -> None:
    """Run `pipeline.prepare` (its docstring says what it reads and writes)."""
    remote = is_remote(config.source)
    manifest: dict[str, Any] = {"source": config.source if remote else str(Path(config.source).resolve())}
    manifest["options"] = recorded(config)
    with scratch(config.out) as aside, writing(config.out, KIND, manifest) as folder:
        there = RemoteSource.listed(config.source, aside) if remote else None
        dataset, later = until(read(config, aside, there), config.split.until)
        how = config.split
        split = split_songs(dataset.songs, how.by, how.cutoff, how.cold_share, how.seed, dataset.zone)
        plays_S, dropped = write_plays(dataset, split, folder, aside, config)
        songs, tag_counts = join_tags(dataset, split)
        songs = songs.with_columns(pl.Series("split", split.of_song, dtype=pl.String), pl.Series("popularity", plays_S))
        songs, problems, heard, shards = cache_audio(songs, config, there)
        pairs, evidence = training_pairs(folder, dataset, split, config)
        val_pairs = validation_pairs(folder, dataset.users.height, split, config)
        tables = {"songs": songs, "users": dataset.users, "pairs": pairs.frame(), "val_pairs": val_pairs}
        write_tables(folder, tables, dataset.features)
        manifest |= {"audio": as_dict(config.audio) | audio_counts(heard), "audio_shards": shards}
        write_statistics(Catalogue(folder, manifest))

        rejected = dataset.rejected | problems
        manifest |= {
            "counts": counts(songs, folder, dataset.users)
            | {"songs_left_out_by_until": later, "warm_plays_after_cutoff_left_out": dropped}
            | tag_counts,
            "split": {"by": split.by, "cutoff": split.cutoff and split.cutoff.isoformat(), "zone": split.zone},
            CONTENT: content(folder, config, heard.content),
            "pairs": evidence | {"val_pairs": val_pairs.height},
            "rejected": rejected,
            "ignored_columns": dataset.ignored_columns,
            "notes": dataset.notes
            + [NO_VALIDATION] * (not val_pairs.height)
            + audio_notes(heard, songs)
            + text_notes(songs, config.text_model),
        }
    used(run, None if remote else config.source)
    made(run, config.out, config.logger.upload)
    print(summary(manifest, config.out))


def read(config: PrepareConfig, aside: Path, there: RemoteSource | None) -> contract.Dataset:
    """Read and check the source; plays beyond `memory_gb`, those read by Spark, and the tables of a source in an object
    store are written to `aside`."""
    if there is None:
        return read_source(config, Path(config.source), aside)
    source = there.tables(music=config.format == "folder")
    try:
        with ThreadPoolExecutor(READERS) as readers:
            return read_source(config, source, aside, there.opened, readers.map)
    except UserError as error:
        raise UserError(str(error).replace(str(source), config.source)) from None


def read_source(
    config: PrepareConfig, source: Path, aside: Path, opened: Opened = open_file, each: Each = map
) -> contract.Dataset:
    """Read and check a source on disk; `opened` and `each` as of `read_folder`."""
    found = files.Found()
    if config.format in PUBLISHED:
        return PUBLISHED[config.format](source)
    if config.format in CONVERTED:
        found = files.convert(CONVERTED[config.format], source, aside / "dataset")
        source = aside / "dataset"
    if config.engine == "spark":
        log = contract.plays_files(source, config.plays)
        check = partial(spark_plays.check_plays, spark_plays.connect(config.spark.master), log, aside)
    else:
        check = partial(play_rules.usable_plays, memory_gb=config.memory_gb, aside=aside)
    check = partial(check, repeats=config.repeats)
    if config.format == "folder":
        return read_folder(source, config.plays, check, config.folder_ids, opened, each)
    dataset = contract.read_dataset(source, config.plays, check)
    return replace(dataset, rejected=found.rejected | dataset.rejected, notes=found.notes + dataset.notes)


def write_plays(
    dataset: contract.Dataset, split: Split, folder: Path, aside: Path, config: PrepareConfig
) -> tuple[IntArray, int]:
    """Write the tables of plays with the chosen engine; returns as `play_tables.write_plays`."""
    of = (dataset.songs, dataset.users, split, folder, aside)
    if config.engine == "spark":
        return spark_plays.write_plays(spark_plays.connect(config.spark.master), dataset.parts[0], *of)
    return play_tables.write_plays(dataset.parts, *of)


def until(dataset: contract.Dataset, date: str | None) -> tuple[contract.Dataset, int]:
    """Drop songs released on or after a date, and with them their plays; also returns how many songs were dropped."""
    kept = released_before(dataset.songs, date, dataset.zone)
    features = {name: vectors[kept] for name, vectors in dataset.features.items()}
    return replace(dataset, songs=dataset.songs.filter(kept), features=features), int((~kept).sum())


def cache_audio(
    songs: pl.DataFrame, config: PrepareConfig, there: RemoteSource | None
) -> tuple[pl.DataFrame, dict[str, Any], audio_cache.Cached, dict[str, Any]]:
    """Decode recordings missing from the cache; songs with an unusable file are kept without audio and reported."""
    source, out, elsewhere = Path(config.source), Path(config.out), audio_cache.Elsewhere()
    place = there.recording if there else source.joinpath
    recordings = [place(path) if path is not None else None for path in songs["audio_path"]]
    if there:
        elsewhere = audio_cache.Elsewhere(there.states(), partial(brought, uri=there.uri, aside=there.aside))
    options = as_dict(config.audio)
    cache, verify = Path(options.pop("cache") or f"{out}_audio"), options.pop("verify")
    cached = audio_cache.cached(recordings, cache, options, config.workers, verify, elsewhere)
    named = {
        f"audio: {reason}": {
            "count": len(rows),
            "examples": [songs["song_id"][row] for row in rows[:5]],
            "what": f"songs without audio, {reason}: {PROBLEMS[reason]} ({REMEDIES[reason]})",
        }
        for reason, rows in cached.problems.items()
    }
    columns: dict[str, Any] = {"audio_shard": cached.shard, "audio_start": cached.start, "audio_length": cached.length}
    # of a shard of an earlier version no recording has a checksum of its own
    columns["audio_content"] = pl.Series(cached.content, dtype=pl.String).cast(pl.Int64, strict=False)
    if options["store"] == "files":
        columns["audio_mix"] = pl.Series(cached.mix, dtype=pl.List(pl.Float64))
    # The relative path survives moving both folders together, the absolute one moving the catalogue alone.
    folders = [os.path.relpath(cache.resolve(), out.resolve()), str(cache.resolve())]
    shards = {"folders": folders, "names": cached.shards} if cached.shards else {}
    return songs.with_columns(pl.Series(name, values) for name, values in columns.items()), named, cached, shards


def audio_counts(heard: audio_cache.Cached) -> dict[str, int]:
    """How many recordings were changed, by what was done to them."""
    return {name: len(rows) for name, rows in heard.changes.items()}


def audio_notes(heard: audio_cache.Cached, songs: pl.DataFrame) -> list[str]:
    """Notes of what was done to recordings, where that is unusual."""
    return [
        f"audio: {len(rows)} {CHANGES[name]}, e.g. {', '.join(songs['song_id'][row] for row in rows[:3])}"
        for name, rows in heard.changes.items()
        if rows and name not in USUAL
    ]


def training_pairs(
    folder: Path, dataset: contract.Dataset, split: Split, config: PrepareConfig
) -> tuple[positives.Pairs, dict[str, Any]]:
    """Mine verified positives for the song encoder; returns them with counts of the evidence.

    Raises:
        UserError: the requested evidence is missing, or no pair is left.
    """
    feedback = None if dataset.feedback is None else index_feedback(dataset.feedback, dataset.songs, split)
    shape = (dataset.users.height, dataset.songs.height)
    if config.engine == "spark":
        spark = spark_plays.connect(config.spark.master)
        pairs, evidence = spark_pairs.mine(spark, folder, feedback, shape, config.pairs, config.split.seed)
    else:
        plays = pl.scan_parquet(folder / "plays.parquet", glob=False)
        pairs, evidence = positives.mine(plays, feedback, shape, config.pairs, config.split.seed)
    if not len(pairs):
        print(rejection_table(dataset.rejected))
        cutoff = "choose a later split.cutoff (or split.by=random), " if split.by == "time" else ""
        raise UserError(
            f"no song pair is left to learn from ({evidence}): {cutoff}lower pairs.min_common, raise pairs.drop_above, "
            "or check that plays.parquet has users with several songs"
        )
    return pairs, evidence


def index_feedback(feedback: pl.DataFrame, songs: pl.DataFrame, split: Split) -> pl.DataFrame:
    """Restrict `i2i_feedback` to known songs, and replace ids by row numbers."""
    song_of = songs.select("song_id").with_row_index("song").filter(pl.Series(split.of_song == WARM))
    for side, key in (("source", "source_song_id"), ("target", "recommended_song_id")):
        feedback = feedback.join(song_of.rename({"song_id": key, "song": side}), on=key)
    return feedback


def validation_pairs(folder: Path, n_users: int, split: Split, config: PrepareConfig) -> pl.DataFrame:
    """Pair each validation song with warm songs of the same listeners, from held-out plays; never trained on."""
    of = (folder, np.flatnonzero(split.of_song == COLD_VAL), (n_users, len(split.of_song)), config.pairs.top_k)
    if config.engine == "spark":
        return spark_pairs.validation_pairs(spark_plays.connect(config.spark.master), *of).frame()
    return positives.validation_pairs(*of).frame()


def write_tables(folder: Path, tables: dict[str, pl.DataFrame], features: dict[str, np.ndarray]) -> None:
    """Write `<name>.parquet` of each table, and `features/<name>.npy`."""
    for name, table in tables.items():
        table.write_parquet(folder / f"{name}.parquet")
    (folder / "features").mkdir()
    for name, vectors in features.items():
        np.save(folder / "features" / f"{name}.npy", vectors)


def write_statistics(catalogue: Catalogue) -> None:
    """Write the field that is made of decoded audio, if there is any."""
    if catalogue.audio_shards() is None:
        return
    from data.audio.statistics import catalogue_statistics  # here: it imports torch, half a gigabyte

    np.save(catalogue.folder / "features" / f"{AUDIO_STATS}.npy", catalogue_statistics(catalogue))


def content(folder: Path, config: PrepareConfig, heard: list[str | None]) -> str:
    """Fingerprint of a catalogue: its tables, vectors and recordings, but not where shards lie and how they are cut."""
    tables = {path.name: of_table(path, PLACES) for path in sorted(folder.glob("*.parquet"))}
    vectors = {path.name: of_file(path) for path in sorted((folder / "features").glob("*.npy"))}
    if f"{AUDIO_STATS}.npy" in vectors:
        from data.audio.statistics import VERSION

        vectors[f"{AUDIO_STATS}.npy"] = str(VERSION)  # they follow from what was heard, to the last bit or nearly
    audio = {name: value for name, value in as_dict(config.audio).items() if name not in ("cache", "verify")}
    return of_values(tables, vectors, audio, heard)


def counts(songs: pl.DataFrame, folder: Path, users: pl.DataFrame) -> dict[str, int]:
    """Counts for the manifest."""
    warm, cold = (
        pl.scan_parquet(folder / f"{name}.parquet", glob=False).select(pl.len()).collect().item()
        for name in ("plays", "cold_plays")
    )
    by_split = {f"songs_{name}": n for name, n in songs["split"].value_counts().iter_rows()}
    return {
        "songs": songs.height,
        **dict(sorted(by_split.items())),
        "songs_with_audio": int((songs["audio_length"] > 0).sum()),
        "songs_with_a_training_play": int((songs["popularity"] > 0).sum()),
        "users": users.height,
        "training_plays": warm,
        "held_out_plays_of_cold_songs": cold,
    }


def text_notes(songs: pl.DataFrame, model: str) -> list[str]:
    """Note what of titles and lyrics is not read, and whether the text encoder's vocabulary covers their language."""
    made = words.notes(songs)
    if not songs["title"].count() + songs["lyrics"].count():
        return made
    texts = [text for text in song_texts(songs, ["title", "lyrics"]) if text]
    share = unknown_share(texts, model) if texts else 0.0
    if share > 0.2:
        unknown = f"{share:.0%} of the text's words and characters are unknown to text_model={model}"
        made.append(f"{unknown}: choose an encoder for this language (docs/data.md lists those of text.model)")
    return made


def summary(manifest: dict[str, Any], out: str) -> str:
    """Summary printed at the end."""
    lines = [f"  {key.replace('_', ' '):<36} {value:>10,}" for key, value in manifest["counts"].items()]
    pairs = ", ".join(f"{key} {value}" for key, value in manifest["pairs"].items())
    lines += [f"  pairs: {pairs}", rejection_table(manifest["rejected"])]
    lines += [f"  note: {note}" for note in manifest["notes"]]
    return "\n".join([f"{out}: split by {manifest['split']['by']}", *[line for line in lines if line]])
