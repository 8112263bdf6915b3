"""CAT against naive loops: user vectors, k-means, relevance, and what holds where there is too little to cluster."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from retrieval.audience import popularity_scale
from retrieval.clusters import (
    audience_clusters,
    centroids,
    cluster_counts,
    clusters,
    lloyd_step,
    relevance,
    starts,
    user_vectors,
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


def naive_lloyd(x: np.ndarray, centres: np.ndarray) -> tuple[np.ndarray, list[int]]:
    """One step for one song."""
    members: list[list[np.ndarray]] = [[] for _ in centres]
    for one in x:
        distances = [float(((one - centre) ** 2).sum()) for centre in centres]
        members[distances.index(min(distances))].append(one)
    moved = [np.mean(own, axis=0) if own else centre for own, centre in zip(members, centres, strict=True)]
    return np.stack(moved), [len(own) for own in members]


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


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("steps", [1, 2, 50])
def test_k_means_is_that_of_a_naive_loop_song_by_song(seed: int, steps: int) -> None:
    x, present, draws = points(seed)
    begun = starts(x, present, draws)
    found, sizes = clusters(x, present, draws, steps)
    for c in range(C):
        expected = begun[c]
        for _ in range(steps):
            expected, counts = naive_lloyd(x[c, present[c]], expected)
        assert sizes[c].tolist() == counts and min(counts) > 0
        np.testing.assert_allclose(found[c], expected, atol=1e-5)


def test_a_centroid_without_a_point_stays() -> None:
    x, present, draws = points()
    centres = starts(x, present, draws)
    centres[:, -1] = 1000.0
    moved, sizes = lloyd_step(x, present, centres)
    assert (moved[:, -1] == 1000).all() and not sizes[:, -1].any() and (moved[:, 0] != centres[:, 0]).any()


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


def test_cluster_counts_against_a_loop() -> None:
    sizes = [*range(0, 60), 74, 75, 99, 100, 300, 399, 400, 424, 425, 1000]
    present = np.arange(1000) < np.array(sizes)[:, None]
    expected = []
    for size in sizes:
        count = 2
        while count < 16 and (count + 1) * 25 <= size:
            count += 1
        expected.append(count)
    assert cluster_counts(present).tolist() == expected and {2, 3, 4, 12, 15, 16} == set(expected)


def test_a_song_has_as_many_clusters_as_its_own_audience_asks_for() -> None:
    """Songs side by side, of other sizes, have the clusters that each has alone with its number given."""
    rng, n = np.random.default_rng(0), 500
    users = rng.standard_normal((n, D)).astype(np.float32)
    users[7] = 0  # no taste: no point
    sizes = [0, 1, 3, 49, 75, 101, 426]
    seeds = np.full((len(sizes), 450), -1)
    for c, size in enumerate(sizes):
        seeds[c, :size] = rng.permutation(np.delete(np.arange(n), 7))[:size]
    seeds[4, 75] = 7
    found, counted = audience_clusters(seeds, users, 0, 5)
    assert (counted > 0).sum(axis=1).tolist() == [0, 1, 2, 2, 3, 4, 16] and counted.sum(axis=1).tolist() == sizes
    for c, size in enumerate(sizes):
        own = int(np.clip(size // 25, 2, 16))
        centre, count = audience_clusters(seeds[c : c + 1], users, own, 5)
        assert counted[c, :own].tolist() == count[0].tolist() and not counted[c, own:].any()
        np.testing.assert_allclose(found[c, :own], centre[0], atol=1e-5)
        if size:  # what is not asked for stands on the largest and changes no maximum
            assert (found[c, own:] == found[c, counted[c].argmax()]).all()
    assert audience_clusters(seeds, users, 20)[0].shape[1] == 20, "a fixed number may be asked for"


@pytest.mark.parametrize("song_weight", [0.0, 2.0])
def test_centroid_scores_against_a_loop(song_weight: float) -> None:
    heard, song = listening()
    users = user_vectors(heard, song, np.ones(S))
    rng = np.random.default_rng(1)
    new = rng.standard_normal((C, D)).astype(np.float32) * 7
    seeds = np.stack([rng.permutation(U)[:P] for _ in range(C)])
    seeds[0, :2] = [40, 5]
    seeds[1, 2:], seeds[2], seeds[3], seeds[3, 0] = -1, -1, -1, 5
    directions, some = centroids(seeds, users, new, K, 3, song_weight)
    found = np.where(some[:, None], relevance(directions, users), -np.inf)
    present = (seeds >= 0) & (np.abs(users[seeds]).sum(axis=2) > 0)
    centres, _ = clusters(users[seeds], present, np.tile(np.random.default_rng(3).random(K), (C, 1)))
    for c in range(C):
        own = [
            one / max(np.linalg.norm(one), 1e-9) + song_weight * new[c] / np.linalg.norm(new[c]) for one in centres[c]
        ]
        score = [max(float(users[u] @ one) for one in own) if c not in (2, 3) else -np.inf for u in range(U)]
        np.testing.assert_allclose(found[c], score, atol=1e-5)
