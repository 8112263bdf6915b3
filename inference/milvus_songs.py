"""The known songs of an index folder in Milvus: inside the folder (milvus-lite), or in a server's collection.

A collection's rows are entries of the index, with what conditions may name of a song. A server keeps one collection a
build, `NAME_ENCODER_NUMBER`; the alias NAME stands for the newest, the last one stays, older ones go. An update changes
the collection itself; inside a folder, a copy of it.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from secrets import token_hex
from typing import Any

import numpy as np
import polars as pl

from artifacts.folders import kind_of, read_manifest
from configs.errors import UserError
from configs.options import INDEX, MADE_BY
from configs.targeting import IndexConfig
from data.arrays import AnyArray, FloatArray, IntArray
from data.catalogue import Catalogue
from data.conditions import columns_of, kinds_of
from data.contract.columns import RESERVED
from retrieval.milvus import ENTRY, VECTOR, Connection, MilvusIndex, next_version, publish

TOKEN = "MILVUS_TOKEN"  # environment variable: secrets do not belong into options, which are written down
FORK = "GRPC_ENABLE_FORK_SUPPORT"  # gRPC's handlers of a fork may end a child before exec: Spark's Java did not start
WHERE = ("engine", "uri", "collection", "columns")  # of a manifest


def about_songs(songs: pl.DataFrame) -> pl.DataFrame:
    """What conditions may name of songs: what their owner says of them, and not what `prepare` counts every day."""
    return columns_of(songs).drop(ENTRY, VECTOR, "split", *RESERVED["songs"], strict=False)


def make_collection(
    config: IndexConfig, catalogue: Catalogue, vectors: FloatArray, entries: IntArray, kind: str, encoder: str, to: Path
) -> tuple[MilvusIndex, dict[str, Any]]:
    """A new collection of the known songs, and what the manifest says of it.

    Raises:
        ValueError: Milvus has no such kind.
        MilvusError: Milvus cannot be reached, or refuses something.
    """
    uri = place(config.uri) or f"milvus-{token_hex(4)}.db"  # whoever has an older one open must not get that again
    connection = connected(uri, to)
    songs, about = np.flatnonzero(entries >= 0), about_songs(catalogue.songs)
    name, columns = f"{config.collection}_{encoder}_{next_version(connection, config.collection)}", kinds_of(about)
    values = about[songs]
    index = MilvusIndex.made(
        connection, name, kind, vectors[songs], entries[songs], columns, lambda rows: values[rows].to_dicts()
    )
    return index, {"engine": "milvus", "uri": uri, "collection": name, "columns": columns}


def open_collection(manifest: dict[str, Any], folder: Path) -> MilvusIndex:
    """The collection of an index folder."""
    connection = connected(manifest["uri"], folder)
    return MilvusIndex(connection, manifest["collection"], manifest["index"], manifest["effort"])


def copy_collection(manifest: dict[str, Any], folder: Path, to: Path) -> dict[str, Any]:
    """The manifest with the collection's copy in another folder, or as it is where a server has the collection."""
    if not inside(manifest["uri"]):
        return manifest
    uri = f"milvus-{token_hex(4)}.db"
    shutil.copytree(folder / manifest["uri"], to / uri)
    return manifest | {"uri": uri}


def values_changed(folder: Path, manifest: dict[str, Any], about: pl.DataFrame, rows: IntArray) -> AnyArray:
    """For which songs something else is to be said than the index folder says in `rows` (−1: it does not know them).

    Raises:
        UserError: the catalogue has other columns than the collection.
    """
    if kinds_of(about) != manifest["columns"]:
        raise UserError(f"{folder} has other columns of songs than the catalogue now: build it anew")
    there = pl.read_parquet(folder / "songs.parquet", columns=about.columns, glob=False)[np.maximum(rows, 0)]
    differs = pl.any_horizontal(pl.col(name).ne_missing(pl.col(f"{name} before")) for name in about.columns)
    both = about.hstack(there.rename(lambda name: f"{name} before"))
    return both.select(differs).to_series().to_numpy() & (rows >= 0)


def change_collection(
    index: MilvusIndex,
    first: int,
    vectors: FloatArray,
    entries: IntArray,
    put: AnyArray,
    gone: IntArray,
    about: pl.DataFrame,
) -> None:
    """Put songs in, new ones or in the place of what was said of them, and take entries out.

    In this order, so that whoever searches meanwhile misses nothing; and again after a kill with the same result: what
    has a number from `first` on is of an update that did not end.
    """
    songs = np.flatnonzero(put)
    values = about[songs]
    index.remove_from(first)
    index.add(vectors[songs], entries[songs], lambda rows: values[rows].to_dicts())
    index.remove(gone)


def publish_collection(config: IndexConfig, manifest: dict[str, Any], before: str | None) -> None:
    """Let the alias stand for what is now in use; that of the folder until now stays too."""
    if not inside(manifest["uri"]):
        connection = connected(manifest["uri"], Path(config.out))
        publish(connection, config.collection, manifest["collection"], [before] if before else [])


def collection_of(out: Path) -> str | None:
    """The collection of the index folder that is there, if there is one."""
    if kind_of(out) != INDEX:
        return None
    name: str | None = read_manifest(out, INDEX, MADE_BY[INDEX]).get("collection")
    return name


def connected(uri: str, folder: Path) -> Connection:
    """A connection to the Milvus of an index folder."""
    os.environ.setdefault(FORK, "0")
    return Connection.to(str(folder.resolve() / uri) if inside(uri) else uri, os.environ.get(TOKEN, ""))


def place(uri: str | None) -> str | None:
    """What is written down of the option: a folder of milvus-lite by its whole path."""
    return str(Path(uri).resolve()) if uri and uri.endswith(".db") else uri


def inside(uri: str) -> bool:
    """Whether it is within its index folder."""
    return uri.endswith(".db") and "/" not in uri
