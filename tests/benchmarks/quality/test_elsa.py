"""ELSA: its loss against the loop, its training against a planted structure, its cold rows against the regression."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy import sparse

from benchmarks.quality.item_cold.elsa import GRIDS, elsa, elsa_loss, song_vectors

torch.set_num_threads(1)


def planted(users: int = 200, songs: int = 40, cold: int = 12, tastes: int = 4) -> tuple[Any, ...]:
    """Users play songs of their own taste, 1 in 50 others; content tells the taste through noise."""
    rng = np.random.default_rng(0)
    taste = np.arange(songs + cold) % tastes
    own = (np.arange(users) % tastes)[:, None] == taste
    heard = rng.random(own.shape) < np.where(own, 0.5, 0.02)
    heard[7] = False  # a user without a play
    heard[:, 5] = False  # a song without one
    x = rng.standard_normal((tastes, 10))[taste] + 0.3 * rng.standard_normal((songs + cold, 10))
    plays = sparse.csr_matrix(heard[:, :songs].astype(np.float32))
    return plays, x[:songs].astype(np.float32), x[songs:].astype(np.float32), taste, own[:, songs:]


def test_the_loss_is_the_loop() -> None:
    rng = np.random.default_rng(1)
    x = (rng.random((5, 8)) < 0.5).astype(np.float64)
    x[:, 0] = 1
    a = rng.standard_normal((8, 3))
    a /= np.linalg.norm(a, axis=1, keepdims=True)
    b = np.zeros((8, 8))
    for i in range(8):
        for j in range(8):
            b[i, j] = a[i] @ a[j] - (i == j)
    np.testing.assert_allclose(np.diag(b), 0, atol=1e-12)  # no song speaks for itself
    total = 0.0
    for row in x:
        y = np.array([sum(row[i] * b[i, j] for i in range(8)) for j in range(8)])
        total += float(((row / np.linalg.norm(row) - y / np.linalg.norm(y)) ** 2).sum())
    assert float(elsa_loss(torch.from_numpy(x), torch.from_numpy(a))) == pytest.approx(total / 5)


def test_training_lowers_the_loss_and_finds_the_planted_tastes() -> None:
    plays, *_, taste, _ = planted()
    a, losses = song_vectors(plays, 4, seed=0, steps=150)
    assert np.mean(losses[-10:]) < 0.75 * np.mean(losses[:3])
    np.testing.assert_allclose(np.linalg.norm(a, axis=1), 1, rtol=1e-5)
    played = np.flatnonzero(np.bincount(plays.indices, minlength=40))
    weights, same = a[played] @ a[played].T, taste[played][:, None] == taste[played]
    off = ~np.eye(len(played), dtype=bool)
    assert weights[same & off].mean() > 0.9 and np.abs(weights[~same]).mean() < 0.3
    assert weights[same & off].min() > weights[~same].max()


def test_too_few_dimensions_cannot_hold_the_tastes() -> None:
    plays = planted()[0]
    one, four = (np.mean(song_vectors(plays, dim, steps=150)[1][-10:]) for dim in (1, 4))
    assert four < 0.8 * one


def test_scores_are_the_loop() -> None:
    plays, x_w, x_c, *_ = planted()
    a, _ = song_vectors(plays, 4, seed=2, steps=20)
    played = [w for w in range(40) if plays[:, w].nnz]
    assert len(played) == 39
    stacked = np.vstack([x_w[played], np.sqrt(3.0) * np.eye(10)])
    padded = np.vstack([a[played], np.zeros((10, 4))])
    row = x_c @ np.linalg.lstsq(stacked, padded, rcond=None)[0]
    row /= np.linalg.norm(row, axis=1, keepdims=True)
    dense, expected = plays.toarray(), np.zeros((200, 12))
    for u in range(200):
        for c in range(12):
            expected[u, c] = sum(a[w] @ row[c] for w in range(40) if dense[u, w])
    score = elsa(plays, x_w, x_c, seed=2, dim=4, ridge=3.0, steps=20)
    np.testing.assert_allclose(score, expected, rtol=1e-3, atol=1e-4)


def test_finds_the_listeners_of_cold_songs() -> None:
    plays, x_w, x_c, _, own = planted()
    score = elsa(plays, x_w, x_c, dim=4, ridge=1.0)
    above = [(score[u][own[u]][:, None] > score[u][~own[u]]).mean() for u in range(200) if u != 7]
    assert np.mean(above) > 0.95
    np.testing.assert_array_equal(score[7], 0)


def test_same_seed_same_scores_and_only_the_own_column_changes() -> None:
    plays, x_w, x_c, *_ = planted()
    kept: dict[str, Any] = {}
    for options in GRIDS["elsa"][::5]:
        alone = elsa(plays, x_w, x_c, seed=1, steps=5, **options)
        assert np.isfinite(alone).all() and alone.dtype == np.float32
        np.testing.assert_array_equal(elsa(plays, x_w, x_c, seed=1, steps=5, kept=kept, **options), alone)
    assert set(kept["plays"]) == {32, 128}, "each trained once"
    other = x_c.copy()
    other[4], other[6] = -other[4], 0
    before, after = (elsa(plays, x_w, x, seed=1, steps=5) for x in (x_c, other))
    rest = [c for c in range(12) if c not in (4, 6)]
    np.testing.assert_allclose(before[:, rest], after[:, rest], rtol=1e-5, atol=1e-6)
    assert np.abs(before[:, 4] - after[:, 4]).max() > 1e-3
    np.testing.assert_array_equal(after[:, 6], 0)
