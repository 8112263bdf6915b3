#!/bin/sh
# voyager: by inner product an index finds less than half of the best where the vectors' lengths differ, with the same settings that find
# all where they do not.
# Version: voyager 2.2.3, numpy 2.3.5. Input: 5,000 vectors of 32 numbers, of about equal lengths and of log-normal ones (sigma .7); 200
# queries, k=10, M=16, ef_construction=400, query_ef=200.
# Expected: a recall near that of equal lengths (.99). Seen: .49; it takes query_ef=5000, which compares nearly all.
set -eu
at=$(mktemp -d)
trap 'rm -rf "$at"' EXIT
python3 -m venv "$at/venv"
"$at/venv/bin/pip" install --quiet --disable-pip-version-check voyager==2.2.3 numpy==2.3.5
"$at/venv/bin/python" - <<'PYTHON'
import numpy as np
import voyager

rng = np.random.default_rng(0)
equal = rng.standard_normal((5000, 32)).astype(np.float32)
uneven = (equal * rng.lognormal(0, 0.7, 5000)[:, None]).astype(np.float32)
queries = rng.standard_normal((200, 32)).astype(np.float32)
seen = {}
for name, vectors in (("equal", equal), ("uneven", uneven)):
    best = np.argsort(-(queries @ vectors.T), axis=1)[:, :10]
    index = voyager.Index(voyager.Space.InnerProduct, 32, M=16, ef_construction=400)
    index.add_items(vectors, num_threads=1)
    for effort in (200, 5000):
        found, _ = index.query(queries, k=10, query_ef=effort)
        seen[name, effort] = float(np.mean([len({*map(int, a)} & {*map(int, b)}) / 10 for a, b in zip(found, best)]))
        print(f"{name} lengths, query_ef={effort}: recall@10 {seen[name, effort]:.3f}")
assert seen["equal", 200] > 0.97 and seen["uneven", 200] < 0.6 and seen["uneven", 5000] > 0.97, "this has changed"
PYTHON
