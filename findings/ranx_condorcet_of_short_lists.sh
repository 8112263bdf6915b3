#!/bin/sh
# ranx: Condorcet fusion of lists that share few songs turns their order round, differently in each run.
# Version: ranx 0.3.21, numba 0.68.1, numpy 2.4.6. Input: two lists of six songs for one user, with one song in common, which is first in
# both; fuse(method="condorcet"), in four processes (PYTHONHASHSEED 0 to 3, as four starts of Python would draw it).
# Expected: the shared song first, and the songs of each list in their order, since no list says otherwise; the same in every process, as
# reciprocal rank fusion ("rrf") of the same lists has it. Seen: four orders, with 1 to 6 of 30 pairs of a list turned round: that two
# songs are both missing from a list counts as a vote for one of them.
set -eu
at=$(mktemp -d)
trap 'rm -rf "$at"' EXIT
python3 -m venv "$at/venv"
"$at/venv/bin/pip" install --quiet --disable-pip-version-check ranx==0.3.21 numba==0.68.1 numpy==2.4.6
cat > "$at/fuse.py" <<'PYTHON'
import json
import sys

from ranx import Run, fuse

lists = [["shared", *(f"{name}{place}" for place in range(1, 6))] for name in "ab"]
runs = [Run({"user": {song: 10.0 - at for at, song in enumerate(each)}}, name=str(number)) for number, each in enumerate(lists)]
told = {}
for method in ("condorcet", "rrf"):
    fused = fuse(runs=runs, method=method, norm=None).to_dict()["user"]
    order = sorted(fused, key=lambda song: -fused[song])
    turned = sum(order.index(one) > order.index(other) for each in lists for at, one in enumerate(each) for other in each[at + 1 :])
    told[method] = order, turned
    print(f"{method}: {' '.join(order)}: {turned} of 30 pairs turned round", file=sys.stderr)
print(json.dumps(told))
PYTHON
for seed in 0 1 2 3; do
    PYTHONHASHSEED=$seed "$at/venv/bin/python" -W ignore "$at/fuse.py" 2>> "$at/told" >> "$at/orders"
done
cat "$at/told"
"$at/venv/bin/python" - "$at/orders" <<'PYTHON'
import json
import sys

with open(sys.argv[1]) as file:
    seen = [json.loads(line) for line in file]
assert len({tuple(each["condorcet"][0]) for each in seen}) == 4, "this has changed"
assert all(each["condorcet"][1] > 0 and each["rrf"][1] == 0 for each in seen), "this has changed"
PYTHON
