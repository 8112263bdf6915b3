"""Audience targeting against naive double loops: scores, ties, budgets, who is
allowed, unions and caps."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scipy import sparse

from retrieval.audience import (
    CELL_BYTES,
    Audience,
    activity_scale,
    cap_users,
    listener_scores,
    popularity_scale,
    rank_by_score,
    similarity_weights,
    song_rows,
    songs_at_once,
    top_entries,
    top_users,
    union,
)
from retrieval.listening import Listening

C, S, U, K = 7, 30, 50, 6


def weight_rows(scores: np.ndarray, positions: np.ndarray, n_songs: int, power: float = 1.0) -> sparse.csr_matrix:
    return song_rows(positions, similarity_weights(scores, positions, power), n_songs)


def listeners(weights: sparse.csr_matrix, listening: sparse.csr_matrix, scale: np.ndarray, *ranking: Any) -> Audience:
    known, (budget, chunk, allowed) = Listening(listening), ranking
    return rank_by_score(
        lambda rows: listener_scores(weights[rows], known, scale), weights.shape[0], budget, chunk, allowed
    )


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
    weights = weight_rows(scores, positions, S, power).toarray()
    for got, expected in zip(weights, naive_weights(scores, positions, power), strict=True):
        assert {int(s): got[s] for s in got.nonzero()[0]} == pytest.approx(expected, rel=1e-5)
    assert weights.max() == pytest.approx(1.0) and (weights >= 0).all()


def test_similarity_weights_see_only_order_and_spacing() -> None:
    scores, positions, _ = world()
    shifted = np.where(positions >= 0, scores * 4 - 1000, scores)
    one, other = (weight_rows(x, positions, S).toarray() for x in (scores, shifted))
    np.testing.assert_allclose(one, other, rtol=1e-3)


def test_equal_scores_weigh_the_same() -> None:
    weights = weight_rows(np.full((1, 4), -2.0, np.float32), np.array([[3, 1, 2, -1]]), 5)
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
def test_listeners_of_similar_songs_against_a_double_loop(budget: int, chunk: int, restrict: bool) -> None:
    scores, positions, listening = world()
    scale = activity_scale(listening, 0.5)
    allowed = np.random.default_rng(9).random((C, U)) < (0.5 if restrict else 2)
    expected = naive_audience(naive_weights(scores, positions, 1.0), listening.toarray(), scale, budget, allowed)
    mask = (lambda rows: allowed[rows]) if restrict else None
    found = listeners(weight_rows(scores, positions, S), listening, scale, budget, chunk, mask)
    check(found, expected, budget)
    assert (found.users_CB[3] == -1).all(), "no similar song, no audience"
    assert not (found.users_CB == 5).any(), "a user who listened to nothing is nobody's listener"


def test_nobody_allowed() -> None:
    scores, positions, listening = world()
    weights = weight_rows(scores, positions, S)
    nobody = np.zeros((C, U), dtype=bool)
    found = listeners(weights, listening, np.ones(U), 4, 256, lambda rows: nobody[rows])
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
    assert found.users_CB.tolist() == [[1, 0] + [-1] * 8]
    assert top_users(np.ones((2, 3)), 0).users_CB.shape == (2, 0)


def test_negative_scores_may_be_ranked_by_a_dense_score() -> None:
    score = np.random.default_rng(0).normal(-5, 1, (C, U))
    for chunk in (1, 3, 256):
        found = rank_by_score(lambda rows: score[rows], C, 8, chunk)
        assert (found.users_CB == np.argsort(-score, axis=1)[:, :8]).all()
        np.testing.assert_array_equal(found.scores_CB, -np.sort(-score, axis=1)[:, :8])


@pytest.mark.parametrize("budget", [0, 1, 3, 10, 40, 70])
@pytest.mark.parametrize("seed", range(5))
def test_stored_entries_are_ranked_as_their_dense_rows(budget: int, seed: int) -> None:
    """Rows of unequal length, one without an entry, indices in no order, some entries −inf, many ties."""
    rng = np.random.default_rng(seed)
    dense = np.where(rng.random((6, 40)) < [[0.9], [0.3], [0.0], [0.1], [1.0], [0.5]], rng.integers(-3, 4, (6, 40)), -9)
    rows = [rng.permutation(np.flatnonzero(row > -9)) for row in dense]
    indptr = np.cumsum([0, *map(len, rows)])
    data = np.concatenate([row[at] for row, at in zip(dense, rows, strict=True)]).astype(np.float32)
    data[data == -3] = -np.inf
    found = top_entries(sparse.csr_matrix((data, np.concatenate(rows), indptr), shape=(6, 40)), budget)
    assert found.users_CB.shape == found.scores_CB.shape == (6, budget)
    for row, users, values in zip(dense, found.users_CB, found.scores_CB, strict=True):
        expected = sorted((u for u in range(40) if row[u] > -3), key=lambda u: (-row[u], u))[:budget]
        assert users.tolist() == expected + [-1] * (len(users) - len(expected))
        assert values[: len(expected)].tolist() == row[expected].tolist() and np.isneginf(values[len(expected) :]).all()


def ranked_lists(seed: int, budget: int, users: int = 25, songs: int = 9) -> Audience:
    """Audiences of random users with falling scores that repeat; one list is short, one empty."""
    rng = np.random.default_rng(seed)
    users_CB = np.stack([rng.permutation(users)[:budget] for _ in range(songs)])
    scores_CB = -np.sort(-rng.integers(0, 6, users_CB.shape).astype(np.float32), axis=1)
    for row, length in ((1, 2), (4, 0)):
        users_CB[row, length:], scores_CB[row, length:] = -1, -np.inf
    return Audience(users_CB, scores_CB)


@pytest.mark.parametrize("budget", [1, 4, 12, 60])
@pytest.mark.parametrize("seed", range(3))
def test_union_against_a_loop(budget: int, seed: int) -> None:
    one, other = ranked_lists(seed, 12), ranked_lists(seed + 100, 7)
    expected = []
    for lists in zip(one.users_CB.tolist(), other.users_CB.tolist(), strict=True):
        score: dict[int, float] = {}
        for users in lists:
            for rank, user in enumerate(users, start=1):
                if user >= 0:
                    score[user] = score.get(user, 0.0) + 1 / (60 + rank)
        expected.append(sorted(score.items(), key=lambda one: (-one[1], one[0]))[:budget])
    check(union(one, other, budget), expected, budget)


def test_union_with_nobody_is_the_other() -> None:
    one = ranked_lists(0, 12)
    nobody = Audience(np.full((9, 5), -1), np.full((9, 5), -np.inf))
    for found in (union(one, nobody, 12), union(nobody, one, 12)):
        assert found.users_CB.tolist() == one.users_CB.tolist()
    assert (union(nobody, nobody, 3).users_CB == -1).all()


def test_who_is_in_both_lists_goes_ahead() -> None:
    one, other = (Audience(np.array([users]), np.zeros((1, 3))) for users in ([1, 2, 3], [4, 3, 5]))
    assert union(one, other, 4).users_CB.tolist() == [[3, 1, 4, 2]]


def naive_caps(found: Audience, cap: int, budget: int) -> list[list[tuple[int, float]]]:
    """Rank by rank, and within a rank one song after another by score."""
    taken: dict[int, int] = {}
    result: list[list[tuple[int, float]]] = [[] for _ in found.users_CB]
    for rank in range(found.users_CB.shape[1]):
        asking = [(-float(found.scores_CB[c, rank]), c) for c in range(len(result)) if found.users_CB[c, rank] >= 0]
        for score, c in sorted(asking):
            user = int(found.users_CB[c, rank])
            if len(result[c]) < budget and taken.get(user, 0) < cap:
                taken[user] = taken.get(user, 0) + 1
                result[c].append((user, -score))
    return result


@pytest.mark.parametrize("cap", [1, 2, 5, 9])
@pytest.mark.parametrize("budget", [1, 4, 12, 20])
@pytest.mark.parametrize("seed", range(3))
def test_caps_against_a_loop(cap: int, budget: int, seed: int) -> None:
    found = ranked_lists(seed, 12)
    capped = cap_users(found, cap, budget)
    check(capped, naive_caps(found, cap, budget), budget)
    assert capped.scores_CB.dtype == found.scores_CB.dtype == np.float32
    named = capped.users_CB[capped.users_CB >= 0]
    assert np.bincount(named, minlength=1).max(initial=0) <= cap
    if cap == 9 and budget >= 12:
        assert capped.users_CB[:, :12].tolist() == found.users_CB.tolist(), "a cap nobody meets changes nothing"


def test_a_cap_on_nobody() -> None:
    nobody = Audience(np.full((2, 5), -1), np.full((2, 5), -np.inf))
    assert (cap_users(nobody, 1, 3).users_CB == -1).all()


@pytest.mark.parametrize(("users", "songs"), [(1_000_000, 33), (1000, 33_554), (100_000_000, 1)])
def test_songs_at_once_fit_in_the_memory_given(users: int, songs: int) -> None:
    assert songs_at_once(1024, users) == songs
    assert songs * users * CELL_BYTES <= 1024 * 2**20 or songs == 1
    assert songs_at_once(1024, users, extra=users * CELL_BYTES) == max(1, songs // 2)


def peak_mb(work: Callable[[], Any]) -> float:
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1] / 2**20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("restrict", [False, True])
def test_scores_stay_within_the_memory_given(restrict: bool) -> None:
    """The worst listening there is: every user has a score for every song."""
    users, songs, rng = 20_000, 120, np.random.default_rng(0)
    listening = sparse.csr_matrix(rng.integers(1, 4, (users, 5)).astype(np.float32))
    weights, scale = sparse.csr_matrix(rng.random((songs, 5), dtype=np.float32)), np.ones(users, dtype=np.float32)
    allowed = (lambda rows: np.ones((rows.stop - rows.start, users), dtype=bool)) if restrict else None

    def peak(chunk: int) -> float:
        return peak_mb(lambda: listeners(weights, listening, scale, 50, chunk, allowed))

    assert peak(songs_at_once(20, users)) < 20 < peak(songs), "all songs at once would need more"
