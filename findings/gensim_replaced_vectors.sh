#!/bin/sh
# gensim: a song whose vector is replaced keeps its old length: it has a cosine of 20 with the song that it is like.
# Version: gensim 4.4.0, numpy 2.4.6. Input: KeyedVectors of 100 songs; after a first search (most_similar) the vector of song 7 is
# replaced (vectors["song 7"] = …) by one of the direction of song 0 with 20 times its old length, that of song 8 by one of the same
# direction with a twentieth of it.
# Expected: songs 7 and 8 have the cosine 1 with song 0, as similarity() and vectors that were replaced before the first search have it.
# Seen: most_similar gives 20 for song 7 and .05 for song 8, which falls to place 43: lengths are those of before, until fill_norms(force=True).
set -eu
at=$(mktemp -d)
trap 'rm -rf "$at"' EXIT
python3 -m venv "$at/venv"
"$at/venv/bin/pip" install --quiet --disable-pip-version-check gensim==4.4.0 numpy==2.4.6
"$at/venv/bin/python" - <<'PYTHON'
import numpy as np
from gensim.models import KeyedVectors

first = np.random.default_rng(0).standard_normal((100, 16)).astype(np.float32)
length = np.linalg.norm(first, axis=1)
direction = first[0] / length[0]


def searched(vectors):
    found = dict(vectors.most_similar("song 0", topn=99))
    places = list(found)
    return [(round(found[song], 3), places.index(song) + 1) for song in ("song 7", "song 8")]


seen = {}
for order in ("replaced before", "replaced after"):
    vectors = KeyedVectors(16)
    vectors.add_vectors([f"song {row}" for row in range(100)], first)
    if order == "replaced after":
        vectors.most_similar("song 0")
    vectors["song 7"] = direction * length[7] * 20
    vectors["song 8"] = direction * length[8] / 20
    seen[order] = searched(vectors)
    print(f"{order} the first search: cosine and place of songs 7 and 8: {seen[order]}; similarity() "
          f"{[round(float(vectors.similarity('song 0', song)), 3) for song in ('song 7', 'song 8')]}")
vectors.fill_norms(force=True)
seen["lengths anew"] = searched(vectors)
print(f"after fill_norms(force=True): {seen['lengths anew']}")
assert seen["replaced before"] == seen["lengths anew"] == [(1.0, 2), (1.0, 1)], "this has changed"
assert seen["replaced after"] == [(20.0, 1), (0.05, 43)], "this has changed"
PYTHON
