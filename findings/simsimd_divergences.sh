#!/bin/sh
# simsimd: the Kullback-Leibler divergence of two listeners' tastes is thousands of times too large in double precision.
# Version: simsimd 6.5.16, scipy 1.17.1, numpy 2.4.6. Input: shares of 2, 10 and 100 genres, 200 pairs each, drawn evenly (Dirichlet), and
# one pair by hand, (.9, .1) and (.5, .5); kullbackleibler(p, q) and jensenshannon(p, q) in double and single precision.
# Expected: scipy's figures, to which the docstrings call these equivalent; for the pair .368 and .319. Seen in double precision: .456 and
# .342; of 100 genres the divergence is more than 20,000 times the true one in half the pairs, and the Jensen-Shannon distance 10 % too
# large. In single precision both are right where the processor's own kernels are used, and as wrong where these are switched off: the
# logarithm of the plain code is a polynomial that holds near 1 alone.
set -eu
at=$(mktemp -d)
trap 'rm -rf "$at"' EXIT
python3 -m venv "$at/venv"
"$at/venv/bin/pip" install --quiet --disable-pip-version-check simsimd==6.5.16 scipy==1.17.1 numpy==2.4.6
"$at/venv/bin/python" - <<'PYTHON'
import numpy as np
import simsimd
from scipy.spatial.distance import jensenshannon
from scipy.special import kl_div

rng = np.random.default_rng(0)
pairs = {genres: rng.dirichlet(np.ones(genres), (200, 2)) for genres in (2, 10, 100)} | {"(.9, .1) and (.5, .5)": np.array([[[0.9, 0.1], [0.5, 0.5]]])}


def show(kernels):
    seen = {}
    for genres, each in pairs.items():
        true = np.array([(kl_div(*pair).sum(), jensenshannon(*pair)) for pair in each])
        for kind in (np.float64, np.float32):
            got = np.array([(float(simsimd.kullbackleibler(*pair)), float(simsimd.jensenshannon(*pair))) for pair in each.astype(kind)])
            kl, js = np.median(got / true, axis=0)
            seen[genres, kind.__name__] = kl, js
            print(f"{kernels}, shares of {genres}, {kind.__name__}: median of divergence / scipy's {kl:.4g}, of distance / scipy's {js:.4f}; of the first pair {got[0, 0]:.4g} and {got[0, 1]:.4f}, scipy {true[0, 0]:.4f} and {true[0, 1]:.4f}")
    return seen


assert "scipy.special.kl_div" in simsimd.kullbackleibler.__doc__ and "jensenshannon" in simsimd.jensenshannon.__doc__, "the documentation has changed"
own = show("processor's kernels")
for name, has in simsimd.get_capabilities().items():
    if has and name != "serial":
        simsimd.disable_capability(name)
plain = show("plain code")
for seen in (own[100, "float64"], plain[100, "float64"], plain[100, "float32"]):
    assert seen[0] > 10_000 and 1.05 < seen[1] < 1.2, "this has changed"
PYTHON
