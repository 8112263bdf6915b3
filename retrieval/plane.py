"""Song vectors in two dimensions, to be looked at."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

SPREAD = 1e-6  # of the vectors' size, less is rounding


def project(vectors_ND: NDArray[Any], seed: int) -> NDArray[Any]:
    """Two dimensions by t-SNE, (N, 2); simply the first two of a handful of songs, or where nothing is to be spread.

    On vectors that are all equal, scikit-learn (1.9) ends the process.
    """
    from sklearn.manifold import TSNE

    n, d = vectors_ND.shape
    if n <= 10 or d < 2 or not np.ptp(vectors_ND, axis=0).max() > SPREAD * np.abs(vectors_ND).max():
        return np.pad(vectors_ND, ((0, 0), (0, 2)))[:, :2]
    tsne = TSNE(perplexity=min(30, n // 4), init="pca", random_state=seed, max_iter=500)
    return np.asarray(tsne.fit_transform(np.asarray(vectors_ND, dtype=np.float32)))
