"""Methods that know the artist, against loops; and figures apart for songs of known and of new artists."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import sparse

from benchmarks.quality.item_cold.artists import GRIDS, SIZE, artist_listeners, artist_mean
from benchmarks.quality.item_cold.neural import factorise

WARM = np.array([0, 0, 0, 1, 1, 2, 3, -1, -1, 4, 4, 5])  # song 6, alone of artist 3, has no play
COLD = np.array([0, 1, 3, 9, -1])  # 3 has no played song, 9 no song; −1 is nobody
KNOWN = [True, True, False, False, False]


def toy(users: int = 30, features: int = 6, seed: int = 0) -> tuple[sparse.csr_matrix, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    heard = rng.random((users, len(WARM))) < 0.3
    heard[:, 6] = False
    x = rng.standard_normal((len(WARM) + len(COLD), features)).astype(np.float32)
    return sparse.csr_matrix(heard.astype(np.float32)), x[: len(WARM)], x[len(WARM) :]


def cosine(one: np.ndarray, other: np.ndarray) -> float:
    return float(one @ other / np.linalg.norm(one) / np.linalg.norm(other))


@pytest.mark.parametrize("k", [0, 1, 4, 50])
def test_listeners_are_the_loop(k: int) -> None:
    plays, x_w, x_c = toy()
    dense, expected = plays.toarray(), np.zeros((30, len(COLD)))
    for c, artist in enumerate(COLD):
        near = sorted(range(len(WARM)), key=lambda w: -cosine(x_c[c], x_w[w]))[:k]
        for u in range(30):
            if KNOWN[c]:
                expected[u, c] = sum(dense[u, w] for w in range(len(WARM)) if WARM[w] == artist)
            else:
                expected[u, c] = sum(max(cosine(x_c[c], x_w[w]), 0) for w in near if dense[u, w])
    score = artist_listeners(plays, x_w, x_c, (WARM, COLD), k=k)
    np.testing.assert_allclose(score, expected, rtol=1e-5, atol=1e-6)
    assert (score[:, 3] != 0).any() == (k > 0) and (score[:, 0] > 1).any()


@pytest.mark.parametrize("alpha", [10.0, 30.0])
def test_the_mean_vector_is_the_loop(alpha: float) -> None:
    plays, x_w, x_c = toy()
    user, song = factorise(plays, SIZE, alpha, 3)
    played = [w for w in range(len(WARM)) if plays[:, w].nnz]
    assert 6 not in played and len(played) == len(WARM) - 1
    stacked = np.vstack([x_w[played], np.sqrt(5.0) * np.eye(6)])
    padded = np.vstack([song[played], np.zeros((6, SIZE))])
    by_content = x_c @ np.linalg.lstsq(stacked, padded, rcond=None)[0]
    expected = np.zeros((30, len(COLD)))
    for c, artist in enumerate(COLD):
        own = [song[w] for w in played if WARM[w] == artist]
        vector = np.mean(own, axis=0) if KNOWN[c] else by_content[c]
        expected[:, c] = user @ vector
    score = artist_mean(plays, x_w, x_c, (WARM, COLD), seed=3, alpha=alpha, ridge=5.0)
    np.testing.assert_allclose(score, expected, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("method", [artist_mean, artist_listeners])
def test_content_counts_for_new_artists_alone(method: Any) -> None:
    plays, x_w, x_c = toy()
    before, after = method(plays, x_w, x_c, (WARM, COLD)), method(plays, x_w, -x_c, (WARM, COLD))
    changed = [(before[:, c] != after[:, c]).any() for c in range(len(COLD))]
    assert changed == [not known for known in KNOWN]


@pytest.mark.parametrize("method", [artist_mean, artist_listeners])
def test_a_grid_that_keeps_its_solutions_gives_the_same_scores(method: Any) -> None:
    plays, x_w, x_c = toy()
    kept: dict[str, Any] = {}
    for options in GRIDS[method.__name__]:
        alone = method(plays, x_w, x_c, (WARM, COLD), **options)
        np.testing.assert_array_equal(method(plays, x_w, x_c, (WARM, COLD), **options, kept=kept), alone)
        assert alone.shape == (30, len(COLD)) and alone.dtype == np.float32 and np.isfinite(alone).all()
    assert set(kept.get("plays", {})) == ({10.0, 30.0} if method is artist_mean else set()), "each solved once"


def test_without_a_known_artist_or_with_known_ones_alone() -> None:
    plays, x_w, x_c = toy()
    nobody, everybody = np.full(len(COLD), -1), np.zeros(len(COLD), dtype=np.int64)
    for artists in ((WARM, nobody), (np.full(len(WARM), -1), nobody), (WARM, everybody)):
        for method in (artist_mean, artist_listeners):
            score: np.ndarray = method(plays, x_w, x_c, artists)
            assert np.isfinite(score).all() and (score != 0).any()
