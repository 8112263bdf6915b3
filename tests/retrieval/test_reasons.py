"""The reasons given for an audience, against naive loops."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from retrieval.listening import Listening
from retrieval.reasons import explain, nearest_heard, nearest_of, placed

C, B, S, U, K, D = 7, 12, 30, 50, 6, 4


def world(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray, sparse.csr_matrix]:
    """Audiences (some short, one of nobody, a user who heard nothing among them), similar songs, weights, listening."""
    rng = np.random.default_rng(seed)
    users = np.stack([rng.permutation(U)[:B] for _ in range(C)])
    users[0, 0] = 5
    positions = np.stack([rng.choice(S, K, replace=False) for _ in range(C)])
    weights = -np.sort(-rng.random((C, K)), axis=1)
    users[1, 3:], users[4] = -1, -1
    positions[1, 3:], positions[3] = -1, -1
    listening = np.where(rng.random((U, S)) < 0.2, rng.integers(1, 4, (U, S)), 0).astype(np.float32)
    listening[5] = 0
    return users, positions, weights * (positions >= 0), sparse.csr_matrix(listening)


@pytest.mark.parametrize("top", [1, 3, 20])
@pytest.mark.parametrize("chunk", [1, 3, 64])
@pytest.mark.parametrize("nearest", [False, True])
def test_reasons_against_a_loop(top: int, chunk: int, nearest: bool) -> None:
    """By what brought a user in, or by what they heard that is nearest; ties of the latter go by song number."""
    users, positions, weights, listening = world()
    rng, heard = np.random.default_rng(1), listening.toarray()
    new, song = rng.standard_normal((C, D)), rng.standard_normal((S, D))
    song[3] = song[17]
    if nearest:
        reasons = nearest_heard(users, new, song, listening, top, chunk)
    else:
        reasons = explain(users, positions, weights, listening, top, chunk)
    assert reasons.shape == (C, B, top)
    for c, b in np.ndindex(C, B):
        own = heard[users[c, b]] if users[c, b] >= 0 else np.zeros(S)
        if nearest:
            value = {s: float(new[c] @ song[s]) for s in np.flatnonzero(own).tolist()}
        else:
            value = {s: w * own[s] for s, w in zip(positions[c].tolist(), weights[c], strict=True) if own[s] and s >= 0}
        ranked = sorted(value, key=lambda s: -value[s])[:top]
        assert reasons[c, b].tolist() == ranked + [-1] * (top - len(ranked))
    assert (reasons[0, 0] == -1).all() and (reasons >= 0).any()


def test_reasons_in_an_empty_world() -> None:
    unheard = sparse.csr_matrix((4, 5), dtype=np.float32)
    for users in (np.array([[0, -1]]), np.array([[-1, -1]])):
        assert (explain(users, np.array([[1, -1, 2]]), np.ones((1, 3)), unheard) == -1).all()
        assert (nearest_heard(users, np.ones((1, 2)), np.ones((5, 2)), unheard) == -1).all()


def test_explain_with_user_and_song_numbers_beyond_32_bits() -> None:
    """user × n_songs must not wrap around."""
    n_users, n_songs = 70_000, 70_000
    listening = sparse.csr_matrix(([2.0], ([69_999], [69_998])), shape=(n_users, n_songs), dtype=np.float32)
    users, songs = np.array([[69_999, 3]], dtype=np.int32), np.array([[69_998, 5]], dtype=np.int32)
    assert explain(users, songs, np.ones((1, 2)), listening, 1).tolist() == [[[69_998], [-1]]]


def test_a_song_whose_vector_is_not_known_is_no_reason() -> None:
    """User 0 heard songs 0, 1 and 2, of which song 1 has NaN."""
    heard = sparse.csr_matrix(np.ones((1, 3), dtype=np.float32))
    song_SD = np.array([[0.2], [np.nan], [0.9]], dtype=np.float32)
    found = nearest_heard(np.array([[0]]), np.ones((1, 1), dtype=np.float32), song_SD, heard)
    assert found.tolist() == [[[2, 0, -1]]]


@pytest.mark.parametrize("top", [1, 3, 40])
@pytest.mark.parametrize("most", [1, 9, 1 << 20])
def test_reasons_of_one_user_are_those_among_many(top: int, most: int) -> None:
    """User 5 heard nothing, song 8 has no vector, songs 3 and 17 are equally near, and some plays have come in."""
    *_, listening = world()
    rng = np.random.default_rng(2)
    new, song = (rng.standard_normal((n, D)).astype(np.float32) for n in (C, S))
    song[3], song[8] = song[17], np.nan
    of = Listening(listening)
    for user in (0, 1, 6):
        of.add(user, int(rng.integers(S)), 3.0)
    for user in range(U):
        everybody = nearest_heard(np.arange(U)[None].repeat(C, axis=0), new, song, of.heard(np.arange(U)), top)
        np.testing.assert_array_equal(nearest_of(of.heard_by(user), new, song, top, most), everybody[:, user])


def test_each_place_of_an_audience_has_its_user() -> None:
    users, *_ = world()
    for some in (users, users[:1], users[1:2], users[4:5], users[:0]):
        found, place = placed(some)
        assert (np.where(place < 0, -1, np.append(found, -1)[place]) == some).all()
        assert len(np.unique(found)) == len(found) == len(set(some[some >= 0].tolist()))
