#!/bin/sh
# CatBoost: songs that nobody listened to count as 1 in NDCG and in recall, and as 0 in MAP and MRR.
# Version: CatBoost 1.2.10, LightGBM 4.7.0, ir_measures 0.4.3, numpy 2.3.5. Input: 50 songs with 20 candidates each; ten songs have two
# listeners, who are ranked last, the other 40 none.
# Expected: each measure is 0, for no listener is among the ten best (ir_measures says so), or songs without listeners are left out.
# Seen: NDCG@10 and recall@10 are .8, MAP@10 and MRR@10 are 0; LightGBM's ndcg@10 and map@10 both are .8.
set -eu
at=$(mktemp -d)
trap 'rm -rf "$at"' EXIT
python3 -m venv "$at/venv"
"$at/venv/bin/pip" install --quiet --disable-pip-version-check catboost==1.2.10 lightgbm==4.7.0 ir_measures==0.4.3 numpy==2.3.5
"$at/venv/bin/python" - <<'PYTHON'
import ir_measures
import lightgbm
import numpy as np
from catboost.utils import eval_metric
from ir_measures import AP, R, RR, nDCG

heard = np.zeros((50, 20), np.float32)
heard[:10, 18:] = 1
score = np.tile(-np.arange(20.0), 50)
songs = np.repeat(np.arange(50), 20)
names = {"NDCG": nDCG @ 10, "RecallAt": R @ 10, "MAP": AP @ 10, "MRR": RR @ 10}
qrels = {str(song): {str(user): int(one) for user, one in enumerate(row)} for song, row in enumerate(heard)}
run = {str(song): {str(user): -float(user) for user in range(20)} for song in range(50)}
reference = ir_measures.calc_aggregate(names.values(), qrels, run)
seen = {}
for name, measure in names.items():
    seen[name] = float(eval_metric(heard.ravel(), score, f"{name}:top=10", group_id=songs)[0])
    print(f"{name}: CatBoost {seen[name]:.2f}, ir_measures {reference[measure]:.2f}")
options = {"objective": "lambdarank", "metric": ["ndcg", "map"], "eval_at": [10], "verbosity": -1, "num_threads": 1}
data = lightgbm.Dataset(np.zeros((1000, 1)), heard.ravel(), group=[20] * 50, params={"feature_pre_filter": False})
found = {}
lightgbm.train(options, data, 1, valid_sets=[data], callbacks=[lightgbm.record_evaluation(found)])
other = {name: float(values[0]) for name, values in found["training"].items()}
print(f"LightGBM, all scores alike and listeners last: {other}")
assert seen == {"NDCG": 0.8, "RecallAt": 0.8, "MAP": 0, "MRR": 0} and {*reference.values()} == {0}, "this has changed"
assert other == {"ndcg@10": 0.8, "map@10": 0.8}, "this has changed"
PYTHON
