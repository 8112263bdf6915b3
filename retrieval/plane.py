"""Song vectors in two dimensions, to be looked at."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def project(vectors_ND: NDArray[Any], seed: int) -> NDArray[Any]:
    """Two dimensions by t-SNE, (N, 2); of a handful of songs simply the first two."""
    from sklearn.manifold import TSNE

    n = len(vectors_ND)
    if n <= 10:
        return np.pad(vectors_ND, ((0, 0), (0, 2)))[:, :2]
    tsne = TSNE(perplexity=min(30, n // 4), init="pca", random_state=seed, max_iter=500)
    return np.asarray(tsne.fit_transform(np.asarray(vectors_ND, dtype=np.float32)))
