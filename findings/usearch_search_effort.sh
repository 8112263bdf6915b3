#!/bin/sh
# usearch: an index that is saved and restored searches with less effort, and finds fewer.
# Version: usearch 2.26.6, numpy 2.4.6. Input: 5,000 vectors of 64 numbers in an index with expansion_search=500; 100 queries, k=10; the
# index, saved and opened again by Index.restore("file") and as a view of the file, and loaded into a new index of the same settings.
# Expected: the same recall@10 (1.00) of all. Seen: .94 where it is restored or viewed, since expansion_search is 64 again (and
# expansion_add 128, not 200); what the index says of type and metric is kept. Loaded into an index with the same settings it is 1.00.
set -eu
at=$(mktemp -d)
trap 'rm -rf "$at"' EXIT
python3 -m venv "$at/venv"
"$at/venv/bin/pip" install --quiet --disable-pip-version-check usearch==2.26.6 numpy==2.4.6
cd "$at"
"$at/venv/bin/python" - <<'PYTHON'
import numpy as np
from usearch.index import Index

rng = np.random.default_rng(0)
vectors, queries = (rng.standard_normal((rows, 64)).astype(np.float32) for rows in (5000, 100))
best = np.argsort(((vectors[None] - queries[:, None]) ** 2).sum(2), axis=1)[:, :10]


def new():
    return Index(ndim=64, metric="l2sq", dtype="f32", connectivity=16, expansion_add=200, expansion_search=500)


built = new()
built.add(np.arange(5000), vectors, threads=1)
built.save("songs.usearch")
loaded = new()
loaded.load("songs.usearch")
seen = {}
for name, index in (
    ("built", built), ("loaded", loaded), ("restored", Index.restore("songs.usearch")),
    ("viewed", Index.restore("songs.usearch", view=True)),
):
    found = index.search(queries, 10, threads=1).keys
    recall = float(np.mean([len({*map(int, a)} & {*map(int, b)}) / 10 for a, b in zip(found, best)]))
    seen[name] = index.expansion_search, index.expansion_add, recall
    print(f"{name}: {index.dtype.name}, {index.metric_kind.name}, expansion_search {seen[name][0]}, expansion_add {seen[name][1]}: "
          f"recall@10 {recall:.3f}")
for name, (search, add, recall) in seen.items():
    if name in ("built", "loaded"):
        assert (search, add) == (500, 200) and recall > 0.99, "this has changed"
    else:
        assert (search, add) == (64, 128) and recall < 0.96, "this has changed"
PYTHON
