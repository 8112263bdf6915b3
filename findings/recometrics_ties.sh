#!/bin/sh
# recometrics: the noise that breaks ties breaks none in single precision: what ties with everything has one AUC, .31 or .71, for all seeds.
# Version: recometrics 0.1.6.post13, numpy 1.26.4, pandas 3.0.6, scipy 1.17.1. Input: a user's scores of 200 songs, 199 of them 1, in
# float32 and float64; the test songs are ten of the first or ten of the last of these; calc_reco_metrics with
# break_ties_with_noise=True (its default) and 100 seeds.
# Expected: ties are broken at random: 100 AUCs, whose mean is about .5. Seen so in float64; in float32 all seeds give .309 for the first
# ten, .707 for the last: the noise, up to 1e-12, is lost when it is added to 1 (float32 has steps of 1.2e-7), and the order is that of
# the sort. In float64 so are scores of a million.
set -eu
at=$(mktemp -d)
trap 'rm -rf "$at"' EXIT
python3 -m venv "$at/venv"
"$at/venv/bin/pip" install --quiet --disable-pip-version-check recometrics==0.1.6.post13 numpy==1.26.4 pandas==3.0.6 scipy==1.17.1
"$at/venv/bin/python" - <<'PYTHON'
import numpy as np
import recometrics
from scipy.sparse import csr_matrix

seen = {}
for kind, score in ((np.float32, 1), (np.float64, 1), (np.float64, 1_000_000)):
    songs = np.full((200, 1), score, kind)
    songs[-1] = 2 * score
    for first in (0, 180):
        test = csr_matrix((np.ones(10), (np.zeros(10, int), np.arange(first, first + 10))), shape=(1, 200))
        auc = [
            float(recometrics.calc_reco_metrics(None, test, np.ones((1, 1), kind), songs, k=10, roc_auc=True, nthreads=1, seed=seed)["ROC_AUC"].iloc[0])
            for seed in range(1, 101)
        ]
        seen[kind.__name__, score, first] = auc
        print(f"{kind.__name__}, scores {score:,}, songs from {first}: {len(set(auc))} AUCs, {min(auc):.3f} to {max(auc):.3f}, mean {np.mean(auc):.3f}")
for (kind, score, first), auc in seen.items():
    if kind == "float64" and score == 1:
        assert len(set(auc)) > 80 and abs(np.mean(auc) - 0.5) < 0.05, "ties are not broken at random in double precision"
    else:
        assert len(set(auc)) == 1 and abs(auc[0] - (0.707 if first else 0.309)) < 0.001, "this has changed"
PYTHON
