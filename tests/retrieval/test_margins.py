"""The boundary in bulk against a loop over all pairs, in both directions."""

from __future__ import annotations

import numpy as np
import pytest

from retrieval import boundary as boundary_search
from retrieval import index as vector_index
from retrieval.audience import Audience, Excluded
from retrieval.boundary import margins, pair_scores, songs_above, users_above

C, U, D = 13, 200, 6
RNG = np.random.default_rng(3)
ITEM, USER = (RNG.standard_normal((n, D)).astype(np.float32) for n in (C, U))
BOUNDARY = RNG.normal(1.5, 1, U).astype(np.float32)
BOUNDARY[50] = 99  # left alone by every song
PAIRS = tuple(np.unique(RNG.integers(0, (C, U), (600, 2)), axis=0).T)


def margin(c: int, u: int) -> float:
    return float(ITEM[c].astype(np.float64) @ USER[u] - BOUNDARY[u])


def by_loop(by_song: bool, k: int, minimum: float, users: list[int], pairs: set[tuple[int, int]]) -> list[list[int]]:
    """Who clears (by_song: whose boundary), the furthest first."""
    result = []
    for row in range(C if by_song else U):
        others = users if by_song else range(C)
        found = [(margin(row, o) if by_song else margin(o, row), o) for o in others]
        kept = [(m, o) for m, o in found if m > minimum and ((row, o) if by_song else (o, row)) not in pairs]
        result.append([o for _, o in sorted(kept, key=lambda one: -one[0])[:k]])
    return result


def as_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Search in a FAISS index, as where there is a GPU."""
    monkeypatch.setattr(boundary_search, "gpu_resources", lambda device: True)


def lists(found: Audience) -> list[list[int]]:
    return [[int(u) for u in row if u >= 0] for row in found.users_CB]


@pytest.mark.parametrize("chunk", [1, 7, len(PAIRS[0]), 9999])
def test_scores_of_pairs_are_those_of_the_whole(chunk: int) -> None:
    found = pair_scores(ITEM, USER, *PAIRS, chunk)
    np.testing.assert_allclose(found, (ITEM @ USER.T)[PAIRS], rtol=1e-5, atol=1e-5)
    assert found.dtype == np.float32 and len(pair_scores(ITEM, USER, *(one[:0] for one in PAIRS))) == 0


@pytest.mark.parametrize("minimum", [-1.0, 0.0, 0.7])
@pytest.mark.parametrize("k", [1, 10, U])
@pytest.mark.parametrize("memory_mb", [0.001, 64])
@pytest.mark.parametrize("excluding", [False, True])
@pytest.mark.parametrize("of_index", [False, True], ids=["blocks", "index"])
def test_exactly_those_who_clear_their_own_boundary(
    k: int, minimum: float, memory_mb: float, excluding: bool, of_index: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if of_index:
        as_on_a_gpu(monkeypatch)
    excluded = Excluded(np.array([77, 3, 0, U - 1, 3]), *PAIRS) if excluding else Excluded()
    banned = set(zip(excluded.song.tolist(), excluded.user.tolist(), strict=True))
    everybody = np.setdiff1d(np.arange(U), excluded.users).tolist()

    found = users_above(ITEM, USER, BOUNDARY, k, minimum, excluded, memory_mb=memory_mb)
    expected = by_loop(True, k, minimum, everybody, banned)
    assert found.users_CB.shape == (C, k) and lists(found) == expected
    for c in range(C):
        n = len(expected[c])
        np.testing.assert_allclose(found.scores_CB[c, :n], [margin(c, u) for u in expected[c]], rtol=1e-3, atol=1e-5)
        assert np.isneginf(found.scores_CB[c, n:]).all() and (found.users_CB[c, n:] == -1).all()

    songs = songs_above(ITEM, USER, BOUNDARY, min(k, C), minimum, excluded, memory_mb)
    expected = by_loop(False, k, minimum, everybody, banned)
    assert lists(songs) == [[] if u in excluded.users else row for u, row in enumerate(expected)]
    assert not lists(songs)[50] and sum(map(len, lists(songs))) > 0
    if k == U and not excluding:  # both directions tell of the same pairs
        by_song = {(c, u) for c, row in enumerate(lists(found)) for u in row}
        assert by_song == {(c, u) for u, row in enumerate(lists(songs)) for c in row}


def test_nobody_and_nothing() -> None:
    nobody = users_above(ITEM, USER, BOUNDARY, 4, excluded=Excluded(np.arange(U)))
    assert nobody.users_CB.shape == (C, 4) and (nobody.users_CB == -1).all()
    assert users_above(ITEM, USER, BOUNDARY, 0).users_CB.shape == (C, 0)
    assert songs_above(ITEM[:0], USER, BOUNDARY, 3).users_CB.tolist() == [[-1] * 3] * U
    assert users_above(ITEM[:0], USER, BOUNDARY, 3).users_CB.shape == (0, 3)
    all_of_one = Excluded(song=np.zeros(U, dtype=np.int64), user=np.arange(U))
    found = users_above(ITEM, USER, BOUNDARY, 9, -99.0, all_of_one)
    assert (found.users_CB[0] == -1).all() and (found.users_CB[1:] >= 0).sum() == (C - 1) * 9


@pytest.mark.parametrize(("k", "excluded"), [(20, 0), (500, 0), (20, 3000)])
def test_lists_of_an_approximate_index_are_long_where_there_are_many(k: int, excluded: int) -> None:
    """Also where much is asked for, or most of the best are left out: more lists are looked through then."""
    rng = np.random.default_rng(1)
    n = boundary_search.FEW + 2000
    centre = rng.standard_normal((40, D))
    user = (centre[rng.integers(0, 40, n)] + 0.5 * rng.standard_normal((n, D))).astype(np.float32)
    boundary = rng.normal(0, 1, n).astype(np.float32)
    best = np.argsort(-margins(ITEM[:4], user, boundary), axis=1)[:, :excluded]
    without = Excluded(song=np.repeat(np.arange(4), excluded), user=best.ravel())
    exact = users_above(ITEM[:4], user, boundary, k, -99.0, without)
    near = users_above(ITEM[:4], user, boundary, k, -99.0, without, kind="IVF,Flat")
    assert (exact.users_CB >= 0).all() and (near.users_CB >= 0).mean() > 0.95
    assert np.mean([len(set(a) & set(b)) / k for a, b in zip(lists(exact), lists(near), strict=True)]) > 0.85


@pytest.mark.parametrize("left", [0.5, 0.02])
def test_lists_of_an_approximate_index_are_of_whom_may_be_reached(left: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """As long as if there were nobody else: the index is of them alone."""
    monkeypatch.setattr(boundary_search, "FEW", 150)
    rng = np.random.default_rng(1)
    user, boundary = rng.standard_normal((9000, D)).astype(np.float32), rng.normal(0, 1, 9000).astype(np.float32)
    out = rng.permutation(9000)[int(left * 9000) :]
    exact, near = (users_above(ITEM, user, boundary, 20, -99.0, Excluded(out), kind) for kind in ("Flat", "IVF,Flat"))
    assert (near.users_CB >= 0).all() and not np.isin(near.users_CB, out).any()
    assert np.mean([len(set(a) & set(b)) / 20 for a, b in zip(lists(exact), lists(near), strict=True)]) > 0.85


@pytest.mark.parametrize("k", [2, 50])
def test_a_few_users_are_answered_as_all_are(k: int) -> None:
    some = np.array([7, 50, 3])
    pairs = Excluded(song=np.array([1, 4]), user=np.array([0, 2]))
    found = songs_above(ITEM, USER[some], BOUNDARY[some], k, 0.1, pairs)
    expected = by_loop(False, k, 0.1, [], {(1, 7), (4, 3)})
    assert found.users_CB.shape == (3, k) and lists(found) == [expected[user] for user in some]


def test_one_long_list_of_exclusions_is_no_burden_to_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    as_on_a_gpu(monkeypatch)
    asked: list[tuple[int, int]] = []
    real = boundary_search.search
    monkeypatch.setattr(
        boundary_search, "search", lambda i, q, k, only: asked.append((len(q), k)) or real(i, q, k, only)
    )
    without = Excluded(song=np.full(150, 4), user=np.arange(150))
    found = users_above(ITEM, USER, BOUNDARY, 10, -99.0, without)
    assert asked == [(C - 1, 10), (1, 160)]
    assert lists(found) == by_loop(True, 10, -99.0, list(range(U)), {(4, u) for u in range(150)})


def test_more_results_than_a_gpu_gives_come_from_main_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    as_on_a_gpu(monkeypatch)
    asked: list[bool] = []
    monkeypatch.setattr(vector_index, "GPU_MOST", 10)
    monkeypatch.setattr(boundary_search, "GPU_MOST", 10)
    monkeypatch.setattr(boundary_search, "to_cpu", lambda index: asked.append(True) or index)
    monkeypatch.setattr(vector_index, "to_cpu", lambda index: asked.append(False) or index)
    for k in (5, 50):
        assert lists(users_above(ITEM, USER, BOUNDARY, k)) == by_loop(True, k, 0, list(range(U)), set())
    assert asked == [True, False]  # once for all searches, and once more at the search itself
