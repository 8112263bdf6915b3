#!/bin/sh
# lancedb: once a table has an index, its cosine distances are twice as large, and a limit on them finds other songs.
# Version: lancedb 0.40.0, pyarrow 26.0.1, numpy 2.3.5. Input: 5,000 vectors of 16 dimensions at random, one of them asked for; those of a
# cosine distance below .5, without an index and with one of IVF_FLAT, IVF_SQ or IVF_PQ, all of whose lists are searched.
# Expected: `_distance` is 1 − cosine, about the same with any index; the cosine distance "has a range of [0, 2]", says IvfPq's docstring.
# Seen: so without an index and with IVF_FLAT: 83 songs are below .5. With IVF_SQ and IVF_PQ `_distance` is the squared distance of unit
# vectors, 2 − 2 cosine: the song itself is all that is below .5.
set -eu
at=$(mktemp -d)
trap 'rm -rf "$at"' EXIT
python3 -m venv "$at/venv"
"$at/venv/bin/pip" install --quiet --disable-pip-version-check lancedb==0.40.0 pyarrow==26.0.1 numpy==2.3.5
cd "$at"
"$at/venv/bin/python" -W ignore - <<'PYTHON'
import lancedb
import numpy as np
import pyarrow as pa

vectors = np.random.default_rng(0).normal(size=(5000, 16)).astype(np.float32)
column = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), 16)
table = lancedb.connect("songs.lance").create_table("songs", pa.table({"song": range(5000), "vector": column}))
unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
distance = 1 - unit @ unit[7]
seen = {}
for index in (None, "IVF_FLAT", "IVF_SQ", "IVF_PQ"):
    if index:
        parts = {"num_sub_vectors": 16} if index == "IVF_PQ" else {}
        table.create_index(metric="cosine", num_partitions=4, index_type=index, replace=True, **parts)
    search = table.search(vectors[7]).distance_type("cosine").nprobes(4)
    rows = search.limit(1000).to_list()
    times = float(np.median([row["_distance"] / distance[row["song"]] for row in rows if row["song"] != 7]))
    near = table.search(vectors[7]).distance_type("cosine").nprobes(4).distance_range(upper_bound=0.5).limit(1000).to_list()
    seen[index] = round(times, 1), len(near)
    print(f"{index or 'no index'}: distances are {times:.2f} times 1 - cosine; {len(near)} of {(distance < 0.5).sum()} songs below .5")
assert seen[None] == seen["IVF_FLAT"] == (1, (distance < 0.5).sum()), "this has changed"
assert seen["IVF_SQ"] == seen["IVF_PQ"] == (2, 1), "this has changed"
PYTHON
