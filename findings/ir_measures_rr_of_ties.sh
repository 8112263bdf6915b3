#!/bin/sh
# ir_measures: RR and RR@20 of the same list of 20 songs differ where scores are tied.
# Version: ir_measures 0.4.3, pytrec-eval-terrier 0.5.11, numpy 2.3.5. Input: 200 users, 20 recommended songs each, one of them right,
# which is among the first five by name (as where songs are numbered by popularity); scores that differ, of five levels, or all the same.
# Expected: RR@20 of 20 songs is RR. Seen: .113 for RR and .242 for RR@20 with five levels: RR is left to pytrec_eval, which
# puts tied songs by falling name, RR@k to code of MS MARCO, by rising name. P@1, which is RR@1, goes with RR: 0, where RR@1 is .14.
set -eu
at=$(mktemp -d)
trap 'rm -rf "$at"' EXIT
python3 -m venv "$at/venv"
"$at/venv/bin/pip" install --quiet --disable-pip-version-check ir_measures==0.4.3 pytrec-eval-terrier==0.5.11 numpy==2.3.5
"$at/venv/bin/python" - <<'PYTHON'
import ir_measures
import numpy as np
from ir_measures import RR, P

rng = np.random.default_rng(0)
right = {f"user{user}": {f"song{rng.integers(5):02}": 1} for user in range(200)}
seen = {}
for name, scores in (("that differ", np.arange(20)), ("of five levels", np.arange(20) // 4), ("all the same", np.zeros(20, int))):
    run = {user: {f"song{song:02}": float(score) for song, score in enumerate(rng.permutation(scores))} for user in right}
    found = ir_measures.calc_aggregate([RR, RR @ 20, P @ 1, RR @ 1], right, run)
    seen[name] = [round(found[measure], 3) for measure in (RR, RR @ 20, P @ 1, RR @ 1)]
    print(f"scores {name}: RR {seen[name][0]}, RR@20 {seen[name][1]}; P@1 {seen[name][2]}, RR@1 {seen[name][3]}")
own, levels, same = seen.values()
assert own[0] == own[1] and own[2] == own[3]
assert levels[1] > 1.2 * levels[0] and same[1] > 5 * same[0] and same[2] == 0 < same[3], "this has changed"
PYTHON
