#!/bin/sh
# river: the AUC of rates that are all below a ninth is .5, however well they order what happened.
# Version: river 0.26.1, numpy 2.4.6. Input: 20,000 exposures, of each the rate at which listeners favourite the song, .2 to 10 %, and
# whether they did, drawn at that very rate; metrics.ROCAUC with 10 thresholds, which it has unless told, and with 100.
# Expected: about the AUC of all pairs, .768: by its documentation the error of the approximation is not significant where probabilities
# are well calibrated, and these are exact. Seen: .5 with 10 thresholds, .758 with 100; with rates of .02 to 1 % .5 with 100 too (of all
# pairs .761); with rates of 5 to 95 % .805 and .812 (.812). Thresholds part 0 to 1 evenly, and rates below the first are all one.
set -eu
at=$(mktemp -d)
trap 'rm -rf "$at"' EXIT
python3 -m venv "$at/venv"
"$at/venv/bin/pip" install --quiet --disable-pip-version-check river==0.26.1 numpy==2.4.6
"$at/venv/bin/python" - <<'PYTHON'
import numpy as np
from river import metrics


def exact(happened, rate):
    place = np.argsort(np.argsort(rate)) + 1
    some = happened.sum()
    return (place[happened].sum() - some * (some + 1) / 2) / (some * (len(rate) - some))


rng, seen = np.random.default_rng(0), {}
for name, low, high, n in (("5 to 95 %", 0.05, 0.95, 20_000), (".2 to 10 %", 0.002, 0.1, 20_000), (".02 to 1 %", 0.0002, 0.01, 100_000)):
    rate = np.exp(rng.uniform(np.log(low), np.log(high), n))
    happened = rng.random(n) < rate
    for thresholds in (10, 100):
        auc = metrics.ROCAUC(n_thresholds=thresholds)
        for did, chance in zip(happened.tolist(), rate.tolist()):
            auc.update(did, chance)
        seen[name, thresholds] = auc.get(), exact(happened, rate)
        print(f"rates of {name}, {happened.sum():,} of {n:,}: AUC with {thresholds} thresholds {auc.get():.4f}, of all pairs {exact(happened, rate):.4f}")
assert all(abs(seen["5 to 95 %", thresholds][0] - seen["5 to 95 %", thresholds][1]) < 0.02 for thresholds in (10, 100)), "higher rates have another AUC"
assert seen[".2 to 10 %", 10][0] == seen[".02 to 1 %", 10][0] == seen[".02 to 1 %", 100][0] == 0.5, "this has changed"
assert all(true > 0.65 for _, true in seen.values()), "rates do not order what happened"
PYTHON
