#!/bin/sh
# implicit: songs that are filtered out of a user's recommendations come back where too few others are left, some with a score of 0.
# Version: implicit 0.7.3, scipy 1.16.3, numpy 2.3.5. Input: plays of 20 songs by 50 users, of whom one has played all but two; six
# recommendations of each, with filter_already_liked_items=True ("don't return items present in the training set that were rated by the
# specified user").
# Expected: two songs. Seen: six, four of them played: with the lowest float32 for a score from a factorisation, with 0 from
# CosineRecommender, as a song with no similar one may have too.
set -eu
at=$(mktemp -d)
trap 'rm -rf "$at"' EXIT
python3 -m venv "$at/venv"
"$at/venv/bin/pip" install --quiet --disable-pip-version-check implicit==0.7.3 scipy==1.16.3 numpy==2.3.5
OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 "$at/venv/bin/python" -W ignore - <<'PYTHON'
import numpy as np
from implicit.cpu.als import AlternatingLeastSquares
from implicit.nearest_neighbours import CosineRecommender
from scipy import sparse

played = np.random.default_rng(0).random((50, 20)) < 0.5
played[0] = np.arange(20) < 18
plays = sparse.csr_matrix(played.astype(np.float32))
lowest = {}
for model in (AlternatingLeastSquares(factors=4, iterations=3, random_state=0, num_threads=1), CosineRecommender(K=5)):
    name = type(model).__name__
    model.fit(plays, show_progress=False)
    songs, scores = model.recommend(0, plays[0], N=6, filter_already_liked_items=True)
    known = played[0, songs]
    lowest[name] = int(known.sum()), float(scores[known].max())
    print(f"{name}: songs {songs.tolist()} (18 and 19 are new), scores {[f'{one:.3g}' for one in scores]}")
assert lowest["CosineRecommender"] == (4, 0), "this has changed"
assert lowest["AlternatingLeastSquares"] == (4, float(np.finfo(np.float32).min)), "this has changed"
PYTHON
