#!/bin/sh
# FAISS: a search among some of an IVF index's vectors looks into one list, however many the index is set to look into.
# Version: faiss-cpu 1.13.0, numpy 2.3.5. Input: 5,000 Gaussian vectors of 32 numbers in 64 lists, index.nprobe=64; 100 queries near
# vectors, k=10; a selector that lets all vectors through, so that the same neighbours are the right ones with it and without.
# Expected: SearchParametersIVF(sel=...) adds the selector to how the index is set. Seen: its own nprobe, of which nothing was said, is 1
# and counts instead of the index's: recall@10 falls from 1 to about .27, and nothing is raised or printed. With nprobe=64 in it, it is 1.
set -eu
at=$(mktemp -d)
trap 'rm -rf "$at"' EXIT
python3 -m venv "$at/venv"
"$at/venv/bin/pip" install --quiet --disable-pip-version-check faiss-cpu==1.13.0 numpy==2.3.5
OMP_NUM_THREADS=1 "$at/venv/bin/python" - <<'PYTHON'
import faiss
import numpy as np

rng = np.random.default_rng(0)
vectors = rng.standard_normal((5000, 32)).astype(np.float32)
queries = vectors[:100] + 0.1 * rng.standard_normal((100, 32)).astype(np.float32)
_, best = faiss.knn(queries, vectors, 10)
lists = faiss.IndexFlatL2(32)
index = faiss.IndexIVFFlat(lists, 32, 64)
index.train(vectors)
index.add(vectors)
index.nprobe = 64
everything = faiss.IDSelectorRange(0, 5000)
recall = {}
for name, params in {
    "no selector": None,
    "a selector": faiss.SearchParametersIVF(sel=everything),
    "a selector and nprobe": faiss.SearchParametersIVF(sel=everything, nprobe=64),
}.items():
    _, found = index.search(queries, 10, params=params)
    recall[name] = float(np.mean([len({*map(int, a)} & {*map(int, b)}) / 10 for a, b in zip(found, best)]))
    print(f"{name}: recall@10 {recall[name]:.3f}")
assert recall["no selector"] == recall["a selector and nprobe"] == 1 and recall["a selector"] < 0.4, "this has changed"
PYTHON
