"""`Targeting` against brute force on a small world."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy import sparse

from retrieval import products
from retrieval import targeting as targeting_module
from retrieval.allocation import Exploration, rank_values, share_out
from retrieval.audience import Audience, Excluded, popularity_scale, top_users, union
from retrieval.candidates import CHANNELS
from retrieval.clusters import Tastes, audience_clusters, centroids, relevance, user_vectors
from retrieval.index import build_index, search
from retrieval.listening import Listening
from retrieval.songs import Songs
from retrieval.targeting import Mode, Targeting, TargetingOptions

OPTIONS = TargetingOptions(
    neighbours=8, activity_power=0.5, popularity_power=0.5, similarity_power=1.0, seed_users=9, clusters=3,
    song_weight=2.0, seed=0, union="cat", users_index="Flat", memory_mb=64.0,
)  # fmt: skip
USERS, SONGS, NEW = 60, 40, np.arange(30, 40)
PAIRS = np.unique(np.random.default_rng(5).integers(0, (10, USERS), (80, 2)), axis=0).T
EXCLUDED = Excluded(np.array([3, 20, 21, 22]), *PAIRS)


def world(**options: Any) -> tuple[Targeting, np.ndarray]:
    """Forty songs, the last ten of them new; user 7 has no play; a boundary that half of the pairs clear."""
    rng = np.random.default_rng(0)
    song_SD = rng.standard_normal((SONGS, 6)).astype(np.float32)
    heard = np.where(rng.random((USERS, SONGS)) < 0.2, rng.integers(1, 4, (USERS, SONGS)), 0)
    heard[7], heard[:, NEW] = 0, 0
    index = build_index(song_SD[: NEW[0]])
    boundary = [rng.standard_normal(shape).astype(np.float32) for shape in ((USERS, 3), USERS)]
    listening = Listening(sparse.csr_matrix(heard.astype(np.float32)))
    chosen = replace(OPTIONS, **options)
    return Targeting(listening, song_SD, lambda vectors, k: search(index, vectors, k), chosen, *boundary), heard


def keep_codes(targeting: Targeting, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have users' tastes scored by their codes, and few of them again."""
    monkeypatch.setattr(products, "MORE", 0)
    targeting.taste, targeting.cat_taste = (
        Tastes(tastes.user_UD, coded=True) for tastes in (targeting.taste, targeting.cat_taste)
    )


def asked(targeting: Targeting, excluded: Excluded = EXCLUDED) -> Songs:
    items = np.random.default_rng(1).standard_normal((len(NEW), 3)).astype(np.float32)
    return targeting.songs(targeting.song_SD[NEW], NEW, items, excluded)


def found_by(mode: Mode, budget: int, gate: bool = False, cap: int = 0) -> Audience:
    targeting, _ = world()
    return targeting.audience(asked(targeting), mode, budget, gate, cap=cap)


def allowed(targeting: Targeting, songs: Songs, gate: bool, margin: float = 0.0) -> np.ndarray:
    """Who may be reached, by a loop over all pairs."""
    assert songs.item_CD is not None and targeting.user_UD is not None and targeting.boundary_U is not None
    mask, pairs = np.ones((len(NEW), USERS), dtype=bool), set(zip(*PAIRS.tolist(), strict=True))
    for c, u in np.ndindex(*mask.shape):
        clears = songs.item_CD[c] @ targeting.user_UD[u] - targeting.boundary_U[u] > margin
        mask[c, u] = u not in EXCLUDED.users and (c, u) not in pairs and (clears or not gate)
    return mask


@pytest.mark.parametrize("neighbours", [3, 39])
@pytest.mark.parametrize("popularity_power", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("similarity_power", [1.0, 2.0])
def test_a_neighbour_weighs_its_similarity_less_the_more_popular_it_is(
    neighbours: int, popularity_power: float, similarity_power: float
) -> None:
    targeting, heard = world(
        neighbours=neighbours, popularity_power=popularity_power, similarity_power=similarity_power
    )
    songs, listeners = np.r_[4, NEW], (heard > 0).sum(axis=0)  # a known song is not its own neighbour
    found = targeting.songs(targeting.song_SD[songs], songs).similar
    for row, song in enumerate(songs):
        score = np.where(np.arange(NEW[0]) == song, -np.inf, targeting.song_SD[: NEW[0]] @ targeting.song_SD[song])
        best = np.argsort(-score)[: min(neighbours, NEW[0] - (song < NEW[0]))]
        none = [-1] * (neighbours - len(best))
        assert found.positions_CK[row].tolist() == best.tolist() + none
        low, high, floor = score[best[-1]], score[best[0]], 1 / neighbours
        weight = (floor + (1 - floor) * (score[best] - low) / (high - low)) ** similarity_power
        weight *= (listeners[best] + 1.0) ** -popularity_power
        np.testing.assert_allclose(found.weights_CK[row], [*weight, *(0 for _ in none)], rtol=1e-4)
        np.testing.assert_allclose(found.weights_CS.toarray()[row, best], weight, rtol=1e-4)
        assert found.weights_CS[row].nnz == len(best)


def score_of(targeting: Targeting, heard: np.ndarray, songs: Songs, mode: Mode, c: int, u: int) -> float:
    """A user's score for a song; −inf where they cannot be reached by a mode."""
    if mode == "boundary":
        assert songs.item_CD is not None and targeting.user_UD is not None and targeting.boundary_U is not None
        return float(songs.item_CD[c] @ targeting.user_UD[u] - targeting.boundary_U[u])
    if mode == "taste":
        total = heard[u] @ targeting.song_SD
        length = np.linalg.norm(total) * np.linalg.norm(songs.vector_CD[c])
        return float(total @ songs.vector_CD[c] / length) if length else -np.inf
    near = zip(songs.similar.positions_CK[c], songs.similar.weights_CK[c], strict=True)
    through = sum(weight * heard[u, s] for s, weight in near)
    return float(through / (np.count_nonzero(heard[u]) + 1) ** 0.5) or -np.inf


@pytest.mark.parametrize("mode", ["i2i2u", "taste", "boundary"])
@pytest.mark.parametrize("gate", [False, True])
@pytest.mark.parametrize("known_margins", [False, True])
@pytest.mark.parametrize("memory_mb", [1e-6, 64])
@pytest.mark.parametrize("coded", [False, True])
def test_modes_against_a_loop(
    mode: Mode, gate: bool, known_margins: bool, memory_mb: float, coded: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    targeting, heard = world(memory_mb=memory_mb)
    if coded:
        keep_codes(targeting, monkeypatch)
    songs = asked(targeting)
    songs.margin_CU = targeting.margins(songs) if known_margins else None
    mask = allowed(targeting, songs, gate or mode == "boundary", 0.1)
    for budget in (5, 1000):
        found, width = targeting.audience(songs, mode, budget, gate, 0.1), min(budget, USERS)
        assert found.users_CB.shape == (len(NEW), width)
        for c in range(len(NEW)):
            score = {int(u): score_of(targeting, heard, songs, mode, c, u) for u in np.flatnonzero(mask[c])}
            best = sorted((u for u in score if score[u] > -np.inf), key=lambda u: -score[u])[:budget]
            assert found.users_CB[c].tolist() == best + [-1] * (width - len(best))
            np.testing.assert_allclose(found.scores_CB[c, : len(best)], [score[u] for u in best], rtol=1e-4, atol=1e-6)
    assert (found.users_CB >= 0).sum() > 100


@pytest.mark.parametrize("gate", [False, True])
@pytest.mark.parametrize("memory_mb", [1e-6, 64])
@pytest.mark.parametrize("coded", [False, True])
def test_cat_is_made_of_the_first_listeners_whoever_may_be_reached(
    gate: bool, memory_mb: float, coded: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    targeting, _ = world(memory_mb=memory_mb)
    if coded:
        keep_codes(targeting, monkeypatch)
    songs, listening = asked(targeting), targeting.listening.known_US
    first = targeting.listeners(songs, 9)
    users = user_vectors(listening, targeting.song_SD, popularity_scale(listening, 0.5))
    score = relevance(centroids(first.users_CB, users, targeting.song_SD[NEW], 3, 0, 2.0)[0], users)
    score[~allowed(targeting, songs, gate)], score[:, 7] = -np.inf, -np.inf
    expected, found = top_users(score, 12), targeting.audience(songs, "cat", 12, gate)
    np.testing.assert_array_equal(found.users_CB, expected.users_CB)
    np.testing.assert_allclose(found.scores_CB, expected.scores_CB, atol=1e-5)


def test_cat_finds_lookalikes_of_both_tastes_where_taste_finds_the_mean() -> None:
    """A new song between two kinds of songs.

    Users 0 … 19 and 20 … 39 heard the song's neighbours, of one kind each. Users 40 … 59 and 60 … 79 are their
    lookalikes: they heard songs of the one kind or the other, but none of the neighbours. Users 80 … 99 hear songs that
    lie between the kinds.
    """
    rng, kinds = np.random.default_rng(0), np.eye(3, dtype=np.float32)[:2]
    middle = kinds.sum(axis=0) / 2**0.5
    kind_of = np.repeat([0, 1, 0, 1, 2], 10)  # songs 0 … 9 and 10 … 19 are neighbours, 20 … 39 others of the kinds
    song_SD = np.stack([*kinds, middle])[kind_of] + 0.02 * rng.standard_normal((50, 3)).astype(np.float32)
    heard = np.zeros((100, 50), dtype=np.float32)
    for user in range(100):
        heard[user, user // 20 * 10 + rng.permutation(10)[:3]] = 1
    options = replace(OPTIONS, neighbours=20, seed_users=40, clusters=0, song_weight=0.0, activity_power=0.0)
    near = np.r_[np.arange(20), -1][None]
    listening = Listening(sparse.csr_matrix(heard))
    targeting = Targeting(listening, song_SD, lambda _, k: (np.ones((1, k)), near[:, :k]), options)
    songs = targeting.songs(middle[None], np.array([50]))
    centre_CKD, size_CK = audience_clusters(targeting.seed_users(songs), targeting.cat_taste.user_UD)
    assert size_CK.tolist() == [[20, 20]] and set(centre_CKD[0].argmax(axis=1).tolist()) == {0, 1}
    cat, taste = (targeting.audience(songs, mode, 80).users_CB[0] for mode in ("cat", "taste"))
    assert set(cat.tolist()) == set(range(80)), "who is like either listener, and none of those between"
    assert set(taste[:20].tolist()) == set(range(80, 100)), "the mean of both, whom neither listener is like"
    plain = replace(targeting, options=replace(options, clusters=1)).audience(songs, "cat", 80).users_CB[0]
    assert set(range(80, 100)) <= set(plain.tolist()), "one cluster is the mean as well"


@pytest.mark.parametrize("mode", ["i2i2u", "taste", "cat", "union", "boundary"])
@pytest.mark.parametrize("share", [0.05, 0.5, 0.95, 1.0])
@pytest.mark.parametrize("coded", [False, True])
def test_some_users_are_left_out_before_the_best_are_taken(
    mode: Mode, share: float, coded: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A list is the head of that of everybody without them, as long as there are others; so are candidates and caps."""
    rng = np.random.default_rng(int(100 * share))
    for memory_mb in (1e-6, 64):
        targeting, _ = world(memory_mb=memory_mb)
        if coded:
            keep_codes(targeting, monkeypatch)
        out, gate = rng.permutation(USERS)[: int(share * USERS)], bool(rng.integers(2))
        songs, some = asked(targeting), asked(targeting, EXCLUDED.and_users(out))

        def kept(mode: Mode, budget: int, of: Any = (targeting, songs, out, gate)) -> Audience:
            targeting, songs, out, gate = of
            whole = targeting.audience(songs, mode, USERS, gate, 0.1)
            found = Audience(np.full((len(NEW), budget), -1), np.full((len(NEW), budget), -np.inf, dtype="f4"))
            for c in range(len(NEW)):
                stay = (whole.users_CB[c] >= 0) & ~np.isin(whole.users_CB[c], out)
                n = min(budget, int(stay.sum()))
                found.users_CB[c, :n] = whole.users_CB[c][stay][:n]
                found.scores_CB[c, :n] = whole.scores_CB[c][stay][:n]
            return found

        def best(budget: int, of: Any = (mode, kept)) -> Audience:
            mode, kept = of
            if mode != "union":
                return kept(mode, budget)
            return union(kept("i2i2u", budget), kept("cat", budget), budget)

        for budget in (3, 12):
            found = targeting.audience(some, mode, budget, gate, 0.1)
            np.testing.assert_array_equal(found.users_CB, best(budget).users_CB)
        longer = best(48)
        value_CB = 1 / (1 + np.exp(-longer.scores_CB)) if mode == "boundary" else rank_values(longer)
        capped = targeting.audience(some, mode, 12, gate, 0.1, cap=1)
        np.testing.assert_array_equal(capped.users_CB, share_out(longer, value_CB, 12, 1, None).users_CB)
        drawn = targeting.audience(some, mode, 12, gate, 0.1, exploration=Exploration(0.5, 0, NEW))
        candidates = targeting.candidates(some, 12, gate, 0.1)
        for users in (capped.users_CB, drawn.users_CB, candidates.user_P):
            assert not np.isin(users, out).any() and (share == 1) == (users < 0).all()


@pytest.mark.parametrize("gate", [False, True])
def test_union_is_of_both(gate: bool) -> None:
    found: dict[str, np.ndarray] = {}
    other: Mode
    for other in ("cat", "taste"):
        made, _ = world(union=other)
        songs = asked(made)
        lists = [made.audience(songs, mode, 12, gate, 0.1) for mode in ("i2i2u", other)]
        found[other] = made.audience(songs, "union", 12, gate, 0.1).users_CB
        np.testing.assert_array_equal(found[other], union(*lists, 12).users_CB)
    assert (found["cat"] != found["taste"]).any()


@pytest.mark.parametrize("gate", [False, True])
@pytest.mark.parametrize("memory_mb", [1e-6, 64])
def test_candidates_are_the_lists_of_the_modes(gate: bool, memory_mb: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """And the listeners of similar songs, who are a channel and CAT's seed users, are scored once."""
    made, _ = world(memory_mb=memory_mb)
    songs, scored = asked(made), []
    lists = {mode: made.audience(songs, mode, 12, gate, 0.1 if gate else -np.inf) for mode in CHANNELS}  # type: ignore[arg-type]
    score = targeting_module.listener_scores
    monkeypatch.setattr(targeting_module, "listener_scores", lambda w, *of: scored.append(w.shape[0]) or score(w, *of))
    found = made.candidates(songs, 12, gate, 0.1)
    assert sum(scored) == len(NEW) and found.channels == CHANNELS
    for channel, one in enumerate(lists.values()):
        for c in range(len(NEW)):
            of_song = np.flatnonzero((found.song_P == c) & (found.rank_PM[:, channel] <= 12))
            best = of_song[np.argsort(found.rank_PM[of_song, channel])]
            assert found.user_P[best].tolist() == one.users_CB[c][one.users_CB[c] >= 0].tolist()
    scored.clear()
    made.audience(songs, "union", 12, gate)
    assert sum(scored) == len(NEW)


@pytest.mark.parametrize("mode", ["i2i2u", "taste", "cat", "union", "boundary"])
@pytest.mark.parametrize("cap", [1, 2, 3])
def test_a_cap_per_user_takes_the_next_choice(mode: Mode, cap: int) -> None:
    found, free, longer = found_by(mode, 12, cap=cap), found_by(mode, 12), found_by(mode, 48)
    value_CB = 1 / (1 + np.exp(-longer.scores_CB)) if mode == "boundary" else rank_values(longer)
    np.testing.assert_array_equal(found.users_CB, share_out(longer, value_CB, 12, cap, None).users_CB)
    times = [np.bincount(one.users_CB[one.users_CB >= 0]).max() for one in (found, free)]
    assert times[0] == cap < times[1], "else there is no cap"


@pytest.mark.parametrize("mode", ["i2i2u", "boundary"])
def test_exploration_takes_some_places(mode: Mode) -> None:
    """The first nine choices stay, and three of the next are drawn."""
    targeting, _ = world()
    how = Exploration(0.25, 0, NEW)
    found, free = targeting.audience(asked(targeting), mode, 12, exploration=how), found_by(mode, 48)
    assert found.explored_CB is not None and found.propensity_CB is not None
    for c, users in enumerate(found.users_CB):
        drawn, named = found.explored_CB[c], users >= 0
        assert users[named & ~drawn].tolist() == [user for user in free.users_CB[c, :9].tolist() if user >= 0]
        rest = set(free.users_CB[c, 9:].tolist()) - {-1}
        assert set(users[drawn].tolist()) <= rest and drawn.sum() == min(3, len(rest))
        assert np.allclose(found.propensity_CB[c, drawn], min(1, 3 / max(1, len(rest))))
    assert (found.propensity_CB[~found.explored_CB & (found.users_CB >= 0)] == 1).all()


@pytest.mark.parametrize("mode", ["cat", "boundary"])
def test_users_have_reasons_of_their_own(mode: Mode) -> None:
    """Who listened to none of the similar songs gets their own nearest to the new one; others what brought them."""
    targeting, heard = world(neighbours=2)
    songs = asked(targeting)
    found, near = targeting.audience(songs, mode, 40), songs.similar
    reasons, own = targeting.reasons(found.users_CB, songs), 0
    for c, b in np.argwhere(found.users_CB >= 0):
        of_user = heard[found.users_CB[c, b]]
        value = dict(
            zip(near.positions_CK[c].tolist(), near.weights_CK[c] * of_user[near.positions_CK[c]], strict=True)
        )
        brought = sorted((song for song in value if value[song] > 0), key=lambda song: -value[song])
        listened = np.flatnonzero(of_user)
        nearest = listened[np.argsort(-(targeting.song_SD[listened] @ songs.vector_CD[c]), kind="stable")][:3].tolist()
        assert [song for song in reasons[c, b].tolist() if song >= 0] == (brought or nearest)
        own += not brought
    assert 0 < own < (found.users_CB >= 0).sum()


def test_what_comes_in_is_listening_like_any_other() -> None:
    """An addition raises a signal, it never lowers one; tastes follow."""
    targeting, heard = world()
    rng, everybody = np.random.default_rng(2), np.arange(USERS)
    scales = targeting.activity_U, targeting.popularity_S
    _ = targeting.taste, targeting.cat_taste
    for user, song, strength in rng.integers((0, 0, 1), (USERS, NEW[0], 4), (200, 3)).tolist():
        targeting.listening.add(user, song, float(strength))
        heard[user, song] = max(heard[user, song], strength)
    targeting.follow(everybody)
    whole = replace(targeting, listening=Listening(sparse.csr_matrix(heard.astype(np.float32))))
    whole.activity_U, whole.popularity_S = scales
    np.testing.assert_array_equal(targeting.listening.heard(everybody).toarray(), heard)
    np.testing.assert_allclose(targeting.taste.user_UD, whole.taste.user_UD, atol=1e-6)
    np.testing.assert_allclose(targeting.cat_taste.user_UD, whole.cat_taste.user_UD, atol=1e-6)
    ours, theirs = (one.audience(asked(one), "i2i2u", USERS) for one in (targeting, whole))
    np.testing.assert_array_equal(ours.users_CB, theirs.users_CB)
    np.testing.assert_allclose(ours.scores_CB, theirs.scores_CB, rtol=1e-5)
    because = [one.reasons(ours.users_CB, asked(one)) for one in (targeting, whole)]
    np.testing.assert_array_equal(*because)


def test_the_seed_alone_is_random() -> None:
    one, again, other = (world(seed=seed)[0] for seed in (0, 0, 1))
    scores = [targeting.audience(asked(targeting), "cat", 20).scores_CB for targeting in (one, again, other)]
    np.testing.assert_array_equal(scores[0], scores[1])
    assert (scores[0] != scores[2]).any()


@pytest.mark.parametrize("mode", ["i2i2u", "taste", "cat"])
def test_scores_stay_within_the_memory_given(mode: Mode) -> None:
    """Nearly every user has a score for every song."""
    n, songs, rng = 20_000, 120, np.random.default_rng(0)
    vectors = rng.standard_normal((songs, 8), dtype=np.float32)
    heard = rng.integers(1, 4, (n, songs)) * (rng.random((n, songs)) < 0.02)
    listening, index, peaks = Listening(sparse.csr_matrix(heard, dtype="f4")), build_index(vectors), []
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
