#!/bin/sh
# scann: places of a batch's results that stay empty are filled with song 0.
# Version: scann 1.4.2, numpy 2.4.6. Input: 3,000 vectors in a tree of 100 leaves, of which one is looked into
# (tree(100, 1).score_brute_force()); the 100 best by inner product of 100 queries, by search_batched, and of each alone by search.
# Expected: the songs of the leaf, as many as there are (search gives 3 to 91 to a query), and for other places a number that no song has.
# Seen: search_batched gives all queries as many places as the longest list has; .43 to .62 of them (in ten runs: the tree is another
# each time) are empty, have the score NaN and name song 0, so that 90 to 99 queries have song 0 among their songs; by search five at most.
set -eu
at=$(mktemp -d)
trap 'rm -rf "$at"' EXIT
python3 -m venv "$at/venv"
"$at/venv/bin/pip" install --quiet --disable-pip-version-check scann==1.4.2 numpy==2.4.6
"$at/venv/bin/python" - <<'PYTHON'
import numpy as np
import scann

rng = np.random.default_rng(0)
songs, queries = (rng.standard_normal((n, 32)).astype(np.float32) for n in (3000, 100))
songs *= rng.uniform(0.3, 3, (3000, 1)).astype(np.float32)
index = scann.scann_ops_pybind.builder(songs, 100, "dot_product").tree(100, 1, training_sample_size=3000).score_brute_force().build()
found, scores = index.search_batched(queries)
empty = np.isnan(scores)
singly = [index.search(query)[0] for query in queries]
print(f"{empty.mean():.2f} of {found.size} places are empty; they name song {sorted(set(found[empty].tolist()))}")
print(f"song 0 is among the songs of {(found == 0).any(1).sum()} queries in a batch, of {sum(0 in each for each in singly)} singly")
print(f"search gives {min(map(len, singly))} to {max(map(len, singly))} songs a query")
assert np.allclose(scores[~empty], np.take_along_axis(queries @ songs.T, found.astype(int), 1)[~empty], atol=1e-3), "scores are no inner products"
assert empty.mean() > 0.3 and set(found[empty].tolist()) == {0}, "this has changed"
assert (found == 0).any(1).sum() > 80 and sum(0 in each for each in singly) < 20, "this has changed"
PYTHON
