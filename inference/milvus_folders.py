"""The collection of a folder in Milvus: inside the folder (milvus-lite), or on a server.

A collection's rows are songs or users, with what conditions may name of them. A server keeps one collection a build,
`NAME_ENCODER_NUMBER`; the alias NAME stands for the newest, the last one stays, older ones go. An update changes the
collection itself; inside a folder, a copy of it.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from secrets import token_hex
from typing import Any

import polars as pl

from artifacts.folders import kind_of, read_manifest
from configs.options import MADE_BY
from configs.targeting import IndexConfig, MarginsConfig
from data.arrays import FloatArray, IntArray
from data.conditions import kinds_of, without_nulls
from retrieval.milvus import Connection, MilvusIndex, next_version, publish

TOKEN = "MILVUS_TOKEN"  # environment variable: secrets do not belong into options, which are written down
FORK = "GRPC_ENABLE_FORK_SUPPORT"  # gRPC's handlers of a fork may end a child before exec: Spark's Java did not start
WHERE = ("engine", "uri", "collection", "columns")  # of a manifest


def make_collection(
    config: IndexConfig | MarginsConfig,
    kind: str,
    vectors: FloatArray,
    entries: IntArray,
    about: pl.DataFrame,
    encoder: str,
    to: Path,
) -> tuple[MilvusIndex, dict[str, Any]]:
    """A new collection of vectors, each with its entry and a row of `about`, and what the manifest says of it.

    Raises:
        ValueError: Milvus has no such kind.
        MilvusError: Milvus cannot be reached, or refuses something.
    """
    uri = place(config.uri) or f"milvus-{token_hex(4)}.db"  # whoever has an older one open must not get that again
    connection = connected(uri, to)
    name, values = f"{config.collection}_{encoder}_{next_version(connection, config.collection)}", without_nulls(about)
    columns = kinds_of(values)
    index = MilvusIndex.made(connection, name, kind, vectors, entries, columns, lambda rows: values[rows].to_dicts())
    return index, {"engine": "milvus", "uri": uri, "collection": name, "columns": columns}


def open_collection(manifest: dict[str, Any], folder: Path) -> MilvusIndex:
    """The collection of a folder."""
    connection = connected(manifest["uri"], folder)
    return MilvusIndex(connection, manifest["collection"], manifest["index"], manifest["effort"])


def copy_collection(manifest: dict[str, Any], folder: Path, to: Path) -> dict[str, Any]:
    """The manifest with the collection's copy in another folder, or as it is where a server has the collection."""
    if not inside(manifest["uri"]):
        return manifest
    uri = f"milvus-{token_hex(4)}.db"
    shutil.copytree(folder / manifest["uri"], to / uri)
    return manifest | {"uri": uri}


def let_go(index: MilvusIndex, folder: Path) -> None:
    """End the connection of a collection inside a folder, which is to get another name."""
    if Path(index.connection.uri).parent == folder.resolve():
        index.connection.close()


def publish_collection(config: IndexConfig | MarginsConfig, manifest: dict[str, Any], before: str | None) -> None:
    """Let the alias stand for what is now in use; that of the folder until now stays too."""
    if not inside(manifest["uri"]):
        connection = connected(manifest["uri"], Path(config.out))
        publish(connection, config.collection, manifest["collection"], [before] if before else [])


def collection_of(out: Path, kind: str) -> str | None:
    """The collection of the folder of a kind that is there, if there is one."""
    if kind_of(out) != kind:
        return None
    name: str | None = read_manifest(out, kind, MADE_BY[kind]).get("collection")
    return name


def connected(uri: str, folder: Path) -> Connection:
    """A connection to the Milvus of a folder."""
    os.environ.setdefault(FORK, "0")
    return Connection.to(str(folder.resolve() / uri) if inside(uri) else uri, os.environ.get(TOKEN, ""))


def place(uri: str | None) -> str | None:
    """What is written down of the option: a folder of milvus-lite by its whole path."""
    return str(Path(uri).resolve()) if uri and uri.endswith(".db") else uri


def inside(uri: str) -> bool:
    """Whether it is within its folder."""
    return uri.endswith(".db") and "/" not in uri
