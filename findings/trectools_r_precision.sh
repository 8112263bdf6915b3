#!/bin/sh
# trectools: with pandas 3, R-precision is greater than 1.
# Version: trectools 0.0.50, ir_measures 0.4.3, pandas 3.1.1 and 2.3.3, numpy 2.3.5, in environments of their own. Input: 30 songs with six
# listeners each and ranked lists of 30 of 50 users, at random; each user is a listener of some of the songs.
# Expected: .12, as by ir_measures (trec_eval's definition), and never more than 1; any pandas is allowed (`pandas>=0.15.0`). Seen: so with
# pandas 2.3.3; 3.39 with 3.1.1, whose groupby().apply() keeps the groups' names from what it calls: hits are counted with all songs'
# listeners. The other measures are the same with both.
set -eu
at=$(mktemp -d)
trap 'rm -rf "$at"' EXIT
cat >"$at/script.py" <<'PYTHON'
import sys

import numpy as np
import pandas as pd
from ir_measures import AP, Rprec, calc_aggregate
from trectools import TrecEval, TrecQrel, TrecRun

rng = np.random.default_rng(0)
heard = {str(song): {f"u{user}": 1 for user in rng.choice(50, 6, replace=False)} for song in range(30)}
lists = {song: {f"u{user}": 30.0 - place for place, user in enumerate(rng.permutation(50)[:30])} for song in heard}
qrels, run = TrecQrel(), TrecRun()
rows = [(song, "0", user, one) for song, users in heard.items() for user, one in users.items()]
qrels.qrels_data = pd.DataFrame(rows, columns=["query", "q0", "docid", "rel"])
rows = [(song, "0", user, 31 - int(score), score, "a") for song, users in lists.items() for user, score in users.items()]
run.run_data = pd.DataFrame(rows, columns=["query", "q0", "docid", "rank", "score", "system"])
other = calc_aggregate([Rprec, AP], heard, lists)
found = float(TrecEval(run, qrels).get_rprec())
assert abs(TrecEval(run, qrels).get_map() - other[AP]) < 1e-9
print(f"pandas {pd.__version__}: R-precision {found:.3f}, by ir_measures {other[Rprec]:.3f}")
right = abs(found - other[Rprec]) < 1e-9
assert right if sys.argv[1] == "2" else found > 3, "this has changed"
PYTHON
for pandas in 2.3.3 3.1.1; do
    python3 -m venv "$at/venv$pandas"
    "$at/venv$pandas/bin/pip" install --quiet --disable-pip-version-check trectools==0.0.50 ir_measures==0.4.3 "pandas==$pandas" numpy==2.3.5
    "$at/venv$pandas/bin/python" -W ignore "$at/script.py" "${pandas%%.*}"
done
