"""What `pipeline.audience` does beside the functions it calls: weights, modes, limits, reasons, refusals."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import pytest
from scipy import sparse

from configs.errors import UserError
from configs.targeting import TargetingConfig
from data.catalogue import Catalogue
from inference.audience import audience_table, show
from inference.song_index import SongIndex
from inference.targeting import targeting_of
from inference.vectors import Boundary
from retrieval.audience import Audience, Excluded, cap_users, popularity_scale, top_users, union
from retrieval.clusters import centroid_scores, user_vectors
from retrieval.index import build_index
from retrieval.listening import Listening
from retrieval.targeting import Mode, Similar, Songs, Targeting

KNOWN, NEW = np.array([0, 2, 3, 5, 6]), np.array([1, 4])


def small_world() -> tuple[SongIndex, sparse.csr_matrix]:
    """Seven songs, five of them known; song 2 is a hit, song 6 was played by nobody."""
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((7, 4)).astype(np.float32)
    listening = np.where(rng.random((40, 7)) < [0.2, 0, 0.9, 0.1, 0, 0.4, 0], 2.0, 0.0)
    return SongIndex({}, build_index(vectors[KNOWN]), KNOWN, vectors), sparse.csr_matrix(listening, dtype=np.float32)


@pytest.mark.parametrize("neighbours", [3, 9])
@pytest.mark.parametrize("popularity_power", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("similarity_power", [1.0, 2.0])
def test_a_neighbour_weighs_its_similarity_less_the_more_popular_it_is(
    neighbours: int, popularity_power: float, similarity_power: float
) -> None:
    index, listening = small_world()
    options = TargetingConfig(
        neighbours=neighbours, popularity_power=popularity_power, similarity_power=similarity_power
    )
    found = targeting_of(index, Listening(listening), options).songs(index.vectors[NEW], NEW).similar
    listeners = (listening.toarray() > 0).sum(axis=0)
    k = min(neighbours, len(KNOWN))
    assert found.weights_CS.shape == (2, 7)
    for row, song in enumerate(NEW):
        score = {int(known): float(index.vectors[song] @ index.vectors[known]) for known in KNOWN}
        best = sorted(KNOWN.tolist(), key=lambda known: -score[known])[:k]
        assert found.positions_CK[row].tolist() == best + [-1] * (found.positions_CK.shape[1] - k)
        high, low, floor = score[best[0]], score[best[-1]], 1 / found.positions_CK.shape[1]
        weight = np.zeros(7)
        for known in best:
            similarity = floor + (1 - floor) * (score[known] - low) / (high - low)
            weight[known] = similarity**similarity_power * (listeners[known] + 1.0) ** -popularity_power
        np.testing.assert_allclose(found.weights_CS.toarray()[row], weight, rtol=1e-4)
        np.testing.assert_allclose(found.weights_CK[row, :k], weight[best], rtol=1e-4)
        assert (found.weights_CK[row, k:] == 0).all()


def big_world(users: int = 60) -> tuple[Any, np.ndarray, np.ndarray, sparse.csr_matrix, Boundary]:
    """Forty songs, ten of them new; user 7 has listened to nothing; a boundary that half of the pairs clear."""
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((40, 6)).astype(np.float32)
    known, new = np.arange(30), np.arange(30, 40)
    heard = np.where(rng.random((users, 40)) < 0.2, rng.integers(1, 4, (users, 40)), 0).astype(np.float32)
    heard[:, 30:] = 0
    heard[7] = 0
    index = SongIndex({}, build_index(vectors[known]), known, vectors)
    parts = [rng.standard_normal(shape).astype(np.float32) for shape in ((10, 3), (users, 3), (users,))]
    run: Any = None
    return index, vectors, new, sparse.csr_matrix(heard), Boundary(run, *parts)


def options(**given: Any) -> TargetingConfig:
    return TargetingConfig(**({"neighbours": 8, "budget": 12, "seed_users": 9, "clusters": 3} | given))


def asked(excluded: Excluded | None = None, **given: Any) -> tuple[Targeting, Songs]:
    index, vectors, new, listening, boundary = big_world()
    targeting = targeting_of(index, Listening(listening), options(**given), boundary)
    return targeting, targeting.songs(vectors[new], new, boundary.item_CD, excluded or Excluded())


def found_by(mode: Mode, gate: bool = False, excluded: Excluded | None = None, **given: Any) -> Audience:
    targeting, songs = asked(excluded, **given)
    config = options(**given)
    return targeting.audience(songs, mode, config.budget, gate, config.margin, config.per_user_cap)


def allowed_pairs(gate: bool, excluded: Excluded | None) -> np.ndarray:
    """By a loop over all pairs."""
    *_, boundary = big_world()
    allowed = np.ones((10, 60), dtype=bool)
    pairs = set(zip(excluded.song.tolist(), excluded.user.tolist(), strict=True)) if excluded else set()
    for c, u in np.ndindex(10, 60):
        margin = boundary.item_CD[c] @ boundary.user_UD[u] - boundary.boundary_U[u]
        out = excluded is not None and (u in excluded.users or (c, u) in pairs)
        allowed[c, u] = not out and not (gate and margin <= 0)
    return allowed


def some_excluded() -> Excluded:
    rng = np.random.default_rng(5)
    pairs = np.unique(rng.integers(0, (10, 60), (80, 2)), axis=0)
    return Excluded(np.array([3, 20, 21, 22]), pairs[:, 0], pairs[:, 1])


@pytest.mark.parametrize("mode", ["i2i2u", "taste", "cat", "union", "boundary"])
@pytest.mark.parametrize("gate", [False, True])
@pytest.mark.parametrize("excluding", [False, True])
def test_every_mode_keeps_to_who_may_be_reached(mode: Mode, gate: bool, excluding: bool) -> None:
    """With room for everybody, the gated list is the free list without those who may not be reached."""
    excluded = some_excluded() if excluding else None
    allowed = allowed_pairs(gate or mode == "boundary", excluded)
    everybody, found = found_by(mode, budget=60), found_by(mode, gate, excluded, budget=60)
    for c in range(10):
        expected = [u for u in everybody.users_CB[c].tolist() if u >= 0 and allowed[c, u]]
        if mode == "union":  # ranks in the two lists close up: the order may change
            assert sorted(found.users_CB[c][found.users_CB[c] >= 0]) == sorted(expected)
        else:
            assert found.users_CB[c].tolist() == expected + [-1] * (60 - len(expected))
    if mode != "boundary":
        assert not (found.users_CB == 7).any()
    if gate or excluding or mode == "boundary":
        assert not allowed.all() and (found.users_CB < 0).any()


def test_cat_is_made_of_the_first_listeners_whoever_may_be_reached() -> None:
    _, vectors, new, listening, _ = big_world()
    targeting, songs = asked()
    first = targeting.listeners(songs, 9)
    users = user_vectors(listening, vectors, popularity_scale(listening, 0.5))
    excluded = some_excluded()
    draws = np.tile(np.random.default_rng(0).random(3), (10, 1))  # the same for every song
    score = centroid_scores(first.users_CB, users, vectors[new], draws, 2.0)
    score[~allowed_pairs(False, excluded)], score[:, 7] = -np.inf, -np.inf
    expected = top_users(score, 12)
    found = found_by("cat", excluded=excluded)
    np.testing.assert_array_equal(found.users_CB, expected.users_CB)
    np.testing.assert_allclose(found.scores_CB, expected.scores_CB, atol=1e-5)


def test_union_is_of_both() -> None:
    expected = union(found_by("i2i2u"), found_by("cat"), 12)
    np.testing.assert_array_equal(found_by("union").users_CB, expected.users_CB)


@pytest.mark.parametrize("mode", ["i2i2u", "taste", "cat", "union", "boundary"])
@pytest.mark.parametrize("cap", [1, 2, 4])
def test_a_cap_per_user_takes_the_next_choice(mode: Mode, cap: int) -> None:
    found = found_by(mode, per_user_cap=cap)
    expected = cap_users(found_by(mode, budget=48), cap, 12)
    assert found.users_CB.shape == (10, 12)
    np.testing.assert_array_equal(found.users_CB, expected.users_CB)
    times = [np.bincount(one.users_CB[one.users_CB >= 0]).max() for one in (found, found_by(mode))]
    assert times[0] == cap < times[1], "else there is no cap"


@pytest.mark.parametrize("mode", ["i2i2u", "taste", "cat", "union", "boundary"])
def test_the_memory_given_does_not_change_the_audience(mode: Mode) -> None:
    small, large = found_by(mode, memory_mb=1e-6), found_by(mode, memory_mb=64)
    np.testing.assert_array_equal(small.users_CB, large.users_CB)
    np.testing.assert_allclose(small.scores_CB, large.scores_CB, rtol=1e-5)
    assert found_by(mode, budget=1000).users_CB.shape == (10, 60), "no more users than there are"


@pytest.mark.parametrize("mode", ["cat", "boundary"])
def test_users_have_reasons_of_their_own(mode: Mode) -> None:
    """Who listened to none of the similar songs gets their own nearest to the new one; others what brought them."""
    _, vectors, new, listening, boundary = big_world()
    targeting, songs = asked(neighbours=2)
    found = targeting.audience(songs, mode, 40)
    names = pl.DataFrame({"song_id": [f"s{i}" for i in range(40)]})
    catalogue: Any = SimpleNamespace(songs=names, users=pl.DataFrame({"user_id": [f"u{i}" for i in range(60)]}))
    table = audience_table(found, targeting.reasons(found.users_CB, songs), catalogue, new, boundary)
    heard, own = listening.toarray(), 0
    for song, user, because in table.select("song_id", "user_id", "because").iter_rows():
        listened, place = np.flatnonzero(heard[int(user[1:])]), int(song[1:]) - 30
        near, weights = songs.similar.positions_CK[place], songs.similar.weights_CK[place]
        value = {int(one): weight * heard[int(user[1:]), one] for one, weight in zip(near, weights, strict=True)}
        brought = sorted((one for one in value if value[one] > 0), key=lambda one: -value[one])
        nearest = listened[np.argsort(-(vectors[listened] @ vectors[place + 30]), kind="stable")][:3]
        assert because == [f"s{i}" for i in brought or nearest]
        own += not brought
    assert 0 < own < table.height


def test_the_page_of_a_song() -> None:
    catalogue = Catalogue(Path("catalogue"), {})
    catalogue.songs = pl.DataFrame(
        {
            "song_id": ["a", "b", "c"],
            "title": ["Rain · live", None, "Sun"],
            "artist_id": ["me", None, None],
            "genres": [["folk", "pop"], None, []],
        }
    )
    near = Similar(np.array([[1, 0, -1]]), np.array([[2.0, 1.0, -np.inf]]), np.ones(0), sparse.csr_matrix((0, 0)))
    because: list[list[str]] = [["a", "b"], [], ["a"]]
    rows = {"song_id": ["c", "c", "a"], "user_id": ["u1", "u2", "u3"], "score": [0.5, 0.25, 0.75], "because": because}
    for table, users in ((pl.DataFrame(rows), 2), (pl.DataFrame(rows).clear(), 0)):
        page = show(table, near, catalogue, np.array([2]), 0).splitlines()
        assert page[1:6] == [
            "new song c: Sun · ? · ",
            "  similar known songs:",
            "       2.000  (no title) · ? · ?",
            "       1.000  Rain · live · me · folk/pop",
            "  first listeners (user, score, because of):",
        ]
        told = ["    u1              0.500  Rain · live; (no title)", "    u2              0.250  "]
        assert page[6:] == told[:users]


@pytest.mark.parametrize(
    ("options", "value"),
    [
        (("neighbours", "budget", "seed_users", "clusters", "songs_per_user", "memory_mb", "warm_up"), 0),
        (("per_user_cap", "seed", "song_weight"), -0.5),
        (("memory_mb", "song_weight"), float("nan")),
        (("song_weight",), float("inf")),
    ],
)
def test_options_that_mean_nothing_are_refused(options: tuple[str, ...], value: float) -> None:
    for option in options:
        with pytest.raises(UserError, match=f"targeting.{option}="):
            TargetingConfig(**{option: value})
