#!/bin/sh
# LightGBM: the NDCG of a ranker that gives all the same score is 1 or 0, by the order of the rows.
# Version: LightGBM 4.7.0, CatBoost 1.2.10, numpy 2.3.5. Input: 50 songs with 20 listeners each to rank, two of them relevant, and one
# feature that is the same everywhere, so that nothing can be learned; relevant rows first (as a log and drawn negatives are written),
# last, or mixed.
# Expected: about the same in any order: the mean over all orders is .28. Seen: 1.000 with relevant rows first, 0 with these last; early
# stopping on it would keep the first tree. CatBoost takes the worst order each time (0).
set -eu
at=$(mktemp -d)
trap 'rm -rf "$at"' EXIT
python3 -m venv "$at/venv"
"$at/venv/bin/pip" install --quiet --disable-pip-version-check lightgbm==4.7.0 catboost==1.2.10 numpy==2.3.5
"$at/venv/bin/python" - <<'PYTHON'
import lightgbm
import numpy as np
from catboost.utils import eval_metric

rng = np.random.default_rng(0)
first = np.tile(np.arange(20) < 2, (50, 1)).astype(np.float32)
songs = np.repeat(np.arange(50), 20)
seen = {}
for name, relevant in {"first": first, "last": first[:, ::-1], "mixed": rng.permuted(first, axis=1)}.items():
    options = {"objective": "lambdarank", "metric": "ndcg", "eval_at": [10], "verbosity": -1, "num_threads": 1}
    data = lightgbm.Dataset(np.zeros((1000, 1)), relevant.ravel(), group=[20] * 50, params={"feature_pre_filter": False})
    found = {}
    lightgbm.train(options, data, 1, valid_sets=[data], callbacks=[lightgbm.record_evaluation(found)])
    other = eval_metric(relevant.ravel(), np.zeros(1000), "NDCG:top=10", group_id=songs)[0]
    seen[name] = float(found["training"]["ndcg@10"][0])
    print(f"relevant rows {name}: NDCG@10 {seen[name]:.3f}; CatBoost {other:.3f}")
    assert other == 0, "this has changed"
assert seen["first"] == 1 and seen["last"] == 0 and 0.1 < seen["mixed"] < 0.4, "this has changed"
PYTHON
