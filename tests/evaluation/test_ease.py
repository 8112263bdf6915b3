"""Ridge → EASE as a row of `pipeline.evaluate`: its audiences, and the choice on validation songs, by brute force."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from scipy import sparse

from evaluation import ease

USERS, WARM, NEW, D = 40, 15, 6, 4


def world(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, tuple[np.ndarray, np.ndarray]]:
    """Plays, content of known and of new songs, and who listens to the new ones: whose songs are like them."""
    rng = np.random.default_rng(seed)
    x_w, x_c = (rng.standard_normal((n, D)).astype(np.float32) for n in (WARM, NEW))
    taste = rng.standard_normal((USERS, D))
    heard, wants = (taste @ x.T + rng.standard_normal((USERS, len(x))) > 1.5 for x in (x_w, x_c))
    wants[:, 2] = False
    song, user = np.nonzero(wants.T)
    return heard.astype(np.float32), x_w, x_c, (song, user)


def naive_scores(
    plays: np.ndarray, x_w: np.ndarray, x_c: np.ndarray, ridge: float, penalty: float, of: str
) -> np.ndarray:
    """Each column of B is a ridge regression of one song on all the others; its rows or columns are predicted."""
    b = np.zeros((WARM, WARM))
    for j in range(WARM):
        others = np.delete(np.arange(WARM), j)
        a = plays[:, others].astype(np.float64)
        b[others, j] = np.linalg.solve(a.T @ a + penalty * np.eye(WARM - 1), a.T @ plays[:, j])
    x = x_w.astype(np.float64)
    predicted = x_c @ np.linalg.solve(x.T @ x + ridge * np.eye(D), x.T @ (b if of == "rows" else b.T))
    return plays @ predicted.T


@pytest.mark.parametrize("of", ["rows", "columns"])
@pytest.mark.parametrize("power", [0.0, 0.5])
@pytest.mark.parametrize("memory_mb", [1e-6, 64])
def test_audiences_are_those_of_the_scores(of: str, power: float, memory_mb: float) -> None:
    plays, x_w, x_c, _ = world(0)
    map_DW = ease.ease_map(sparse.csr_matrix(plays), x_w, 2.0, 5.0, of)
    found = ease.audience(sparse.csr_matrix(plays), map_DW, x_c, 7, power, memory_mb)
    expected = naive_scores(plays, x_w, x_c, 2.0, 5.0, of) * ((plays.sum(axis=1) + 1) ** -power)[:, None]
    for c in range(NEW):
        assert found.users_CB[c].tolist() == np.argsort(-expected[:, c], kind="stable")[:7].tolist()
        np.testing.assert_allclose(found.scores_CB[c], np.sort(expected[:, c])[::-1][:7], rtol=1e-3, atol=1e-5)
    whole = ease.ridge_to_ease(sparse.csr_matrix(plays), x_w, x_c, 2.0, 5.0, of)
    np.testing.assert_allclose(whole, naive_scores(plays, x_w, x_c, 2.0, 5.0, of), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("seed", range(4))
def test_the_setting_is_the_best_of_all_on_the_songs_given(seed: int) -> None:
    plays, x_w, x_c, (song, user) = world(seed)
    best: dict[tuple[float, float, str, float], float] = {}
    for ridge, penalty, of, power in product(ease.RIDGES, ease.EASES, ("rows", "columns"), ease.POWERS):
        score = naive_scores(plays, x_w, x_c, ridge, penalty, of) * ((plays.sum(axis=1) + 1) ** -power)[:, None]
        recalls = []
        for c in np.unique(song):
            true = set(user[song == c].tolist())
            recalls.append(len(true & set(np.argsort(-score[:, c])[:5].tolist())) / len(true))
        best[ridge, penalty, of, power] = float(np.mean(recalls))
    chosen = ease.choose(sparse.csr_matrix(plays), x_w, x_c, (song, user), 5)
    value = best[chosen["ridge"], chosen["ease"], chosen["of"], chosen["power"]]
    assert value == pytest.approx(max(best.values()), abs=1e-9) and len(set(best.values())) > 3


def test_without_a_validation_listener_the_setting_is_the_default() -> None:
    plays, x_w, x_c, _ = world(0)
    nobody = np.zeros(0, dtype=np.int64)
    assert ease.choose(sparse.csr_matrix(plays), x_w, x_c, (nobody, nobody), 5) == ease.DEFAULT
