#!/bin/sh
# cornac: the AUC of a model that gives all songs the same score is 0.
# Version: cornac 3.0.1, scikit-learn 1.7.2, numpy 2.3.5. Input: one user with ten right songs among 100; scores that are all the same, that
# are 1 for half of the songs and 0 for the others, at random (as of a neighbourhood model, which knows little of most songs), or all
# different.
# Expected: .5, about .5, and as by scikit-learn: the area under the ROC curve is the chance that a right song is above a wrong one, a tie
# counting half. Seen: 0, .31 where it is .56, and as by scikit-learn: a tie counts as lost. MAP, beside it, gives ties their share.
set -eu
at=$(mktemp -d)
trap 'rm -rf "$at"' EXIT
python3 -m venv "$at/venv"
"$at/venv/bin/pip" install --quiet --disable-pip-version-check cornac==3.0.1 scikit-learn==1.7.2 numpy==2.3.5
"$at/venv/bin/python" -W ignore - <<'PYTHON'
import numpy as np
from cornac.metrics import AUC, MAP
from sklearn.metrics import average_precision_score, roc_auc_score

rng = np.random.default_rng(0)
songs = np.arange(100)
right = rng.choice(100, 10, replace=False)
label = np.isin(songs, right)
seen = {}
for name, score in (("the same", np.zeros(100)), ("1 or 0", rng.permutation(songs % 2).astype(float)), ("different", rng.normal(size=100))):
    said = {"gt_pos": right, "gt_neg": songs[~label], "pd_rank": np.argsort(-score), "pd_scores": score, "item_indices": songs}
    seen[name] = float(AUC().compute(**said)), float(roc_auc_score(label, score))
    print(f"scores {name}: AUC {seen[name][0]:.2f}, by scikit-learn {seen[name][1]:.2f}")
    assert abs(MAP().compute(**said) - average_precision_score(label, score)) < 1e-9
assert seen["the same"] == (0, 0.5) and abs(seen["different"][0] - seen["different"][1]) < 1e-9, "this has changed"
assert seen["1 or 0"][1] - seen["1 or 0"][0] > 0.2, "this has changed"
PYTHON
