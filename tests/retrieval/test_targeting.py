"""`Targeting` against brute force on small worlds; its modes with limits are in tests/inference/test_audience.py."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy import sparse

from retrieval.audience import Excluded
from retrieval.index import build_index, search
from retrieval.listening import Listening
from retrieval.targeting import Mode, Songs, Targeting, TargetingOptions

OPTIONS = TargetingOptions(
    neighbours=3, activity_power=0.5, popularity_power=0.5, similarity_power=1.0, seed_users=4, clusters=2,
    song_weight=2.0, seed=0, users_index="Flat", memory_mb=64.0,
)  # fmt: skip


def world(seed: int = 5, users: int = 7, songs: int = 9) -> tuple[Targeting, np.ndarray]:
    """Songs, the last three of them new; user 2 has no play; users' boundaries."""
    rng = np.random.default_rng(seed)
    song_SD = rng.standard_normal((songs, 4)).astype(np.float32)
    heard = rng.integers(0, 4, (users, songs)) * (rng.random((users, songs)) < 0.4)
    heard[2], heard[:, songs - 3 :] = 0, 0
    index = build_index(song_SD[: songs - 3])
    user_UD, boundary_U = rng.standard_normal((users, 4)).astype(np.float32), rng.normal(size=users).astype(np.float32)
    listening = Listening(sparse.csr_matrix(heard.astype(np.float32)))
    of_index: Callable[[Any, int], tuple[Any, Any]] = lambda vectors, k: search(index, vectors, k)  # noqa: E731
    return Targeting(listening, song_SD, of_index, OPTIONS, user_UD, boundary_U), heard


def asked(targeting: Targeting, excluded: Excluded | None = None) -> Songs:
    songs = np.arange(len(targeting.song_SD) - 3, len(targeting.song_SD))
    items = np.random.default_rng(1).standard_normal((3, 4)).astype(np.float32)
    return targeting.songs(targeting.song_SD[songs], songs, items, excluded or Excluded())


def expected(targeting: Targeting, heard: np.ndarray, songs: Songs, mode: Mode, c: int) -> dict[int, float]:
    """Scores of a song's users, by loops."""
    score: dict[int, float] = {}
    for u in range(len(heard)):
        if mode == "boundary":
            assert songs.item_CD is not None and targeting.user_UD is not None and targeting.boundary_U is not None
            score[u] = float(songs.item_CD[c] @ targeting.user_UD[u] - targeting.boundary_U[u])
        elif mode == "taste" and heard[u].any():
            total = sum(heard[u, s] * targeting.song_SD[s] for s in range(heard.shape[1]))
            similarities = sum(heard[u, s] * targeting.song_SD[s] @ songs.vector_CD[c] for s in range(heard.shape[1]))
            score[u] = float(similarities / np.linalg.norm(total) / np.linalg.norm(songs.vector_CD[c]))
        elif mode == "i2i2u":
            near = zip(songs.similar.positions_CK[c], songs.similar.weights_CK[c], strict=True)
            through = sum(weight * heard[u, s] for s, weight in near)
            score[u] = float(through / (np.count_nonzero(heard[u]) + 1) ** 0.5)
    return {u: value for u, value in score.items() if mode != "i2i2u" or value > 0}


@pytest.mark.parametrize("mode", ["i2i2u", "taste", "boundary"])
@pytest.mark.parametrize("gate", [False, True])
@pytest.mark.parametrize("known_margins", [False, True])
@pytest.mark.parametrize("memory_mb", [1e-6, 64])
def test_modes_against_a_loop(mode: Mode, gate: bool, known_margins: bool, memory_mb: float) -> None:
    excluded = Excluded(np.array([3]), np.array([0, 1, 1]), np.array([0, 4, 5]))
    targeting, heard = world(users=30)
    targeting = replace(targeting, options=replace(OPTIONS, memory_mb=memory_mb))
    songs = asked(targeting, excluded)
    margin_CU = targeting.margins(songs)
    songs.margin_CU = margin_CU if known_margins else None
    found = targeting.audience(songs, mode, 5, gate, 0.1)
    for c in range(3):
        pairs = set(excluded.user[excluded.song == c].tolist()) | {3}
        score = {u: s for u, s in expected(targeting, heard, songs, mode, c).items() if u not in pairs}
        if gate or mode == "boundary":
            score = {u: s for u, s in score.items() if margin_CU[c, u] > 0.1}
        best = sorted(score, key=lambda u: -score[u])[:5]
        assert found.users_CB[c].tolist() == best + [-1] * (5 - len(best))
        np.testing.assert_allclose(found.scores_CB[c, : len(best)], [score[u] for u in best], rtol=1e-4, atol=1e-6)
    assert (found.users_CB >= 0).sum() > 5


def test_what_comes_in_is_listening_like_any_other() -> None:
    """An addition raises a signal, it never lowers one; tastes follow."""
    targeting, heard = world(users=30)
    rng = np.random.default_rng(2)
    scales = targeting.activity_U, targeting.popularity_S
    _ = targeting.taste, targeting.cat_taste
    for user, song, strength in zip(
        rng.integers(0, 30, 90), rng.integers(0, 6, 90), rng.integers(1, 4, 90), strict=True
    ):
        targeting.listening.add(int(user), int(song), float(strength))
        heard[user, song] = max(heard[user, song], strength)
    targeting.follow(np.arange(30))
    whole = replace(targeting, listening=Listening(sparse.csr_matrix(heard.astype(np.float32))))
    whole.activity_U, whole.popularity_S = scales
    np.testing.assert_array_equal(targeting.listening.heard(np.arange(30)).toarray(), heard)
    np.testing.assert_allclose(targeting.taste.user_UD, whole.taste.user_UD, atol=1e-6)
    np.testing.assert_allclose(targeting.cat_taste.user_UD, whole.cat_taste.user_UD, atol=1e-6)
    ours, theirs = (one.audience(asked(one), "i2i2u", 30) for one in (targeting, whole))
    np.testing.assert_array_equal(ours.users_CB, theirs.users_CB)
    np.testing.assert_allclose(ours.scores_CB, theirs.scores_CB, rtol=1e-5)


def test_the_seed_alone_is_random() -> None:
    targeting, _ = world(users=60, songs=40)
    songs = asked(targeting)
    one, again, other = (
        replace(targeting, options=replace(OPTIONS, seed=seed)).audience(songs, "cat", 20) for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(one.users_CB, again.users_CB)
    np.testing.assert_array_equal(one.scores_CB, again.scores_CB)
    assert (one.scores_CB != other.scores_CB).any()


@pytest.mark.parametrize("mode", ["i2i2u", "taste", "cat"])
def test_scores_stay_within_the_memory_given(mode: Mode) -> None:
    """Nearly every user has a score for every song."""
    n, songs, rng = 20_000, 120, np.random.default_rng(0)
    vectors = rng.standard_normal((songs, 8), dtype=np.float32)
    listening = Listening(
        sparse.csr_matrix(rng.integers(1, 4, (n, songs)) * (rng.random((n, songs)) < 0.02), dtype="f4")
    )
    index, peaks = build_index(vectors), []
    for memory_mb in (10.0, 1000.0):
        options = replace(OPTIONS, memory_mb=memory_mb, neighbours=100)
        targeting = Targeting(listening, vectors, lambda queries, k: search(index, queries, k), options)
        asked_songs = targeting.songs(vectors, np.arange(songs), excluded=Excluded(np.array([3])))
        _ = targeting.taste, targeting.cat_taste, listening.known_SU
        tracemalloc.start()
        targeting.audience(asked_songs, mode, 50)
        peaks.append(tracemalloc.get_traced_memory()[1] / 2**20)
        tracemalloc.stop()
    assert peaks[0] < 10 < peaks[1], "all songs at once would need more"
