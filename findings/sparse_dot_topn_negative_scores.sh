#!/bin/sh
# sparse_dot_topn: songs whose score is not above zero are left out of the best, although no threshold is set.
# Version: sparse_dot_topn 1.2.0, scipy 1.17.1, numpy 2.4.6. Input: factors of 50 users and 200 songs, whole numbers, with a constant
# for each song that makes most scores negative; the ten best songs of each user by sp_matmul_topn(users, songs, top_n=10), whose
# threshold is None.
# Expected: ten songs for each user, as with threshold=-1e9 and as the same numbers give in int32. Seen in float32 and float64: no
# user has ten, 25 have fewer (their songs above zero), 25 none, without an error or a warning.
set -eu
at=$(mktemp -d)
trap 'rm -rf "$at"' EXIT
python3 -m venv "$at/venv"
"$at/venv/bin/pip" install --quiet --disable-pip-version-check sparse_dot_topn==1.2.0 scipy==1.17.1 numpy==2.4.6
"$at/venv/bin/python" - <<'PYTHON'
import numpy as np
from scipy.sparse import csr_matrix
from sparse_dot_topn import sp_matmul_topn

rng = np.random.default_rng(0)
users, songs = rng.integers(-9, 10, (50, 8)), rng.integers(-9, 10, (8, 200))
users[:, 0], songs[0] = 10, -20  # the constant
best = np.sort(users @ songs, axis=1)[:, ::-1][:, :10]
seen = {}
for kind in ("float32", "float64", "int32"):
    for threshold in (None, -(10**9)):
        found = sp_matmul_topn(csr_matrix(users.astype(kind)), csr_matrix(songs.astype(kind)), top_n=10, threshold=threshold, sort=True)
        count = np.diff(found.indptr)
        above = np.concatenate([row[:n] for row, n in zip(best, count)])
        assert np.array_equal(found.data, above), "what is found is not the beginning of the ten best"
        seen[kind, threshold] = [int(part.sum()) for part in (count == 10, (count > 0) & (count < 10), count == 0)]
        print(f"{kind}, threshold {threshold}: {seen[kind, threshold]} users have ten songs, fewer, none")
print(f"the best score is above zero for {(best[:, 0] > 0).sum()} of 50 users, the tenth for {(best[:, 9] > 0).sum()}")
assert all(each == ([50, 0, 0] if "int" in kind or threshold else [0, 25, 25]) for (kind, threshold), each in seen.items()), "this has changed"
PYTHON
