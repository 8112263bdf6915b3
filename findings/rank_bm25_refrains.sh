#!/bin/sh
# rank_bm25: by BM25L a word that is sung a hundred times counts about a hundred times, and all other words of a query nothing beside it.
# Version: rank-bm25 0.2.2, bm25s 0.3.16, numpy 1.26.4. Input: lyrics of 101 words each: one song sings "la" 100 times, one has "warm",
# "summer" and "rain" once, eight have none of these; the query "warm summer rain la" by BM25Okapi, BM25L and BM25Plus, with their own
# parameters.
# Expected: a word counts at most idf (k1 + 1), however often it is sung (Lv and Zhai, 2011), and the song with three of the four words
# comes first. Seen by BM25L: "la" counts 491, by the paper at most 5.0, and its song comes first with 66 times the score of
# the other; by BM25Okapi, BM25Plus and bm25s's "bm25l" it stays below the bound and comes second. The number of times is a
# factor once more, beside the one that levels off.
set -eu
at=$(mktemp -d)
trap 'rm -rf "$at"' EXIT
python3 -m venv "$at/venv"
"$at/venv/bin/pip" install --quiet --disable-pip-version-check rank-bm25==0.2.2 bm25s==0.3.16 numpy==1.26.4
"$at/venv/bin/python" - <<'PYTHON'
import bm25s
import numpy as np
from rank_bm25 import BM25L, BM25Okapi, BM25Plus

others = iter(range(10_000))
songs = [["la"] * 100 + ["night"], ["warm", "summer", "rain"] + [f"word{next(others)}" for _ in range(98)]]
songs += [[f"word{next(others)}" for _ in range(101)] for _ in range(8)]
query = ["warm", "summer", "rain", "la"]
seen = {}
for kind in (BM25Okapi, BM25L, BM25Plus):
    index = kind(songs)
    seen[kind.__name__] = index.get_scores(query), index.get_scores(["la"])[0] - index.get_scores(["la"])[2], index.idf["la"] * (index.k1 + 1)
index = bm25s.BM25(method="bm25l", k1=1.5, b=0.75, delta=0.5)
index.index(songs, show_progress=False)
alone = index.get_scores(["la"])
seen["bm25s, bm25l"] = index.get_scores(query), alone[0] - alone[2], seen["BM25L"][2]
for name, (scores, counts, bound) in seen.items():
    print(f"{name}: 100 times la {scores[0]:.2f}, warm summer rain {scores[1]:.2f}, neither {scores[2]:.2f}; la alone counts {counts:.2f}, at most {bound:.2f}")
for name, (scores, counts, bound) in seen.items():
    if name == "BM25L":
        assert np.argmax(scores) == 0 and counts > 50 * bound, "this has changed"
    else:
        assert np.argmax(scores) == 1 and counts < bound, "the word counts for more than its bound elsewhere too"
PYTHON
