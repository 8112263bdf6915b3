"""What `pipeline.audience` makes of an index and the plays: similar songs and what each of them weighs."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from configs.schema import TargetingConfig
from pipeline.audience import find_similar
from pipeline.index import SongIndex
from retrieval.index import build_index

KNOWN, NEW = np.array([0, 2, 3, 5, 6]), np.array([1, 4])


def small_world() -> tuple[SongIndex, sparse.csr_matrix]:
    """Seven songs, five of them known; song 2 is a hit, song 6 was played by nobody."""
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((7, 4)).astype(np.float32)
    listening = np.where(rng.random((40, 7)) < [0.2, 0, 0.9, 0.1, 0, 0.4, 0], 2.0, 0.0)
    return SongIndex({}, build_index(vectors[KNOWN]), KNOWN, vectors), sparse.csr_matrix(listening, dtype=np.float32)


@pytest.mark.parametrize("neighbours", [3, 9])
@pytest.mark.parametrize("popularity_power", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("similarity_power", [1.0, 2.0])
def test_a_neighbour_weighs_its_similarity_less_the_more_popular_it_is(
    neighbours: int, popularity_power: float, similarity_power: float
) -> None:
    index, listening = small_world()
    options = TargetingConfig(
        neighbours=neighbours, popularity_power=popularity_power, similarity_power=similarity_power
    )
    found = find_similar(index, NEW, listening, options)
    listeners = (listening.toarray() > 0).sum(axis=0)
    k = min(neighbours, len(KNOWN))
    assert found.weights_CS.shape == (2, 7)
    for row, song in enumerate(NEW):
        score = {int(known): float(index.vectors[song] @ index.vectors[known]) for known in KNOWN}
        best = sorted(KNOWN.tolist(), key=lambda known: -score[known])[:k]
        assert found.positions_CK[row].tolist() == best + [-1] * (found.positions_CK.shape[1] - k)
        high, low, floor = score[best[0]], score[best[-1]], 1 / found.positions_CK.shape[1]
        weight = np.zeros(7)
        for known in best:
            similarity = floor + (1 - floor) * (score[known] - low) / (high - low)
            weight[known] = similarity**similarity_power * (listeners[known] + 1.0) ** -popularity_power
        np.testing.assert_allclose(found.weights_CS.toarray()[row], weight, rtol=1e-4)
        np.testing.assert_allclose(found.weights_CK[row, :k], weight[best], rtol=1e-4)
        assert (found.weights_CK[row, k:] == 0).all()
