#!/bin/sh
# implicit: precision_at_k is 1 where every user had one song in the test and got nine wrong ones with it.
# Version: implicit 0.7.3, scipy 1.16.3, numpy 2.3.5. Input: 200 users' plays of 300 songs at random, a factorisation of them; as the test
# set, of each user one song: the last of the ten that the model recommends.
# Expected: precision@10 is .1, one right song of ten, as the name and the docstring ("the calculated p@k") say. Seen: 1. The right ones
# are divided by min(k, the songs that a user has in the test), and users with many songs count more.
set -eu
at=$(mktemp -d)
trap 'rm -rf "$at"' EXIT
python3 -m venv "$at/venv"
"$at/venv/bin/pip" install --quiet --disable-pip-version-check implicit==0.7.3 scipy==1.16.3 numpy==2.3.5
OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 "$at/venv/bin/python" -W ignore - <<'PYTHON'
import numpy as np
from implicit.cpu.als import AlternatingLeastSquares
from implicit.evaluation import precision_at_k
from scipy import sparse

plays = sparse.random(200, 300, 0.1, format="csr", dtype=np.float32, random_state=0)
model = AlternatingLeastSquares(factors=8, iterations=3, random_state=0, num_threads=1)
model.fit(plays, show_progress=False)
users = np.arange(200)
songs, _ = model.recommend(users, plays, N=10)
seen = {}
for name, rows, columns in (
    ("the tenth recommended song", users, songs[:, 9]),
    ("two of the ten", np.repeat(users, 2), songs[:, 8:].ravel()),
):
    test = sparse.csr_matrix((np.ones(len(rows), np.float32), (rows, columns)), shape=plays.shape)
    share = float(np.mean([len({*songs[user]} & {*test[user].indices}) / 10 for user in users]))
    seen[name] = precision_at_k(model, plays, test, K=10, show_progress=False, num_threads=1), share
    print(f"each user listened to {name}: {share:.1f} of the recommended songs, precision_at_k {seen[name][0]:.1f}")
assert list(seen.values()) == [(1, 0.1), (1, 0.2)], "this has changed"
PYTHON
