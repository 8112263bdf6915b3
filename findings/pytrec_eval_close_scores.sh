#!/bin/sh
# pytrec_eval: scores are rounded to 24 bits, so that large ones that differ are ties, put by name.
# Version: pytrec-eval-terrier 0.5.11, ranx 0.3.21, numpy 1.26.4. Input: 200 users, 20 songs each that are ranked by when they were last
# played, in Unix seconds, one minute apart; the latest is the right one. The same in minutes before now, negative.
# Expected: precision@1 and the reciprocal rank are 1, as ranx finds. Seen: with seconds precision@1 is about .5: at 1.7 billion a float
# tells times 128 seconds apart, and of tied songs that with the last name comes first. With small numbers both are 1.
set -eu
at=$(mktemp -d)
trap 'rm -rf "$at"' EXIT
python3 -m venv "$at/venv"
"$at/venv/bin/pip" install --quiet --disable-pip-version-check pytrec-eval-terrier==0.5.11 ranx==0.3.21 numpy==1.26.4
"$at/venv/bin/python" -W ignore - <<'PYTHON'
import numpy as np
import pytrec_eval
from ranx import Qrels, Run, evaluate

rng = np.random.default_rng(0)
minutes = {f"user{user}": {f"song{song}": int(ago) for song, ago in enumerate(rng.permutation(20))} for user in range(200)}
right = {user: {min(songs, key=songs.get): 1} for user, songs in minutes.items()}
seen = {}
for name, now, one in (("Unix seconds", 1_700_000_000, 60), ("minutes before now", 0, 1)):
    run = {user: {song: float(now - one * ago) for song, ago in songs.items()} for user, songs in minutes.items()}
    found = pytrec_eval.RelevanceEvaluator(right, {"P.1", "recip_rank"}).evaluate(run)
    seen[name] = [round(float(np.mean([values[key] for values in found.values()])), 2) for key in ("P_1", "recip_rank")]
    other = [float(evaluate(Qrels(right), Run(run), key)) for key in ("precision@1", "mrr")]
    print(f"{name}: precision@1 {seen[name][0]}, reciprocal rank {seen[name][1]}; ranx {other}")
    assert other == [1, 1]
assert seen["minutes before now"] == [1, 1] and seen["Unix seconds"][0] < 0.7 and seen["Unix seconds"][1] < 0.85, "this has changed"
PYTHON
