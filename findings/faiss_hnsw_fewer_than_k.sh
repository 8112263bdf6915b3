#!/bin/sh
# FAISS: an HNSW index returns fewer neighbours than asked for, although it holds enough vectors.
# Version: faiss-cpu 1.13.0, numpy 2.3.5. Input: 5,000 Gaussian vectors of 32 numbers, 200 of them as queries.
# Expected: k=1000 gives 1,000 neighbours of each. Seen: with the default efSearch (16) some queries get about half of them,
# the other places are -1, and nothing is raised or printed. k=500 is complete here, and so is k=1000 with efSearch=1000.
set -eu
at=$(mktemp -d)
trap 'rm -rf "$at"' EXIT
python3 -m venv "$at/venv"
"$at/venv/bin/pip" install --quiet --disable-pip-version-check faiss-cpu==1.13.0 numpy==2.3.5
OMP_NUM_THREADS=1 "$at/venv/bin/python" - <<'PYTHON'
import faiss
import numpy as np

vectors = np.random.default_rng(0).standard_normal((5000, 32)).astype(np.float32)
index = faiss.IndexHNSWFlat(32, 32)
index.add(vectors)
found = {}
for k, effort in ((500, 16), (1000, 16), (1000, 1000)):
    index.hnsw.efSearch = effort
    _, neighbours = index.search(vectors[:200], k)
    found[k, effort] = int((neighbours >= 0).sum(axis=1).min())
    print(f"k={k} efSearch={effort}: at least {found[k, effort]} neighbours of each query")
assert found[500, 16] == 500 and found[1000, 1000] == 1000
assert 300 < found[1000, 16] < 700, "this has changed"
PYTHON
