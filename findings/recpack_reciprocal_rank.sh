#!/bin/sh
# recpack: the reciprocal rank of a song that is found first is 1 / plays: the more a user played it, the worse.
# Version: recpack 0.3.6 (its measures alone, without what they do not need), scipy 1.13.1, numpy 1.26.4. Input: a user whose one song in the
# test, played once, twice or 20 times, is the first of their list.
# Expected: 1 for reciprocal rank, recall and NDCG, whatever the plays: by the docstrings 1 over the smallest rank of a song with "true user-
# item interactions", and a score that is "always in the interval [0, 1]". Seen: of two plays .5, .5 and .77, of 20 plays .05, .05 and 1.002.
# A matrix of plays (as `InteractionMatrix.values` makes one) is taken without a word; recpack's own pipelines make it ones before.
set -eu
at=$(mktemp -d)
trap 'rm -rf "$at"' EXIT
python3 -m venv "$at/venv"
"$at/venv/bin/pip" install --quiet --disable-pip-version-check scipy==1.13.1 numpy==1.26.4 scikit-learn==1.7.2 pandas==2.3.3 pyyaml==6.0.3
"$at/venv/bin/pip" install --quiet --disable-pip-version-check --no-deps recpack==0.3.6
"$at/venv/bin/python" -W ignore - <<'PYTHON'
import numpy as np
from recpack.metrics import NDCGK, RecallK, ReciprocalRankK
from scipy.sparse import csr_matrix

scores = csr_matrix(np.array([[3.0, 2.0, 1.0] + [0.0] * 17]))
seen = {}
for plays in (1, 2, 20):
    heard = csr_matrix(([float(plays)], ([0], [0])), shape=(1, 20))
    found = []
    for measure in (ReciprocalRankK(10), RecallK(10), NDCGK(10)):
        measure.calculate(heard, scores)
        found.append(float(measure.value))
    seen[plays] = found
    print(f"{plays} plays: reciprocal rank {found[0]:.3f}, recall {found[1]:.3f}, NDCG {found[2]:.3f}")
assert seen[1] == [1, 1, 1] and np.allclose(seen[2], [0.5, 0.5, 0.774], atol=0.001), "this has changed"
assert np.allclose(seen[20], [0.05, 0.05, 1.002], atol=0.001), "this has changed"
PYTHON
