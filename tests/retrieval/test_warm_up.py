"""Behaviour joins content: against a ridge regression solved row by row, and at the ends."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from retrieval.index import unit_rows
from retrieval.warm_up import RIDGE, Level, warm_vectors

RNG = np.random.default_rng(0)
USERS, D = 300, 8


def users(common: float = 1.0) -> np.ndarray:
    """Tastes with much in common, as trained ones have."""
    return unit_rows(RNG.standard_normal((USERS, D)) + common * 3 * np.eye(D)[0])


def test_behaviour_is_a_ridge_regression_of_who_played() -> None:
    user, first = users(), sparse.random(6, USERS, 0.1, format="csr", random_state=1, dtype=np.float32)
    found = warm_vectors(unit_rows(RNG.standard_normal((6, D))), first, user, prior=1e-9)
    moment = user.T.astype(np.float64) @ user
    ridge = RIDGE * np.linalg.eigvalsh(moment).mean()
    for c in range(6):
        played = first[c].toarray()[0]
        stacked = np.concatenate([user, np.sqrt(ridge) * np.eye(D)])
        solution = np.linalg.lstsq(stacked, np.concatenate([played, np.zeros(D)]), rcond=None)[0]
        np.testing.assert_allclose(found[c], solution / np.linalg.norm(solution), rtol=1e-3, atol=1e-5)


def test_no_play_leaves_content_and_many_leave_behaviour() -> None:
    user, content = users(), RNG.standard_normal((4, D)).astype(np.float32)
    first = sparse.lil_matrix((4, USERS), dtype=np.float32)
    first[1, :1], first[2, :10], first[3, :] = 1, 1, RNG.random(USERS)
    first = sparse.csr_matrix(first)
    found = warm_vectors(content, first, user, prior=10)
    np.testing.assert_allclose(found[0], content[0], rtol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), np.linalg.norm(content, axis=1), rtol=1e-5)
    behaviour = unit_rows(warm_vectors(content, first, user, prior=1e-9)) * [[0], [1], [1], [1]]
    unit = unit_rows(content)
    for c, n in enumerate((0, 1, 10, USERS)):
        expected = (10 * unit[c] + n * behaviour[c]) / (10 + n)
        expected *= np.linalg.norm(content[c]) / np.linalg.norm(expected)
        np.testing.assert_allclose(found[c], expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(warm_vectors(content, first, user, prior=1e9), content, rtol=1e-3, atol=1e-5)


def test_listeners_of_whom_nothing_is_known_change_nothing() -> None:
    user, content = users(), RNG.standard_normal((2, D)).astype(np.float32)
    user[:5] = 0
    first = sparse.csr_matrix((np.ones(5), (np.zeros(5, dtype=int), np.arange(5))), shape=(2, USERS))
    found = warm_vectors(content, first, user, 10)
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found, content, rtol=1e-5)
    nobody = warm_vectors(content, sparse.csr_matrix((2, USERS)), np.zeros_like(user), 10)
    np.testing.assert_allclose(nobody, content, rtol=1e-5)


@pytest.mark.parametrize("common", [0.0, 1.0])
def test_plays_move_a_song_over_no_more_boundaries(common: float) -> None:
    """Of users drawn at random, who have nothing in common but what all have; the order of users stays."""
    user = users(common) * RNG.uniform(0.9, 1.1, (USERS, 1))
    content = unit_rows(RNG.standard_normal((40, D)) + common * np.eye(D)[0]) * 4
    first = sparse.csr_matrix((RNG.random((40, USERS)) < 0.2).astype(np.float32))
    warm = warm_vectors(content, first, user, prior=5)
    kept = Level.of(user).kept(warm, content)
    scores = {name: vectors @ user.T for name, vectors in (("content", content), ("warm", warm), ("kept", kept))}
    np.testing.assert_allclose(scores["kept"].mean(axis=1), scores["content"].mean(axis=1), atol=1e-5)
    assert np.abs((scores["warm"] - scores["content"]).mean(axis=1)).max() > 0.1
    shift = scores["kept"] - scores["warm"]
    if common:  # then all scores of a song move alike
        assert np.abs(shift.mean(axis=1)).mean() > 3 * shift.std(axis=1).mean()
    untouched = Level.of(user).kept(content.astype(np.float32), content.astype(np.float32))
    np.testing.assert_array_equal(untouched, content.astype(np.float32))
    assert np.isfinite(Level.of(np.zeros_like(user)).kept(warm, content)).all()
