"""CAT against naive loops: user vectors, k-means, relevance, and what holds where there is too little to cluster."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from scipy import sparse

from retrieval.audience import popularity_scale, songs_at_once
from retrieval.clusters import (
    clusters,
    lloyd_step,
    relevance,
    starts,
    user_vectors,
    users_near_centroids,
    users_near_songs,
)

C, P, K, D, S, U = 6, 17, 4, 5, 30, 60


def points(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Points of every song (some missing), and draws of the starts."""
    rng = np.random.default_rng(seed)
    present = rng.random((C, P)) < 0.8
    return rng.standard_normal((C, P, D)).astype(np.float32), present, rng.random((C, K))


def listening(seed: int = 0) -> tuple[sparse.csr_matrix, np.ndarray]:
    """Strengths 1 … 3, users 5 and 40 without a play; song vectors."""
    rng = np.random.default_rng(seed)
    heard = np.where(rng.random((U, S)) < 0.2, rng.integers(1, 4, (U, S)), 0).astype(np.float32)
    heard[[5, 40]] = 0
    return sparse.csr_matrix(heard), rng.standard_normal((S, D)).astype(np.float32)


def cost(x: np.ndarray, centres: np.ndarray) -> float:
    """The k-means objective: squared distances to the nearest centre."""
    return float(sum(min(((one - centre) ** 2).sum() for centre in centres) for one in x.astype(np.float64)))


def naive_lloyd(x: np.ndarray, centres: np.ndarray) -> tuple[np.ndarray, list[int]]:
    """One step for one song."""
    members: list[list[np.ndarray]] = [[] for _ in centres]
    for one in x:
        distances = [float(((one - centre) ** 2).sum()) for centre in centres]
        members[distances.index(min(distances))].append(one)
    moved = [np.mean(own, axis=0) if own else centre for own, centre in zip(members, centres, strict=True)]
    return np.stack(moved), [len(own) for own in members]


# ----------------------------------------------------------------------------------------- user vectors


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("chunk", [1, 7, 1000])
@pytest.mark.filterwarnings("error")
def test_user_vectors_against_a_loop(power: float, chunk: int) -> None:
    heard, song = listening()
    found = user_vectors(heard, song, popularity_scale(heard, power), chunk)
    assert found.shape == (U, D) and found.dtype == np.float32
    dense = heard.toarray()
    listeners = (dense > 0).sum(axis=0)
    for user in range(U):
        total = np.zeros(D)
        for s in range(S):
            total += dense[user, s] * (listeners[s] + 1.0) ** -power * song[s]
        length = np.linalg.norm(total)
        np.testing.assert_allclose(found[user], total / length if length else total, atol=1e-5)
    assert (found[[5, 40]] == 0).all()


# ---------------------------------------------------------------------------------------------- k-means


@pytest.mark.parametrize("seed", range(5))
def test_a_step_is_that_of_a_naive_loop_song_by_song(seed: int) -> None:
    x, present, draws = points(seed)
    centres = starts(x, present, draws)
    centres[:, -1] = 1000.0  # nobody's: stays
    moved, sizes = lloyd_step(x, present, centres)
    for c in range(C):
        expected, counts = naive_lloyd(x[c, present[c]], centres[c])
        np.testing.assert_allclose(moved[c], expected, atol=1e-5)
        assert sizes[c].tolist() == counts and counts[-1] == 0


@pytest.mark.parametrize("seed", range(5))
def test_starts_are_drawn_by_squared_distance(seed: int) -> None:
    x, present, draws = points(seed)
    found = starts(x, present, draws)
    for c in range(C):
        own = x[c, present[c]].astype(np.float64)
        weight = np.ones(len(own))
        for k in range(K):
            reach, at = 0.0, 0
            for at, one in enumerate(weight):  # noqa: B007
                reach += one
                if reach > draws[c, k] * weight.sum():
                    break
            np.testing.assert_array_equal(found[c, k], own[at].astype(np.float32))
            squared = ((own - own[at]) ** 2).sum(axis=1)
            weight = squared if k == 0 else np.minimum(weight, squared)


@pytest.mark.parametrize("seed", range(5))
def test_k_means_is_never_worse_than_one_naive_step_and_ends_where_steps_change_nothing(seed: int) -> None:
    x, present, draws = points(seed)
    begun = starts(x, present, draws)
    found, sizes = clusters(x, present, draws, steps=50)
    assert (sizes.sum(axis=1) == present.sum(axis=1)).all()
    better = 0
    for c in range(C):
        own = x[c, present[c]]
        once = cost(own, naive_lloyd(own, begun[c])[0])
        assert cost(own, found[c]) <= once + 1e-4
        better += cost(own, found[c]) < once - 1e-3
        np.testing.assert_allclose(naive_lloyd(own, found[c])[0], found[c], atol=1e-5)
    assert better, "steps after the first do something"


def test_clear_groups_are_found() -> None:
    centres = np.eye(D)[:K] * 10
    rng = np.random.default_rng(0)
    x = (np.repeat(centres, 5, axis=0) + 0.1 * rng.standard_normal((5 * K, D)))[None].astype(np.float32)
    found, sizes = clusters(x, np.ones((1, 5 * K), dtype=bool), rng.random((1, K)))
    assert sizes.tolist() == [[5] * K]
    means = sorted(x[0].reshape(K, 5, D).mean(axis=1).tolist())
    np.testing.assert_allclose(sorted(found[0].tolist()), means, atol=1e-5)


def test_fewer_points_than_clusters_and_equal_points() -> None:
    """What is left over has size 0 and stands on the largest cluster; without a point all is zero."""
    a, b = np.eye(D, dtype=np.float32)[:2]
    x = np.stack([np.stack([a, b, a * 9]), np.stack([a, a, a]), np.stack([a, b, b]), np.stack([a, b, a])])
    present = np.array([[True, True, False], [True] * 3, [True] * 3, [False] * 3])
    for seed in range(8):
        found, sizes = clusters(x, present, np.random.default_rng(seed).random((4, K)))
        assert sorted(sizes[0]) == [0, 0, 1, 1] and sizes[1].tolist() == [3, 0, 0, 0]
        assert sorted(sizes[2]) == [0, 0, 1, 2] and not sizes[3].any() and not found[3].any()
        assert {tuple(one) for one in found[0]} == {tuple(a), tuple(b)}
        assert (found[1] == a).all()
        for centre, size in zip(found[2], sizes[2], strict=True):
            assert (centre == (a if size == 1 else b)).all()


def test_what_a_missing_point_holds_does_not_matter() -> None:
    x, present, draws = points()
    other = np.where(present[:, :, None], x, 1e3).astype(np.float32)
    for one, two in zip(clusters(x, present, draws), clusters(other, present, draws), strict=True):
        np.testing.assert_array_equal(one, two)


# ------------------------------------------------------------------------------------------------- users


def test_relevance_against_a_loop() -> None:
    rng = np.random.default_rng(0)
    centres, users = rng.standard_normal((C, K, D)), rng.standard_normal((U, D))
    expected = [[max(float(u @ one) for one in own) for u in users] for own in centres]
    np.testing.assert_allclose(relevance(centres, users), expected)


@pytest.mark.parametrize("budget", [1, 8, U])
@pytest.mark.parametrize("song_weight", [0.0, 2.0])
@pytest.mark.parametrize("restrict", [False, True])
def test_users_near_centroids_against_a_loop(budget: int, song_weight: float, restrict: bool) -> None:
    heard, song = listening()
    users = user_vectors(heard, song, np.ones(S))
    rng = np.random.default_rng(1)
    new = rng.standard_normal((C, D)).astype(np.float32) * 7
    seeds = np.stack([rng.permutation(U)[:P] for _ in range(C)])
    seeds[0, :2] = [40, 5]
    seeds[1, 2:], seeds[2], seeds[3], seeds[3, 0] = -1, -1, -1, 5
    allowed = rng.random((C, U)) < (0.5 if restrict else 2)
    given = [users_near_centroids(seeds, users, new, K, budget, song_weight, (lambda rows: allowed[rows]) if restrict
             else None, chunk, seed=3) for chunk in (1, 4, 256)]  # fmt: skip
    present = (seeds >= 0) & (np.abs(users[seeds]).sum(axis=2) > 0)
    centres, _ = clusters(users[seeds], present, np.random.default_rng(3).random((C, K)))
    for c in range(C):
        own = [
            one / max(np.linalg.norm(one), 1e-9) + song_weight * new[c] / np.linalg.norm(new[c]) for one in centres[c]
        ]
        score = {u: max(float(users[u] @ one) for one in own) for u in range(U) if allowed[c, u] and u not in (5, 40)}
        ranked = sorted(score, key=lambda u: (-score[u], u))[:budget] if c not in (2, 3) else []
        for found in given:
            got = found.users_CB[c]
            assert (got >= 0).sum() == len(ranked) == len(set(got[got >= 0].tolist()))
            expected = [score[u] for u in ranked]
            np.testing.assert_allclose(found.scores_CB[c, : len(ranked)], expected, atol=1e-5)
            # A point that is a cluster of its own has relevance 1, but for rounding: such ties come in any order.
            np.testing.assert_allclose([score[u] for u in got[: len(ranked)].tolist()], expected, atol=1e-5)
            assert np.isneginf(found.scores_CB[c, len(ranked) :]).all()


def test_the_seed_alone_is_random() -> None:
    heard, song = listening()
    users = user_vectors(heard, song, np.ones(S))
    seeds = np.tile(np.setdiff1d(np.arange(40), [5]), (C, 1))
    one, again, other = (users_near_centroids(seeds, users, song[:C], K, 10, seed=seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(one.users_CB, again.users_CB)
    np.testing.assert_array_equal(one.scores_CB, again.scores_CB)
    assert (one.users_CB != other.users_CB).any()


def test_scores_stay_within_the_memory_given() -> None:
    n, songs, rng = 20_000, 120, np.random.default_rng(0)
    users, new = rng.standard_normal((n, 8), dtype=np.float32), rng.standard_normal((songs, 8), dtype=np.float32)
    seeds = np.tile(np.arange(20), (songs, 1))
    peaks = []
    for chunk in (songs_at_once(10, n), songs):
        tracemalloc.start()
        users_near_centroids(seeds, users, new, 8, 50, chunk=chunk)
        peaks.append(tracemalloc.get_traced_memory()[1] / 2**20)
        tracemalloc.stop()
    assert peaks[0] < 10 < peaks[1], "all songs at once would need more"


def test_users_near_songs_sum_the_similarities_of_all_their_songs() -> None:
    """Against a loop: Σ over his songs of strength · ⟨song, new⟩ / (length of their sum · of the new song)."""
    rng = np.random.default_rng(5)
    songs, new = rng.standard_normal((9, 4)), rng.standard_normal((3, 4))
    listening = sparse.csr_matrix(rng.integers(0, 4, (7, 9)) * (rng.random((7, 9)) < 0.4))
    listening = sparse.csr_matrix(listening.multiply(np.arange(7)[:, None] != 2))  # user 2 has no play
    users = user_vectors(listening, songs, np.ones(9))
    allowed = rng.random((3, 7)) < 0.8
    for mask in (np.ones((3, 7), dtype=bool), allowed):
        for chunk in (1, 256):
            found = users_near_songs(users, new, 5, lambda rows, mask=mask: mask[rows], chunk)
            for c in range(3):
                expected = {}
                for u in range(7):
                    plays = listening[u].toarray().ravel()
                    total = sum(plays[s] * songs[s] for s in range(9))
                    if plays.any() and mask[c, u]:
                        similarities = sum(plays[s] * float(songs[s] @ new[c]) for s in range(9))
                        expected[u] = similarities / np.linalg.norm(total) / np.linalg.norm(new[c])
                best = sorted(expected, key=lambda u: -expected[u])[:5]
                assert found.users_CB[c].tolist() == best + [-1] * (5 - len(best))
                np.testing.assert_allclose(found.scores_CB[c, : len(best)], [expected[u] for u in best], rtol=1e-4)
