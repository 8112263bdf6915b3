#!/bin/sh
# ngt: by inner product, songs whose vectors are longer than those of the first batch are not found by their inner products.
# Version: ngt 2.8.0.post1, numpy 1.26.4. Input: an index with distance_type="Inner Product" of 3,000 vectors of length 1, to which 300 of
# length 3 are added, by batch_insert or one by one; the same in one batch, and with those of length 3 first.
# Expected: the ten largest inner products of 100 queries, by linear_search all of them, in whatever order the vectors came. Seen: 1 in one
# batch and with the long ones first, .34 with the long ones later, by linear_search too, without an error: vectors get a further number
# that makes all as long as the longest of the first batch; for a longer one there is none.
set -eu
at=$(mktemp -d)
trap 'rm -rf "$at"' EXIT
python3 -m venv "$at/venv"
"$at/venv/bin/pip" install --quiet --disable-pip-version-check ngt==2.8.0.post1 numpy==1.26.4
cd "$at"
"$at/venv/bin/python" - <<'PYTHON'
import ngtpy
import numpy as np

rng = np.random.default_rng(0)
short, long, queries = (rng.standard_normal((n, 16)).astype(np.float32) for n in (3000, 300, 100))
short /= np.linalg.norm(short, axis=1, keepdims=True)
long *= 3 / np.linalg.norm(long, axis=1, keepdims=True)


def recall(name, first, later, one_by_one=False):
    ngtpy.create(name, 16, distance_type="Inner Product")
    index = ngtpy.Index(name)
    index.batch_insert(first)
    if one_by_one:
        for vector in later:
            index.insert(vector)
        index.build_index()
    elif len(later):
        index.batch_insert(later)
    exact = np.argsort(-queries @ np.concatenate([first, later]).T, axis=1)[:, :10]
    return [
        np.mean([len({at for at, _ in search(query, 10)} & set(best)) / 10 for query, best in zip(queries, exact.tolist())])
        for search in (index.linear_search, index.search)
    ]


seen = {
    "one batch": recall("one", np.concatenate([short, long]), long[:0]),
    "long ones first": recall("first", long, short),
    "long ones later": recall("later", short, long),
    "long ones later, one by one": recall("singly", short, long, one_by_one=True),
}
for order, (linear, graph) in seen.items():
    print(f"{order}: recall@10 {linear:.3f} by linear_search, {graph:.3f} by search")
for order in ("one batch", "long ones first"):
    assert seen[order][0] == 1 and seen[order][1] > 0.95, "the index does not find these in any order"
for order in ("long ones later", "long ones later, one by one"):
    assert all(0.2 < each < 0.5 for each in seen[order]), "this has changed"
PYTHON
