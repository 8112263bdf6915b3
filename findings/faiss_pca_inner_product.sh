#!/bin/sh
# faiss: behind a PCA that keeps all dimensions an exact search by inner product finds a quarter of the ten best.
# Version: faiss-cpu 1.13.0, numpy 2.3.5. Input: 1,000 vectors and 50 queries of 32 dimensions at random, around 0 and around 1 (vectors of
# real encoders share a mean too); index_factory's "Flat", "PCA32,Flat" and "RR32,Flat" with METRIC_INNER_PRODUCT and METRIC_L2.
# Expected: a rotation keeps inner products: recall@10 is 1, as with a random rotation (RR32). Seen: .24 with a mean of 1: PCA subtracts the
# mean from vectors and from queries, which distances bear and inner products do not. Nothing warns of the two together.
set -eu
at=$(mktemp -d)
trap 'rm -rf "$at"' EXIT
python3 -m venv "$at/venv"
"$at/venv/bin/pip" install --quiet --disable-pip-version-check faiss-cpu==1.13.0 numpy==2.3.5
OMP_NUM_THREADS=1 "$at/venv/bin/python" - <<'PYTHON'
import faiss
import numpy as np

rng = np.random.default_rng(0)
measures = {"inner product": faiss.METRIC_INNER_PRODUCT, "L2": faiss.METRIC_L2}
seen = {}
for mean in (0, 1):
    vectors, queries = ((rng.normal(size=(rows, 32)) + mean).astype(np.float32) for rows in (1000, 50))
    for name, measure in measures.items():
        found = []
        for parts in ("Flat", "PCA32,Flat", "RR32,Flat"):
            index = faiss.index_factory(32, parts, measure)
            index.train(vectors)
            index.add(vectors)
            found.append(index.search(queries, 10)[1])
        seen[mean, name] = [float(np.mean([len({*a} & {*b}) / 10 for a, b in zip(found[0], other)])) for other in found[1:]]
        print(f"mean {mean}, {name}: recall@10 {seen[mean, name][0]:.2f} with PCA, {seen[mean, name][1]:.2f} with a random rotation")
assert all(rotated > 0.99 for _, rotated in seen.values()) and seen[0, "L2"][0] > 0.99 < seen[1, "L2"][0]
assert seen[0, "inner product"][0] > 0.9 and 0.1 < seen[1, "inner product"][0] < 0.5, "this has changed"
PYTHON
