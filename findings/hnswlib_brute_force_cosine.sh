#!/bin/sh
# hnswlib: cosine distances of the exact index count the length of the query, those of the approximate index do not.
# Version: hnswlib 0.8.0, numpy 2.4.6. Input: 1,000 vectors in an Index and in a BFIndex with space="cosine"; the ten nearest of 100
# queries of lengths 3.5 to 6.6, and of the same queries at a third of their length.
# Expected: 1 - cosine by both, whatever the length: .28 to .58, of ten songs 5.2 nearer than .5. Seen: that by Index; BFIndex, which is
# there to compare with, gives 1 - length times cosine, in the same order: -2.99 to -.52, at a third -.33 to .49, all ten nearer than
# .5. Songs are given the length 1, queries are not.
set -eu
at=$(mktemp -d)
trap 'rm -rf "$at"' EXIT
python3 -m venv "$at/venv"
"$at/venv/bin/pip" install --quiet --disable-pip-version-check hnswlib==0.8.0 numpy==2.4.6
"$at/venv/bin/python" - <<'PYTHON'
import hnswlib
import numpy as np

rng = np.random.default_rng(0)
songs, queries = (rng.standard_normal((n, 24)).astype(np.float32) for n in (1000, 100))
unit = [each / np.linalg.norm(each, axis=1, keepdims=True) for each in (songs, queries)]
cosine, length = unit[1] @ unit[0].T, np.linalg.norm(queries, axis=1)
places = np.argsort(-cosine, axis=1)[:, :10]
true = 1 - np.take_along_axis(cosine, places, 1)
seen = {}
for kind in (hnswlib.Index, hnswlib.BFIndex):
    index = kind(space="cosine", dim=24)
    index.init_index(max_elements=1000)
    index.add_items(songs, np.arange(1000))
    if kind is hnswlib.Index:
        index.set_ef(1000)
    for name, scale in (("queries", 1), ("a third of them", np.float32(1 / 3))):
        found, seen[kind.__name__, name] = index.knn_query(queries * scale, k=10)
        distance = seen[kind.__name__, name]
        assert np.array_equal(found, places), "the songs are not the nearest ones"
        print(f"{kind.__name__}, {name}: distances {distance.min():.2f} to {distance.max():.2f}, {(distance < 0.5).sum(1).mean():.1f} of 10 below .5")
print(f"1 - cosine: {true.min():.2f} to {true.max():.2f}, {(true < 0.5).sum(1).mean():.1f} of 10 below .5; lengths {length.min():.1f} to {length.max():.1f}")
for (kind, name), distance in seen.items():
    scale = (length if name == "queries" else length / 3) if kind == "BFIndex" else np.ones(100)
    assert np.allclose(distance, 1 - scale[:, None] * (1 - true), atol=1e-4), "this has changed"
PYTHON
