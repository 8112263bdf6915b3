"""The boundary in bulk against a loop over all pairs, in both directions."""

from __future__ import annotations

import numpy as np
import pytest

from retrieval import index as vector_index
from retrieval.audience import Audience
from retrieval.boundary import margins, songs_above, users_above

C, U, D = 13, 200, 6
RNG = np.random.default_rng(3)
ITEM, USER = (RNG.standard_normal((n, D)).astype(np.float32) for n in (C, U))
BOUNDARY = RNG.normal(1.5, 1, U).astype(np.float32)
BOUNDARY[50] = 99  # left alone by every song
PAIRS = tuple(np.unique(RNG.integers(0, (C, U), (600, 2)), axis=0).T)


def margin(c: int, u: int) -> float:
    return float(ITEM[c].astype(np.float64) @ USER[u] - BOUNDARY[u])


def by_loop(by_song: bool, k: int, least: float, users: list[int], pairs: set[tuple[int, int]]) -> list[list[int]]:
    """Who clears (by_song: whose boundary), the furthest first."""
    result = []
    for row in range(C if by_song else U):
        others = users if by_song else range(C)
        found = [(margin(row, o) if by_song else margin(o, row), o) for o in others]
        kept = [(m, o) for m, o in found if m > least and ((row, o) if by_song else (o, row)) not in pairs]
        result.append([o for _, o in sorted(kept, key=lambda one: -one[0])[:k]])
    return result


def lists(found: Audience) -> list[list[int]]:
    return [[int(u) for u in row if u >= 0] for row in found.users_CB]


def test_margins_against_a_loop() -> None:
    expected = [[margin(c, u) for u in range(U)] for c in range(C)]
    np.testing.assert_allclose(margins(ITEM, USER, BOUNDARY), expected, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("least", [-1.0, 0.0, 0.7])
@pytest.mark.parametrize("k", [1, 10, U])
@pytest.mark.parametrize("memory_mb", [0.001, 64])
@pytest.mark.parametrize("excluding", [False, True])
def test_exactly_those_who_clear_their_own_boundary(k: int, least: float, memory_mb: float, excluding: bool) -> None:
    users = np.setdiff1d(np.arange(U), [0, 3, 77, U - 1]) if excluding else None
    pairs = PAIRS if excluding else (np.zeros(0, dtype=np.int64),) * 2
    banned = set(zip(*(one.tolist() for one in pairs), strict=True))
    everybody = list(range(U)) if users is None else users.tolist()

    found = users_above(ITEM, USER, BOUNDARY, k, least, users, pairs, memory_mb=memory_mb)
    expected = by_loop(True, k, least, everybody, banned)
    assert found.users_CB.shape == (C, k) and lists(found) == expected
    for c in range(C):
        n = len(expected[c])
        np.testing.assert_allclose(found.scores_CB[c, :n], [margin(c, u) for u in expected[c]], rtol=1e-3, atol=1e-5)
        assert np.isneginf(found.scores_CB[c, n:]).all() and (found.users_CB[c, n:] == -1).all()

    songs = songs_above(ITEM, USER, BOUNDARY, min(k, C), least, pairs, memory_mb)
    assert lists(songs) == by_loop(False, k, least, everybody, banned)
    assert not lists(songs)[50] and sum(map(len, lists(songs))) > 0
    if k == U and not excluding:  # both directions tell of the same pairs
        by_song = {(c, u) for c, row in enumerate(lists(found)) for u in row}
        assert by_song == {(c, u) for u, row in enumerate(lists(songs)) for c in row}


def test_nobody_and_nothing() -> None:
    nobody = users_above(ITEM, USER, BOUNDARY, 4, users=np.zeros(0, dtype=np.int64))
    assert nobody.users_CB.shape == (C, 4) and (nobody.users_CB == -1).all()
    assert users_above(ITEM, USER, BOUNDARY, 0).users_CB.shape == (C, 0)
    assert songs_above(ITEM[:0], USER, BOUNDARY, 3).users_CB.tolist() == [[-1] * 3] * U
    assert users_above(ITEM[:0], USER, BOUNDARY, 3).users_CB.shape == (0, 3)
    all_of_one = (np.zeros(U, dtype=np.int64), np.arange(U))
    found = users_above(ITEM, USER, BOUNDARY, 9, -99.0, without=all_of_one)
    assert (found.users_CB[0] == -1).all() and (found.users_CB[1:] >= 0).sum() == (C - 1) * 9


def test_lists_of_an_approximate_index_hold_none_who_does_not_clear() -> None:
    user = np.concatenate([USER] * 20) + RNG.normal(0, 0.1, (20 * U, D)).astype(np.float32)
    boundary = np.tile(BOUNDARY, 20)
    exact = users_above(ITEM, user, boundary, 50)
    near = users_above(ITEM, user, boundary, 50, kind="ivf")
    dense = margins(ITEM, user, boundary)
    for c in range(C):
        assert all(dense[c, u] > 0 for u in lists(near)[c])
    kept = [len(set(a) & set(b)) / len(a) for a, b in zip(lists(exact), lists(near), strict=True) if a]
    assert len(kept) > 5 and np.mean(kept) > 0.7


def test_more_results_than_a_gpu_gives_come_from_main_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool] = []
    monkeypatch.setattr(vector_index, "GPU_MOST", 10)
    monkeypatch.setattr(vector_index, "to_cpu", lambda index: asked.append(True) or index)
    for k in (5, 50):
        assert lists(users_above(ITEM, USER, BOUNDARY, k)) == by_loop(True, k, 0, list(range(U)), set())
    assert asked == [True]
