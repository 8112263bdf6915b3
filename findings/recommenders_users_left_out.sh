#!/bin/sh
# recommenders: its measures of the same lists are means over different users; R-precision leaves out those without a hit.
# Version: recommenders 1.2.1 (its measures alone, without what they do not need), pandas 2.3.3, scikit-learn 1.7.2, numpy 2.3.5. Input: 100
# users with one song each in the test; ten users' list of ten begins with it, 40 users' lists miss it, 50 users have no list.
# Expected: all means are over the 100 users (.1), or all over the 50 with a list (.2). Seen: NDCG@10 is .1, recall@10 and MAP@10 are .2, and
# R-precision@10 is 1: the mean over the ten users who have a hit. A model that can say nothing of most users, or is often wrong, looks good.
set -eu
at=$(mktemp -d)
trap 'rm -rf "$at"' EXIT
python3 -m venv "$at/venv"
"$at/venv/bin/pip" install --quiet --disable-pip-version-check pandas==2.3.3 scikit-learn==1.7.2 numpy==2.3.5
"$at/venv/bin/pip" install --quiet --disable-pip-version-check --no-deps recommenders==1.2.1
"$at/venv/bin/python" -W ignore - <<'PYTHON'
import pandas as pd
from recommenders.evaluation import python_evaluation as measures

names = {"col_user": "user", "col_item": "song", "col_rating": "rating", "col_prediction": "score"}
heard = pd.DataFrame({"user": range(100), "song": 0, "rating": 1.0})
rows = [(user, place if user < 10 else place + 1, 10.0 - place) for user in range(50) for place in range(10)]
lists = pd.DataFrame(rows, columns=["user", "song", "score"])
seen = {}
for name in ("ndcg_at_k", "recall_at_k", "map_at_k", "r_precision_at_k"):
    seen[name] = float(getattr(measures, name)(heard, lists, k=10, **names))
    print(f"{name}: {seen[name]:.2f}")
expected = {"ndcg_at_k": 0.1, "recall_at_k": 0.2, "map_at_k": 0.2, "r_precision_at_k": 1}
assert all(abs(seen[name] - value) < 1e-6 for name, value in expected.items()), "this has changed"
PYTHON
