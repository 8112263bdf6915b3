#!/bin/sh
# usearch: with dtype="i8" the inner product ranks by direction alone; how long the vectors were is lost, without a word.
# Version: usearch 2.26.6, numpy 2.3.5. Input: 5,000 vectors of 32 numbers whose lengths differ (log-normal, sigma .7), as song vectors with
# a popularity in their length have them; 200 queries, exact search (no graph), metric="ip".
# Expected: nearly the ten best by inner product, as with bf16 (.999). Seen: .087 of them; .951 of the ten best by cosine.
set -eu
at=$(mktemp -d)
trap 'rm -rf "$at"' EXIT
python3 -m venv "$at/venv"
"$at/venv/bin/pip" install --quiet --disable-pip-version-check usearch==2.26.6 numpy==2.3.5
"$at/venv/bin/python" - <<'PYTHON'
import numpy as np
from usearch.index import Index

rng = np.random.default_rng(0)
direction = rng.standard_normal((5000, 32)).astype(np.float32)
vectors = (direction * rng.lognormal(0, 0.7, 5000)[:, None]).astype(np.float32)
queries = rng.standard_normal((200, 32)).astype(np.float32)
by_product = np.argsort(-(queries @ vectors.T), axis=1)[:, :10]
cosine = queries @ (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).T
by_cosine = np.argsort(-cosine, axis=1)[:, :10]


def share(found, best):
    return float(np.mean([len({*map(int, a)} & {*map(int, b)}) / 10 for a, b in zip(found, best)]))


seen = {}
for dtype in ("f32", "bf16", "i8"):
    index = Index(ndim=32, metric="ip", dtype=dtype)
    index.add(np.arange(len(vectors)), vectors)
    found = index.search(queries, 10, exact=True).keys
    seen[dtype] = share(found, by_product), share(found, by_cosine)
    print(f"{dtype}: {seen[dtype][0]:.3f} of the best by inner product, {seen[dtype][1]:.3f} of the best by cosine")
assert seen["f32"][0] > 0.99 and seen["bf16"][0] > 0.98, "this has changed"
assert seen["i8"][0] < 0.15 and seen["i8"][1] > 0.9, "this has changed"
PYTHON
