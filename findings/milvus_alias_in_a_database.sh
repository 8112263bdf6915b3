#!/bin/sh
# Milvus: asked in one database what an alias stands for, describe_alias names a collection of another database.
# Version: Milvus server 2.3.5 (PyPI's package milvus, Linux on x86-64), pymilvus 3.0.2. Input: the database "default" with a collection
# default_1, the database "music" with a collection music_1, each of three vectors and with the alias "songs". The server listens until
# the script ends.
# Expected: in "music" the alias "songs" is music_1, as describe_collection("songs") and a search by the alias have it. Seen:
# describe_alias says default_1, and list_aliases("music_1") that there is no such collection: both look in the default database,
# whatever the connection's. Without an alias of that name there, an alias that is used is said not to be.
set -eu
at=$(mktemp -d)
trap 'rm -rf "$at"' EXIT
python3 -m venv "$at/venv"
"$at/venv/bin/pip" install --quiet --disable-pip-version-check milvus==2.3.5 pymilvus==3.0.2
cd "$at"
"$at/venv/bin/python" - <<'PYTHON'
import logging

import milvus
from pymilvus import MilvusClient, MilvusException

logging.getLogger("pymilvus").setLevel(logging.CRITICAL)  # the refusal is printed below
server = milvus.MilvusServer(milvus.MilvusServerConfig())
server.set_base_dir("data")
told = {}


def said(ask):
    try:
        return ask()
    except MilvusException as error:
        return error.message


with server:
    uri = f"http://127.0.0.1:{server.listen_port}"
    MilvusClient(uri).create_database("music")
    for database in ("default", "music"):
        client, name = MilvusClient(uri, db_name=database), f"{database}_1"
        client.create_collection(name, dimension=2)
        client.create_alias(name, "songs")
        client.insert(name, [{"id": at, "vector": [1.0, at]} for at in range(3)])
        told[database] = (
            len(client.search("songs", [[1.0, 2.0]], limit=3, consistency_level="Strong")[0]),
            client.describe_collection("songs")["collection_name"],
            said(lambda: client.describe_alias("songs")["collection_name"]),
            said(lambda: client.list_aliases(name)["aliases"]),
        )
        print(f"in {database}: a search by the alias finds {told[database][0]}; describe_collection, describe_alias, "
              f"list_aliases: {told[database][1:]}")
assert told["default"] == (3, "default_1", "default_1", ["songs"]), "this has changed"
assert told["music"][:3] == (3, "music_1", "default_1") and "not found" in told["music"][3], "this has changed"
PYTHON
