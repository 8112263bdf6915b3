#!/bin/sh
# mabwiser: UCB1 never plays a song that has not been played, however much it is to explore.
# Version: mabwiser 2.7.4, scikit-learn 1.9.1, numpy 1.26.4. Input: MAB with LearningPolicy.UCB1(alpha=1 and 100), fitted to 20 plays of
# each of two songs, which are liked by .5 and .4 of listeners; then add_arm of a third, which .9 like, and 2,000 plays, each chosen by
# predict() and told by partial_fit().
# Expected: the third song is played at once, since the bound mean + alpha √(2 ln N / n) that the documentation gives has no limit as n
# goes to 0, and UCB1 plays each arm once first; with alpha=1 it is then played most, as by Thompson sampling. Seen: it is not played
# once: its bound is 0 until it has been, so that any song that was ever liked, or that alpha raises, comes before it.
set -eu
at=$(mktemp -d)
trap 'rm -rf "$at"' EXIT
python3 -m venv "$at/venv"
"$at/venv/bin/pip" install --quiet --disable-pip-version-check mabwiser==2.7.4 scikit-learn==1.9.1 numpy==1.26.4
"$at/venv/bin/python" - <<'PYTHON'
import numpy as np
from mabwiser.mab import MAB, LearningPolicy

liked = {"first": 0.5, "second": 0.4, "new": 0.9}


def plays(policy, tried):
    rng = np.random.default_rng(0)
    songs = ["first"] * 20 + ["second"] * 20 + ["new"] * tried
    bandit = MAB(["first", "second"], policy, seed=0)
    bandit.fit(songs[:40], [int(rng.random() < liked[song]) for song in songs[:40]])
    bandit.add_arm("new")
    if tried:
        bandit.partial_fit(["new"], [0])
    begun, count = bandit.predict_expectations()["new"], dict.fromkeys(liked, 0)
    for _ in range(2000):
        song = bandit.predict()
        count[song] += 1
        bandit.partial_fit([song], [int(rng.random() < liked[song])])
    return begun, count


seen = {}
for name, policy in (
    ("UCB1(1)", LearningPolicy.UCB1(1)),
    ("UCB1(100)", LearningPolicy.UCB1(100)),
    ("Thompson sampling", LearningPolicy.ThompsonSampling()),
):
    for tried in (0, 1):
        begun, seen[name, tried] = plays(policy, tried)
        print(f"{name}, the new song {'played once before, not liked' if tried else 'never played'}: stands at {begun:.2f}, plays {seen[name, tried]}")
assert seen["UCB1(1)", 0]["new"] == seen["UCB1(100)", 0]["new"] == 0, "this has changed"
assert seen["UCB1(1)", 1]["new"] > 1000 and seen["UCB1(100)", 1]["new"] > 500, "one play does not bring the song into the choice"
assert seen["Thompson sampling", 0]["new"] > 1000, "Thompson sampling does not find the song"
PYTHON
