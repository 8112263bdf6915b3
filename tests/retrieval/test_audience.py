"""Audience targeting against naive double loops: scores, ties, budgets, who is allowed, and unions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import sparse

from retrieval.audience import (
    CELL_BYTES,
    Allowed,
    Audience,
    Excluded,
    activity_scale,
    listener_scores,
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
        found = {song: score for score, song in zip(row, songs, strict=True) if song >= 0}
        low, high = min(found.values(), default=0), max(found.values(), default=0)
        scaled = {song: (score - low) / (high - low) if high > low else 1 for song, score in found.items()}
        result.append({song: (1 / K + (1 - 1 / K) * value) ** power for song, value in scaled.items()})
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


@pytest.mark.parametrize("budget", [1, 8, U])
@pytest.mark.parametrize(("chunk", "power"), [(1, 1.0), (3, 2.5), (256, 0.0)])
@pytest.mark.parametrize("restrict", [False, True])
@pytest.mark.filterwarnings("error")
def test_listeners_of_similar_songs_against_a_double_loop(
    budget: int, chunk: int, power: float, restrict: bool
) -> None:
    scores, positions, listening = world()
    scale, known = activity_scale(listening, 0.5), Listening(listening)
    allowed = np.random.default_rng(9).random((C, U)) < (0.5 if restrict else 2)
    allowed[4] &= not restrict
    expected = naive_audience(naive_weights(scores, positions, power), listening.toarray(), scale, budget, allowed)
    reach = Allowed(Excluded(), U, lambda rows, users: allowed[rows, users])
    weights = song_rows(positions, similarity_weights(scores, positions, power), S)

    def score(rows: slice) -> Any:
        found = listener_scores(weights[rows], known, scale)
        return reach.kept(found, rows) if restrict else found

    found = rank_by_score(score, C, budget, chunk)
    check(found, expected, budget)
    assert (found.users_CB[3] == -1).all(), "no similar song, no audience"
    assert not (found.users_CB == 5).any(), "a user who listened to nothing is nobody's listener"


@pytest.mark.parametrize("budget", [0, 1, 3, 10, 40, 70])
@pytest.mark.parametrize("seed", range(5))
def test_the_best_of_dense_rows_and_of_stored_entries(budget: int, seed: int) -> None:
    """Rows of unequal length, one without an entry, indices in no order, some entries −inf, many ties."""
    rng = np.random.default_rng(seed)
    dense = np.where(rng.random((6, 40)) < [[0.9], [0.3], [0.0], [0.1], [1.0], [0.5]], rng.integers(-3, 4, (6, 40)), -9)
    rows = [rng.permutation(np.flatnonzero(row > -9)) for row in dense]
    indptr = np.cumsum([0, *map(len, rows)])
    data = np.concatenate([row[at] for row, at in zip(dense, rows, strict=True)]).astype(np.float32)
    data[data == -3] = -np.inf
    stored = sparse.csr_matrix((data, np.concatenate(rows), indptr), shape=(6, 40))
    best = [sorted((u for u in range(40) if row[u] > -3), key=lambda u: (-row[u], u))[:budget] for row in dense]
    expected = [[(u, float(row[u])) for u in users] for row, users in zip(dense, best, strict=True)]
    check(top_entries(stored, budget), expected, budget)
    check(top_users(np.where(dense > -3, dense, -np.inf), budget), expected, budget)


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
@pytest.mark.parametrize("depths", [(12, 7), (12, 0), (0, 12), (0, 0)])
def test_union_against_a_loop(budget: int, seed: int, depths: tuple[int, int]) -> None:
    one, other = ranked_lists(seed, depths[0]), ranked_lists(seed + 100, depths[1])
    expected = []
    for lists in zip(one.users_CB.tolist(), other.users_CB.tolist(), strict=True):
        score: dict[int, float] = {}
        for users in lists:
            for rank, user in enumerate(users, start=1):
                if user >= 0:
                    score[user] = score.get(user, 0.0) + 1 / (60 + rank)
        expected.append(sorted(score.items(), key=lambda one: (-one[1], one[0]))[:budget])
    check(union(one, other, budget), expected, budget)


@pytest.mark.parametrize(("users", "songs"), [(1_000_000, 33), (1000, 33_554), (100_000_000, 1)])
def test_songs_at_once_fit_in_the_memory_given(users: int, songs: int) -> None:
    assert songs_at_once(1024, users) == songs
    assert songs * users * CELL_BYTES <= 1024 * 2**20 or songs == 1
    assert songs_at_once(1024, users, extra=users * CELL_BYTES) == max(1, songs // 2)
