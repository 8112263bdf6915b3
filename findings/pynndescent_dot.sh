#!/bin/sh
# pynndescent: `metric="dot"` finds a tenth of the ten largest inner products: it ranks by cosine.
# Version: pynndescent 0.7.0, numpy 2.3.5. Input: 4,000 vectors of 32 dimensions at random, of uneven lengths, and 50 queries; searches with
# `metric` "dot", "inner_product" and "cosine".
# Expected: the ten songs with the largest inner products, which is what a dot product is, as with "inner_product"; "dot" is one of the
# metrics in the docstring. Seen: recall@10 is .11 with "dot" and .95 with "inner_product", which the docstring lacks; what "dot" finds is,
# song for song, what "cosine" finds. Nothing warns that vectors are scaled to length 1.
set -eu
at=$(mktemp -d)
trap 'rm -rf "$at"' EXIT
python3 -m venv "$at/venv"
"$at/venv/bin/pip" install --quiet --disable-pip-version-check pynndescent==0.7.0 numpy==2.3.5
"$at/venv/bin/python" -W ignore - <<'PYTHON'
import numpy as np
from pynndescent import NNDescent

rng = np.random.default_rng(0)
vectors = (rng.normal(size=(4000, 32)) * rng.lognormal(0, 0.7, (4000, 1))).astype(np.float32)
queries = rng.normal(size=(50, 32)).astype(np.float32)
best = np.argsort(-(queries @ vectors.T), axis=1)[:, :10]
found, seen = {}, {}
for metric in ("dot", "inner_product", "cosine"):
    found[metric] = NNDescent(vectors, metric=metric, random_state=0, n_jobs=1).query(queries, k=10)[0]
    seen[metric] = float(np.mean([len({*a} & {*b}) / 10 for a, b in zip(best, found[metric])]))
    print(f"{metric}: recall@10 of the largest inner products {seen[metric]:.2f}")
same = float((found["dot"] == found["cosine"]).mean())
print(f"places with the same song by dot and by cosine: {same:.2f}")
assert seen["dot"] < 0.2 and seen["inner_product"] > 0.9 and same > 0.95, "this has changed"
PYTHON
