#!/bin/sh
# milvus-lite: what MilvusClient says of how an index is to be built (nlist, M, efConstruction) is overlooked, without a word.
# Version: milvus-lite 3.2.2, pymilvus 3.0.2, faiss-cpu 1.15.1. Input: 20,000 vectors of 32 numbers, IVF_FLAT with nlist=1000, then
# searched with nprobe=1. MilvusClient sends nlist as a key of its own, as a server reads it; milvus-lite reads the key "params" alone.
# Expected: 1,000 lists, of which one is looked into. Seen: 128 lists (the default), so that nprobe=1 looks at eight times as many
# vectors; describe_index names no nlist. With params={"params": {"nlist": 1000}} there are 1,000.
set -eu
at=$(mktemp -d)
trap 'rm -rf "$at"' EXIT
python3 -m venv "$at/venv"
"$at/venv/bin/pip" install --quiet --disable-pip-version-check milvus-lite==3.2.2 pymilvus==3.0.2 faiss-cpu==1.15.1
cd "$at"
"$at/venv/bin/python" - <<'PYTHON'
import numpy as np
from pymilvus import DataType, MilvusClient

vectors = np.random.default_rng(0).standard_normal((20_000, 32)).astype(np.float32)
client = MilvusClient("a.db")
told = {}
for name, params in (("as documented", {"nlist": 1000}), ("nested", {"params": {"nlist": 1000}})):
    collection = name.replace(" ", "_")
    schema = client.create_schema(auto_id=False)
    schema.add_field("id", DataType.INT64, is_primary=True)
    schema.add_field("vector", DataType.FLOAT_VECTOR, dim=32)
    client.create_collection(collection, schema=schema)
    client.insert(collection, [{"id": at, "vector": one} for at, one in enumerate(vectors)])
    client.flush(collection)
    index = client.prepare_index_params()
    index.add_index("vector", index_type="IVF_FLAT", metric_type="L2", params=params)
    client.create_index(collection, index)
    client.load_collection(collection)
    limit, how = 16_384, {"params": {"nprobe": 1}}
    found = client.search(collection, list(vectors[:50]), limit=limit, output_fields=["id"], search_params=how)
    told[name] = client.describe_index(collection, "vector").get("params"), float(np.mean([len(one) for one in found]))
    print(f"{name}: describe_index says {told[name][0]}; one list holds {told[name][1]:.0f} vectors, mean of 50")
assert told["nested"][0] == {"nlist": 1000} and told["nested"][1] < 60, "this has changed"
assert told["as documented"][0] is None and told["as documented"][1] > 100, "this has changed"
PYTHON
