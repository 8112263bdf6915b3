"""The cold-start methods without training, against loops written from the definitions."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scipy import sparse

from benchmarks.quality.item_cold import closed_form
from benchmarks.quality.item_cold.closed_form import (
    GRIDS,
    content_knn,
    most_active,
    random_scores,
    regression,
    ridge_to_users,
)
from evaluation.ease import ease_inverse, ridge_to_ease

METHODS = sorted(GRIDS)
Toy = tuple[sparse.csr_matrix, np.ndarray, np.ndarray]


def toy(users: int = 30, warm: int = 12, cold: int = 5, features: int = 6, seed: int = 0) -> Toy:
    """Random plays; warm song 3 has no listener, warm song 4 no content; content in one block of length 1."""
    rng = np.random.default_rng(seed)
    heard = rng.random((users, warm)) < 0.3
    heard[:, 3] = False
    x = rng.standard_normal((warm + cold, features))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    x[4] = 0
    x = x.astype(np.float32)
    return sparse.csr_matrix(heard.astype(np.float32)), x[:warm], x[warm:]


def naive_knn(plays: np.ndarray, x_w: np.ndarray, x_c: np.ndarray, k: int) -> np.ndarray:
    score = np.zeros((len(plays), len(x_c)))
    for song, x in enumerate(x_c):
        similarity = [float(np.dot(x, other)) for other in x_w]
        nearest = sorted(range(len(x_w)), key=lambda other: (-similarity[other], other))[:k]
        for user in range(len(plays)):
            score[user, song] = sum(max(similarity[n], 0) for n in nearest if plays[user, n])
    return score


def naive_ease(plays: np.ndarray, penalty: float) -> np.ndarray:
    """Each column of B is a ridge regression of one song on all the others: the problem that EASE solves."""
    songs = plays.shape[1]
    b = np.zeros((songs, songs))
    for j in range(songs):
        others = [i for i in range(songs) if i != j]
        a = plays[:, others]
        b[others, j] = np.linalg.solve(a.T @ a + penalty * np.eye(songs - 1), a.T @ plays[:, j])
    return b


def naive_ridge(x_w: np.ndarray, targets: np.ndarray, x_c: np.ndarray, penalty: float) -> np.ndarray:
    """Least squares with the penalty written as further observations of 0."""
    features = x_w.shape[1]
    stacked = np.vstack([x_w, np.sqrt(penalty) * np.eye(features)])
    padded = np.vstack([targets, np.zeros((features, targets.shape[1]))])
    return x_c @ np.linalg.lstsq(stacked, padded, rcond=None)[0]


@pytest.mark.parametrize("k", [1, 3, 12, 50])
def test_knn_is_the_loop(k: int) -> None:
    plays, x_w, x_c = toy()
    expected = naive_knn(plays.toarray(), x_w, x_c, k)
    np.testing.assert_allclose(content_knn(plays, x_w, x_c, k=k), expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(content_knn(plays, x_w, x_c, k=k, chunk=2), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("ks", [(12, 5, 1), (1, 12, 5)])
def test_a_grid_of_k_finds_what_each_k_finds_alone(ks: tuple[int, ...]) -> None:
    plays, x_w, x_c = toy()
    x_w[7] = x_w[8]  # equally near: the lower number first, whichever K was searched
    kept: dict[str, Any] = {}
    for k in ks:
        score = content_knn(plays, x_w, x_c, k=k, chunk=2, kept=kept)
        np.testing.assert_array_equal(score, content_knn(plays, x_w, x_c, k=k))
    assert kept["k"] == 12


def test_knn_takes_the_first_of_equal_songs() -> None:
    """Whole numbers, so that equal songs are exactly equally near: songs 1, 3, 5 are one song, K cuts through them."""
    plays = sparse.csr_matrix(np.eye(6, dtype=np.float32))
    x_w = np.array([[0, 1], [1, 0], [-1, 0], [1, 0], [2, 0], [1, 0]], dtype=np.float32)
    score = content_knn(plays, x_w, np.array([[1, 0]], dtype=np.float32), k=3)
    np.testing.assert_array_equal(score[:, 0], [0, 1, 0, 1, 2, 0])


@pytest.mark.parametrize("features", [6, 40])
@pytest.mark.parametrize("ridge", [0.3, 10.0])
def test_ridge_to_users_is_the_regression_for_few_and_for_many_features(features: int, ridge: float) -> None:
    plays, x_w, x_c = toy(features=features)
    expected = naive_ridge(x_w, plays.toarray().T, x_c, ridge).T
    np.testing.assert_allclose(ridge_to_users(plays, x_w, x_c, ridge=ridge), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("features", [6, 40])
def test_regression_is_that_of_least_squares(features: int) -> None:
    plays, x_w, x_c = toy(features=features)
    kept: dict[str, Any] = {}
    target = plays.toarray().T[:, :4]
    for ridge in (0.3, 10.0):
        expected = naive_ridge(x_w, target, x_c, ridge)
        np.testing.assert_allclose(x_c @ regression(x_w, target, ridge, kept), expected, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("of", ["rows", "columns"])
@pytest.mark.parametrize("users", [30, 8], ids=["users > songs", "songs > users"])
def test_ridge_to_ease_is_the_loop(users: int, of: str) -> None:
    plays, x_w, x_c = toy(users=users)
    dense = plays.toarray().astype(np.float64)
    b = naive_ease(dense, 5.0)
    weights = naive_ridge(x_w, b if of == "rows" else b.T, x_c, 0.5)
    expected = np.zeros((users, len(x_c)))
    for user in range(users):
        for song in range(len(x_c)):
            expected[user, song] = sum(weights[song, played] for played in np.flatnonzero(dense[user]))
    score = ridge_to_ease(plays, x_w, x_c, ridge=0.5, ease=5.0, of=of)
    np.testing.assert_allclose(score, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("users", "songs"), [(40, 15), (15, 40)])
def test_both_forms_of_the_inverse_are_numpys(users: int, songs: int) -> None:
    plays, left = toy(users, songs)[0], np.random.default_rng(2).standard_normal((4, songs))
    expected = np.linalg.inv(plays.toarray().T @ plays.toarray() + 3.0 * np.eye(songs))
    times_p, diagonal = ease_inverse(plays, 3.0, chunk=7)
    np.testing.assert_allclose(times_p(left), left @ expected, atol=1e-5)
    np.testing.assert_allclose(diagonal, np.diag(expected), atol=1e-6)


@pytest.mark.parametrize(("warm", "features"), [(6000, 8), (12, 6000)])
@pytest.mark.parametrize("options", [{"of": "rows"}, {"of": "columns"}])
def test_no_square_of_many_songs_or_features_is_needed(warm: int, features: int, options: dict[str, Any]) -> None:
    data = toy(20, warm, features=features)
    tracemalloc.start()
    ridge_to_ease(*data, **options)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 * 6000**2 / 20  # bytes


def test_random_scores_follow_the_seed() -> None:
    plays, x_w, x_c = toy(cold=40)
    first, again, other = (random_scores(plays, x_w, x_c, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert abs(np.corrcoef(first.ravel(), other.ravel())[0, 1]) < 0.1
    assert len(np.unique(first)) > 0.99 * first.size
    assert 0 <= first.min() < 0.05 < 0.95 < first.max() < 1


def test_most_active_counts_plays() -> None:
    plays, x_w, x_c = toy()
    expected = [[sum(1 for song in row if song)] * 5 for row in plays.toarray()]
    np.testing.assert_array_equal(most_active(plays, x_w, x_c), expected)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("users", [30, 8])
def test_every_setting_of_the_grid_gives_finite_scores(name: str, users: int) -> None:
    method: Callable[..., np.ndarray] = getattr(closed_form, name)
    plays, x_w, x_c = toy(users=users)
    x_c[1] = 0
    for options in GRIDS[name]:
        score = method(plays, x_w, x_c, **options)
        assert score.shape == (users, 5) and score.dtype == np.float32 and np.isfinite(score).all()
        if name not in ("random_scores", "most_active"):
            np.testing.assert_array_equal(score[:, 1], 0)
            assert (score[:, 0] != 0).any()


@pytest.mark.parametrize("name", METHODS)
def test_a_cold_song_hangs_on_its_own_content_alone(name: str) -> None:
    method: Callable[..., np.ndarray] = getattr(closed_form, name)
    plays, x_w, x_c = toy()
    other = x_c.copy()
    other[2] = -other[2]
    before, after = method(plays, x_w, x_c), method(plays, x_w, other)
    rest = [0, 1, 3, 4]
    np.testing.assert_array_equal(before[:, rest], after[:, rest])
    assert (before[:, 2] != after[:, 2]).any() == (name not in ("random_scores", "most_active"))


def test_a_grid_that_keeps_its_solutions_gives_the_same_scores() -> None:
    plays, x_w, x_c = toy(9, 15)
    kept: dict[tuple[str, float], Any] = {}
    for ridge, ease, of in ((1.0, 3.0, "rows"), (1.0, 30.0, "rows"), (5.0, 3.0, "columns"), (1.0, 3.0, "columns")):
        alone = ridge_to_ease(plays, x_w, x_c, ridge, ease, of)
        np.testing.assert_array_equal(ridge_to_ease(plays, x_w, x_c, ridge, ease, of, kept), alone)
    assert set(kept) == {("map", 1.0), ("map", 5.0), ("ease", 3.0), ("ease", 30.0)}, "each solved once"
