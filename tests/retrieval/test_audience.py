"""Audience targeting against naive double loops: scores, ties, budgets, who is allowed, and the reasons given."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import sparse

from retrieval.audience import (
    activity_scale,
    explain,
    listeners_of_similar,
    margins,
    popularity_scale,
    rank_by_score,
    similarity_weights,
    top_users,
)

C, S, U, K = 7, 30, 50, 6


def world(seed: int = 0) -> tuple[np.ndarray, np.ndarray, sparse.csr_matrix]:
    """Scores and positions of similar songs (some lists are short, one is empty), and listening strengths 1 … 3."""
    rng = np.random.default_rng(seed)
    positions = np.stack([rng.choice(S, K, replace=False) for _ in range(C)])
    scores = -np.sort(-rng.normal(0, 3, (C, K)), axis=1).astype(np.float32)
    for row, length in ((1, 3), (2, 1), (3, 0)):
        positions[row, length:], scores[row, length:] = -1, -np.inf
    listening = np.where(rng.random((U, S)) < 0.2, rng.integers(1, 4, (U, S)), 0).astype(np.float32)
    listening[5] = 0
    return scores, positions, sparse.csr_matrix(listening)


def naive_weights(scores: np.ndarray, positions: np.ndarray, power: float) -> list[dict[int, float]]:
    result: list[dict[int, float]] = []
    for row, songs in zip(scores.tolist(), positions.tolist(), strict=True):
        found = [(score, song) for score, song in zip(row, songs, strict=True) if song >= 0]
        low, high = min((s for s, _ in found), default=0), max((s for s, _ in found), default=0)
        result.append(
            {
                song: (1 / K + (1 - 1 / K) * ((score - low) / (high - low) if high > low else 1)) ** power
                for score, song in found
            }
        )
    return result


def naive_audience(
    weights: list[dict[int, float]], listening: np.ndarray, scale: np.ndarray, budget: int, allowed: np.ndarray
) -> list[list[tuple[int, float]]]:
    result = []
    for c, near in enumerate(weights):
        ranked = []
        for user in range(len(listening)):
            score = scale[user] * sum(weight * listening[user, song] for song, weight in near.items())
            if score > 0 and allowed[c, user]:
                ranked.append((user, float(score)))
        ranked.sort(key=lambda one: (-one[1], one[0]))
        result.append(ranked[:budget])
    return result


def check(audience: Any, expected: list[list[tuple[int, float]]], budget: int) -> None:
    assert audience.users_CB.shape == audience.scores_CB.shape == (len(expected), budget)
    for users, scores, row in zip(audience.users_CB, audience.scores_CB, expected, strict=True):
        n = len(row)
        assert users[:n].tolist() == [user for user, _ in row]
        assert scores[:n].tolist() == pytest.approx([score for _, score in row], rel=1e-5)
        assert (users[n:] == -1).all() and np.isneginf(scores[n:]).all()


@pytest.mark.parametrize("power", [1.0, 2.5, 0.0])
@pytest.mark.filterwarnings("error")
def test_similarity_weights_against_a_loop(power: float) -> None:
    scores, positions, _ = world()
    weights = similarity_weights(scores, positions, S, power).toarray()
    for got, expected in zip(weights, naive_weights(scores, positions, power), strict=True):
        assert {int(s): got[s] for s in got.nonzero()[0]} == pytest.approx(expected, rel=1e-5)
    assert weights.max() == pytest.approx(1.0) and (weights >= 0).all()


def test_similarity_weights_see_only_order_and_spacing() -> None:
    scores, positions, _ = world()
    shifted = np.where(positions >= 0, scores * 4 - 1000, scores)
    one, other = (similarity_weights(x, positions, S).toarray() for x in (scores, shifted))
    np.testing.assert_allclose(one, other, rtol=1e-3)


def test_equal_scores_weigh_the_same() -> None:
    weights = similarity_weights(np.full((1, 4), -2.0, np.float32), np.array([[3, 1, 2, -1]]), 5)
    assert weights.toarray().tolist() == [[0, 1, 1, 1, 0]]


def test_activity_scale() -> None:
    _, _, listening = world()
    expected = [(np.count_nonzero(row) + 1) ** -0.5 for row in listening.toarray()]
    assert activity_scale(listening, 0.5).tolist() == pytest.approx(expected, rel=1e-6)
    assert (activity_scale(listening, 0.0) == 1).all()


def test_popularity_scale() -> None:
    _, _, listening = world()
    listening[:, 4] = 0
    listening.eliminate_zeros()
    expected = [(np.count_nonzero(column) + 1) ** -0.5 for column in listening.toarray().T]
    assert popularity_scale(listening, 0.5).tolist() == pytest.approx(expected, rel=1e-6)
    assert expected[4] == 1 and (popularity_scale(listening, 0.0) == 1).all()


@pytest.mark.parametrize("budget", [1, 8, U])
@pytest.mark.parametrize("chunk", [1, 3, 256])
@pytest.mark.parametrize("restrict", [False, True])
def test_listeners_of_similar_against_a_double_loop(budget: int, chunk: int, restrict: bool) -> None:
    scores, positions, listening = world()
    scale = activity_scale(listening, 0.5)
    allowed = np.random.default_rng(9).random((C, U)) < (0.5 if restrict else 2)
    expected = naive_audience(naive_weights(scores, positions, 1.0), listening.toarray(), scale, budget, allowed)
    found = listeners_of_similar(
        similarity_weights(scores, positions, S),
        listening,
        scale,
        budget,
        (lambda rows: allowed[rows]) if restrict else None,
        chunk,
    )
    check(found, expected, budget)
    assert (found.users_CB[3] == -1).all(), "no similar song, no audience"
    assert not (found.users_CB == 5).any(), "a user who listened to nothing is nobody's listener"


def test_nobody_allowed() -> None:
    scores, positions, listening = world()
    weights = similarity_weights(scores, positions, S)
    nobody = np.zeros((C, U), dtype=bool)
    found = listeners_of_similar(weights, listening, np.ones(U), 4, lambda rows: nobody[rows])
    assert (found.users_CB == -1).all() and np.isneginf(found.scores_CB).all()


@pytest.mark.parametrize("budget", [1, 3, 10, 40])
@pytest.mark.parametrize("seed", range(5))
def test_ties_go_to_the_lower_user_number_also_at_the_edge_of_the_budget(budget: int, seed: int) -> None:
    """Listening counts are small whole numbers: ties at the edge are the rule, not the exception."""
    score = np.random.default_rng(seed).integers(0, 4, (6, 40)).astype(np.float32)
    score[score == 0] = -np.inf
    found = top_users(score, budget)
    for row, users, values in zip(score, found.users_CB, found.scores_CB, strict=True):
        expected = sorted((u for u in range(40) if row[u] > 0), key=lambda u: (-row[u], u))[:budget]
        assert users[users >= 0].tolist() == expected
        assert values[: len(expected)].tolist() == row[expected].tolist() and np.isneginf(values[len(expected) :]).all()


def test_budget_larger_than_the_world() -> None:
    found = top_users(np.array([[1.0, 3.0, -np.inf]]), 10)
    assert found.users_CB.tolist() == [[1, 0, -1]]
    assert top_users(np.ones((2, 3)), 0).users_CB.shape == (2, 0)


def test_negative_scores_may_be_ranked_by_a_dense_score() -> None:
    score = np.random.default_rng(0).normal(-5, 1, (C, U))
    for chunk in (1, 3, 256):
        found = rank_by_score(lambda rows: score[rows], C, 8, chunk)
        assert (found.users_CB == np.argsort(-score, axis=1)[:, :8]).all()
        np.testing.assert_array_equal(found.scores_CB, -np.sort(-score, axis=1)[:, :8])


def test_margins_against_a_loop() -> None:
    rng = np.random.default_rng(0)
    item, user, boundary = rng.standard_normal((3, 4)), rng.standard_normal((5, 4)), rng.standard_normal(5)
    expected = [[float(i @ u - b) for u, b in zip(user, boundary, strict=True)] for i in item]
    np.testing.assert_allclose(margins(item, user, boundary), expected)


@pytest.mark.parametrize("top", [1, 3, 10])
@pytest.mark.parametrize("chunk", [1, 3, 64])
def test_explain_against_a_loop(top: int, chunk: int) -> None:
    scores, positions, listening = world()
    sparse_weights = similarity_weights(scores, positions, S)
    weights = np.take_along_axis(sparse_weights.toarray(), np.maximum(positions, 0), axis=1) * (positions >= 0)
    audience = listeners_of_similar(sparse_weights, listening, activity_scale(listening, 0.5), 12)
    reasons = explain(audience.users_CB, positions, weights, listening, top, chunk)
    assert reasons.shape == (C, 12, top)
    heard = listening.toarray()
    for c in range(C):
        for b, user in enumerate(audience.users_CB[c].tolist()):
            values = [(w * heard[user, s], s) for s, w in zip(positions[c], weights[c], strict=True) if s >= 0]
            ranked = [s for value, s in sorted(values, key=lambda one: -one[0]) if user >= 0 and value > 0][:top]
            got = reasons[c, b]
            assert got.tolist() == ranked + [-1] * (top - len(ranked))
            assert user < 0 or len(got[got >= 0]), "whoever is in the audience is there because of a song"


def test_explain_in_an_empty_world() -> None:
    nobody = sparse.csr_matrix((4, 5), dtype=np.float32)
    reasons = explain(np.array([[0, -1]]), np.array([[1, -1, 2]]), np.ones((1, 3)), nobody)
    assert reasons.tolist() == [[[-1] * 3] * 2]


def test_explain_with_user_and_song_numbers_beyond_32_bits() -> None:
    """user × n_songs must not wrap around."""
    n_users, n_songs = 70_000, 70_000
    listening = sparse.csr_matrix(([2.0], ([69_999], [69_998])), shape=(n_users, n_songs), dtype=np.float32)
    users, songs = np.array([[69_999, 3]], dtype=np.int32), np.array([[69_998, 5]], dtype=np.int32)
    assert explain(users, songs, np.ones((1, 2)), listening, 1).tolist() == [[[69_998], [-1]]]
