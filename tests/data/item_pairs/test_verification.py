"""The collaborative teacher against brute force, and the posterior check against naive loops and closed forms."""

from __future__ import annotations

from collections import defaultdict
from datetime import datetime, timedelta

import numpy as np
import polars as pl
import pytest
from implicit.nearest_neighbours import CosineRecommender
from polars.testing import assert_frame_equal
from scipy import sparse, stats

from configs.errors import UserError
from data.item_pairs.loops import DENSE
from data.item_pairs.neighbours import Pairs, cold_neighbours, common_listeners, neighbours, terms
from data.item_pairs.verification import (
    cap_histories,
    draw,
    evidence_of_feedback,
    evidence_of_listeners,
    listening_matrix,
    probability_below_chance,
    split_users,
)


def listening(users: int = 40, songs: int = 25, seed: int = 0, share: float = 0.3) -> sparse.csr_matrix:
    """Random strengths 1 … 3, popularity falling with the song number."""
    rng = np.random.default_rng(seed)
    heard = rng.random((users, songs)) < np.linspace(2 * share, 0.02, songs)
    return sparse.csr_matrix(np.where(heard, rng.integers(1, 4, (users, songs)), 0).astype(np.float32))


def listeners(matrix: sparse.csr_matrix) -> list[set[int]]:
    dense = matrix.toarray()
    return [set(np.flatnonzero(dense[:, song]).tolist()) for song in range(dense.shape[1])]


def every_pair(n: int) -> Pairs:
    source, target = np.nonzero(~np.eye(n, dtype=bool))
    return Pairs(source, target, np.zeros(len(source), dtype=np.float32))


def table(pairs: Pairs) -> dict[tuple[int, int], float]:
    found = dict(zip(zip(pairs.source.tolist(), pairs.target.tolist(), strict=True), pairs.similarity, strict=True))
    assert len(found) == len(pairs), "a pair twice"
    return found


def cosine(a: set[int], b: set[int], n_users: int) -> float:
    return len(a & b) / float(np.sqrt(len(a) * len(b)))


def correlation(a: set[int], b: set[int], n_users: int) -> float:
    """Pearson's, of two songs' 0/1 listener vectors; a song that all or nobody heard correlates with none."""
    if n_users * len(a & b) == len(a) * len(b):
        return 0.0  # exactly: `corrcoef` would leave a rounding error of either sign
    x, y = np.zeros((2, n_users))
    x[list(a)], y[list(b)] = 1, 1
    return float(np.corrcoef(x, y)[0, 1])


SIMILARITY = {"phi": correlation, "cosine": cosine}


def brute_neighbours(values: dict[tuple[int, int], float], top_k: int) -> dict[int, list[float]]:
    """The top_k similarities of every source; compared as values, since equal ones may be kept in any order."""
    best: dict[int, list[float]] = {}
    for (source, _), value in values.items():
        best.setdefault(source, []).append(value)
    return {source: sorted(one, reverse=True)[:top_k] for source, one in best.items()}


def check_neighbours(found: Pairs, allowed: dict[tuple[int, int], float], top_k: int) -> None:
    got = table(found)
    for pair, value in got.items():
        assert value == pytest.approx(allowed[pair], rel=1e-4, abs=1e-6), (
            f"{pair} is no allowed pair, or has another similarity"
        )
    expected, kept = brute_neighbours(allowed, top_k), brute_neighbours(got, top_k)
    assert kept.keys() == expected.keys()
    for source, values in expected.items():
        assert kept[source] == pytest.approx(values, rel=1e-4, abs=1e-6), f"not the {top_k} best of song {source}"


@pytest.mark.parametrize("threads", ["1", "3"])
@pytest.mark.parametrize("top_k", [1, 4, 100])
@pytest.mark.parametrize("min_common", [1, 2, 4])
@pytest.mark.parametrize("similarity", SIMILARITY)
def test_neighbours_against_brute_force(
    similarity: str, top_k: int, min_common: int, threads: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The best `top_k` of the pairs that share enough listeners; pairs that do not must not use up places."""
    monkeypatch.setenv("OMP_NUM_THREADS", threads)
    matrix = listening()
    of = listeners(matrix)
    value = {
        (a, b): SIMILARITY[similarity](of[a], of[b], matrix.shape[0])
        for a in range(len(of))
        for b in range(len(of))
        if a != b and len(of[a] & of[b]) >= min_common
    }
    assert (min(value.values()) < 0) == (similarity == "phi"), "the toy has pairs that avoid each other"
    positive = {pair: one for pair, one in value.items() if one > 0}
    check_neighbours(neighbours(matrix, top_k, min_common, similarity), positive, top_k)


def test_phi_is_the_default_and_the_correlation_of_the_columns() -> None:
    matrix = listening()
    assert table(neighbours(matrix, 4, 2)) == table(neighbours(matrix, 4, 2, "phi"))
    correlation_SS = np.corrcoef(matrix.toarray() > 0, rowvar=False)
    found = table(neighbours(matrix, 100, 1))
    assert found == {pair: pytest.approx(correlation_SS[pair], abs=1e-6) for pair in found}
    dense = np.zeros((40, 3), dtype=np.float32)
    dense[:20, 0], dense[15:25, 1], dense[:, 2] = 1, 1, 1  # 5 of 20 and 10 in common: as many as by chance
    assert len(neighbours(sparse.csr_matrix(dense), 3, 1)) == 0, "chance is exactly 0"


@pytest.mark.parametrize("similarity", SIMILARITY)
def test_best_first_and_of_equal_ones_the_lower_number(similarity: str) -> None:
    """Every song twice: the two copies of a neighbour are equally similar, and one place may be left for them."""
    matrix = sparse.csr_matrix(np.repeat(listening(users=30, songs=12, share=0.4).toarray(), 2, axis=1))
    of, n = listeners(matrix), 24
    assert min(map(len, of)) > 0
    for top_k in (2, 5):
        expected = []
        for a in range(n):
            values = [(-np.float32(SIMILARITY[similarity](of[a], of[b], 30)), b) for b in range(n) if b != a]
            expected += [(a, b) for value, b in sorted(values)[:top_k] if value < 0 and of[a] & of[b]]
        found = neighbours(matrix, top_k, 1, similarity)
        assert list(zip(found.source.tolist(), found.target.tolist(), strict=True)) == expected


@pytest.mark.parametrize("shrinkage", [0.0, 10.0])
@pytest.mark.parametrize("similarity", ["phi", "cosine", "iuf", "bm25"])
def test_rows_of_popular_and_of_rare_songs_against_the_whole_product(similarity: str, shrinkage: float) -> None:
    """1,500 songs: rows of which all songs are looked at, and rows of which only those met are; ties too."""
    rng, (users, songs) = np.random.default_rng(4), (600, 1500)
    dense = (rng.random((users, songs)) < 0.3 / np.arange(1, songs + 1) ** 0.6).astype(np.float32)
    matrix = sparse.csr_matrix(dense[:, rng.permutation(songs)])
    met = np.asarray(matrix.astype(bool).T @ np.diff(matrix.indptr)).ravel()  # histories of a song's listeners
    assert 20 < (met * DENSE >= songs).sum() < 1400, "both kinds of rows"
    of = terms(similarity, np.bincount(matrix.indices, minlength=songs), np.diff(matrix.indptr))
    heard = matrix.toarray().astype(np.float64)
    common = heard.T @ heard
    total = common if of.weight_U is None else heard.T @ (of.weight_U[:, None] * heard)
    value_SS = (of.scale * total - np.outer(of.chance_S, of.chance_S)) / np.outer(of.norm_S, of.norm_S)
    value_SS = np.where(common >= 2, value_SS * common / (common + shrinkage), 0).round(9)
    np.fill_diagonal(value_SS, 0)
    found, at = neighbours(matrix, 10, 2, similarity, shrinkage), np.zeros(songs, dtype=int)
    for source, target, value in zip(found.source, found.target, found.similarity, strict=True):
        order = np.lexsort((np.arange(songs), -value_SS[source]))
        best = order[at[source]]
        assert value == pytest.approx(value_SS[source, best], rel=1e-5)
        assert target == best or value_SS[source, target] == pytest.approx(value_SS[source, best], rel=1e-6)
        at[source] += 1
    assert at.tolist() == np.minimum((value_SS > 0).sum(axis=1), 10).tolist()


def test_cosine_is_what_implicit_finds() -> None:
    matrix = listening(users=300, songs=80)
    matrix.data[:] = 1
    peer = CosineRecommender(K=11, num_threads=1)
    peer.fit(matrix, show_progress=False)
    allowed = {(int(a), int(b)): cosine_ for a, b, cosine_ in zip(*sparse.find(peer.similarity), strict=True) if a != b}
    found = table(neighbours(matrix, 10, 1, "cosine"))
    assert brute_neighbours(found, 10).keys() == brute_neighbours(allowed, 10).keys()
    for source, values in brute_neighbours(allowed, 10).items():
        assert brute_neighbours(found, 10)[source] == pytest.approx(values, rel=1e-5)


def test_phi_takes_away_what_popularity_gives_and_cosine_does_not() -> None:
    """Songs 0 and 1 have the same few fans; song 2 is a hit that fans and others hear alike: no taste in it."""
    rng = np.random.default_rng(0)
    dense = np.zeros((5000, 3), dtype=np.float32)
    fan = np.arange(5000) < 300
    for song in (0, 1):
        dense[:, song] = fan & (rng.random(5000) < 0.3)
    dense[:, 2] = rng.random(5000) < 0.9
    matrix = sparse.csr_matrix(dense)
    found = {name: table(neighbours(matrix, 2, 1, name)) for name in SIMILARITY}
    assert found["phi"][0, 1] > 5 * found["phi"].get((0, 2), 0.0)
    assert found["cosine"][0, 2] > 0.5 * found["cosine"][0, 1]


@pytest.mark.parametrize("similarity", ["phi", "bm25"])
def test_a_song_that_everybody_heard_is_a_neighbour_of_none(similarity: str) -> None:
    dense = np.asarray(listening().toarray() > 0, dtype=np.float32)
    dense[:, 0] = 1
    found = table(neighbours(sparse.csr_matrix(dense), 100, 1, similarity))
    assert any(0 in pair for pair in found) == (similarity != "phi")
    assert all(np.isfinite(value) for value in found.values())


@pytest.mark.parametrize("similarity", ["phi", "cosine", "iuf", "bm25"])
def test_a_rare_coincidence_takes_no_place_of_a_real_neighbour(similarity: str) -> None:
    """Song 0 shares one listener each with rare songs 2 … 9 (more similar) and two listeners with popular song 1."""
    dense = np.zeros((60, 40), dtype=np.float32)
    dense[50 + np.arange(30) % 10, np.arange(10, 40)] = 1  # the rest of the catalogue, so that bm25 has averages
    dense[:2, 0] = 1
    dense[:40, 1] = 1
    dense[0, 2:10] = 1
    matrix = sparse.csr_matrix(dense)
    every = table(neighbours(matrix, top_k=100, min_common=1, similarity=similarity))
    assert min(every[0, rare] for rare in range(2, 10)) > every[0, 1], "else the places are not in danger"
    found = table(neighbours(matrix, top_k=3, min_common=2, similarity=similarity))
    assert set(found) == {(0, 1), (1, 0)}


@pytest.mark.parametrize("similarity", SIMILARITY)
def test_two_hits_with_products_of_listeners_beyond_32_bits(similarity: str) -> None:
    dense = np.ones((70_000, 3), dtype=np.float32)
    dense[:7_000, :2] = 0
    dense[:, 2] = 0
    found = table(neighbours(sparse.csr_matrix(dense), 2, 1, similarity))
    assert found == {(0, 1): pytest.approx(1.0), (1, 0): pytest.approx(1.0)}


def test_songs_without_listeners(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are nobody's neighbours, and no thread that meets them only is a trouble."""
    matrix = sparse.csr_matrix(np.pad(listening().toarray(), ((0, 0), (5, 5))))
    for similarity in ("phi", "cosine", "iuf"):
        monkeypatch.setenv("OMP_NUM_THREADS", "1")
        found = table(neighbours(matrix, 4, 2, similarity))
        unpadded = table(neighbours(listening(), 4, 2, similarity))
        assert found == {(a + 5, b + 5): value for (a, b), value in unpadded.items()}
        monkeypatch.setenv("OMP_NUM_THREADS", "7")
        assert found == table(neighbours(matrix, 4, 2, similarity))


def test_bm25_against_a_loop() -> None:
    """implicit's BM25 (K1 = 1.2, B = 0.75): Σ over common users of idf(u)² · f(a) · f(b), f falling with popularity."""
    matrix, min_common = listening(users=200), 2
    of, heard = listeners(matrix), matrix.toarray() > 0
    idf = np.log(25) - np.log1p(heard.sum(axis=1))
    length = heard.sum(axis=0) / heard.sum(axis=0).mean()
    f = 2.2 / (1.2 * (0.25 + 0.75 * length) + 1)
    score = {
        (a, b): float(sum(idf[u] ** 2 for u in of[a] & of[b]) * f[a] * f[b])
        for a in range(25)
        for b in range(25)
        if a != b and len(of[a] & of[b]) >= min_common
    }
    check_neighbours(neighbours(matrix, 4, min_common, "bm25"), score, 4)
    for other in ("phi", "cosine"):
        assert set(table(neighbours(matrix, 4, 2, "bm25"))) != set(table(neighbours(matrix, 4, 2, other)))


def test_iuf_against_a_loop() -> None:
    """Cosine in which a common listener counts 1 / log(1 + their songs): who heard little says more."""
    matrix, min_common = listening(users=60), 2
    of, songs_of = listeners(matrix), (matrix.toarray() > 0).sum(axis=1)
    score = {
        (a, b): float(sum(1 / np.log(1 + songs_of[u]) for u in of[a] & of[b]) / np.sqrt(len(of[a]) * len(of[b])))
        for a in range(25)
        for b in range(25)
        if a != b and len(of[a] & of[b]) >= min_common
    }
    check_neighbours(neighbours(matrix, 4, min_common, "iuf"), score, 4)
    assert set(table(neighbours(matrix, 4, 2, "iuf"))) != set(table(neighbours(matrix, 4, 2, "cosine")))


@pytest.mark.parametrize("similarity", ["phi", "cosine", "iuf", "bm25"])
def test_shrinkage_discounts_what_few_listeners_say(similarity: str) -> None:
    matrix = listening()
    of = listeners(matrix)
    every = table(neighbours(matrix, 100, 1, similarity))
    for shrinkage in (0.0, 1.0, 25.0):
        n = {(a, b): len(of[a] & of[b]) for a, b in every}
        expected = {pair: float(value) * n[pair] / (n[pair] + shrinkage) for pair, value in every.items()}
        check_neighbours(neighbours(matrix, 3, 1, similarity, shrinkage=shrinkage), expected, 3)


@pytest.mark.parametrize("similarity", ["phi", "cosine", "iuf", "bm25"])
def test_how_loud_a_listening_is_does_not_change_neighbours(similarity: str) -> None:
    matrix = listening()
    quiet = matrix.copy()
    quiet.data[:] = 1
    assert table(neighbours(matrix, 5, 1, similarity)) == table(neighbours(quiet, 5, 1, similarity))


def test_nobody_listens() -> None:
    empty = sparse.csr_matrix((5, 7), dtype=np.float32)
    assert all(len(neighbours(empty, 3, 1, name)) == 0 for name in ("phi", "cosine", "iuf", "bm25"))
    assert len(cold_neighbours(empty, empty, 3, 1)) == 0
    assert len(common_listeners(empty, empty, every_pair(0))) == 0


@pytest.mark.parametrize("threads", ["1", "3"])
def test_common_listeners_against_sets(threads: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", threads)
    matrix = listening()
    pairs = every_pair(25).take(np.random.default_rng(0).permutation(25 * 24))
    of = listeners(matrix)
    heard = sparse.csc_matrix(matrix, dtype=bool).astype(np.float32)
    expected = [len(of[a] & of[b]) for a, b in zip(pairs.source, pairs.target, strict=True)]
    assert common_listeners(heard, heard, pairs).tolist() == expected


def test_inputs_stay_as_they_are() -> None:
    matrix = listening()
    for stored in (matrix, sparse.csc_matrix(matrix)):
        before = stored.toarray()
        for similarity in ("phi", "cosine", "iuf", "bm25"):
            neighbours(stored, 3, 1, similarity)
        cold_neighbours(stored, stored, 3, 1)
        evidence_of_listeners(every_pair(25), stored, stored)
        assert (stored.toarray() == before).all()


def test_listening_matrix_keeps_the_strongest_signal_and_no_dislike() -> None:
    plays = pl.DataFrame({"user": [0, 0, 0, 1, 2, 2], "song": [1, 1, 2, 1, 0, 0], "strength": [1.0, 3, 2, -1, -1, 2]})
    matrix = listening_matrix(plays, 4, 3)
    assert matrix.toarray().tolist() == [[0, 3, 2], [0, 0, 0], [2, 0, 0], [0, 0, 0]]
    assert matrix.nnz == 3, "a dislike is no stored zero either"


# ------------------------------------------------------------------------------------------ posterior check


@pytest.mark.parametrize("popularity", [3.0, 10.0, 100.0])
@pytest.mark.parametrize("lift", [0.2, 0.5, 1.0, 2.0])
def test_error_rates_on_simulated_pairs_are_those_of_theory(lift: float, popularity: float) -> None:
    """Type I: pairs of lift 1 or more that go; type II: pairs of less that stay. `popularity`: expected outcomes."""
    good = np.random.default_rng(0).poisson(lift * popularity, 100_000)
    dropped = (probability_below_chance(good, np.full(len(good), popularity), 0.0) > 0.9).mean()
    # The exact test: the largest count whose chance to be reached or undercut at lift 1 is below a tenth.
    critical = int(stats.poisson.ppf(0.1, popularity)) - 1
    assert dropped == pytest.approx(stats.poisson.cdf(critical, lift * popularity), abs=0.005)
    assert dropped <= 0.1 if lift >= 1 else dropped > 0.05
    shrunk = (probability_below_chance(good, np.full(len(good), popularity), 20.0) > 0.9).mean()
    assert shrunk <= dropped and (shrunk < dropped or popularity == 100 or not dropped), "the prior says lift 1"


@pytest.mark.parametrize("prior", [0.0, 0.7, 1.0, 20.0, 1000.0])
def test_a_pair_without_evidence_is_never_dropped(prior: float) -> None:
    assert probability_below_chance(np.zeros(1), np.zeros(1), prior)[0] <= 0.5


def test_kept_share_does_not_depend_on_popularity_where_lift_does_not() -> None:
    """Users choose at random, so that every pair has lift 1, from songs that 1 to 40 % of them know."""
    rng = np.random.default_rng(0)
    songs = 60
    popularity = np.geomspace(0.01, 0.4, songs)
    heard = sparse.csr_matrix((rng.random((2000, songs)) < popularity).astype(np.float32))
    pairs = every_pair(songs)
    found = evidence_of_listeners(pairs, heard, heard)
    dropped = probability_below_chance(found["good"].to_numpy(), found["expected"].to_numpy(), 1.0) > 0.9
    for rarer in (popularity < 0.05, popularity > 0.2):
        of = rarer[pairs.source] & rarer[pairs.target]
        assert dropped[of].mean() < 0.12, "at most a tenth, of rare songs and of hits"


def test_evidence_of_feedback_against_a_loop() -> None:
    rng = np.random.default_rng(1)
    rows = [(int(a), int(b), int(n), int(n // 3), int(n // 5)) for a, b, n in rng.integers(0, 12, (150, 3))]
    feedback = pl.DataFrame(rows, schema=["source", "target", "plays", "completes", "favourites"], orient="row")
    shown, good, target_shown, target_good = (defaultdict(float) for _ in range(4))
    for a, b, plays, completes, favourites in rows:
        shown[a, b] += plays
        good[a, b] += favourites / 1.5 + 0.5 * completes / 1.5
        target_shown[b] += plays
        target_good[b] += favourites / 1.5 + 0.5 * completes / 1.5
    overall = sum(good.values()) / sum(shown.values())
    for prior in (0.0, 2.0):
        found = evidence_of_feedback(feedback.with_columns(pl.col("source", "target").cast(pl.UInt32)), prior)
        assert found.height == len(shown)
        for a, b, g, expected in found.iter_rows():
            others = target_shown[b] - shown[a, b] + prior / overall
            rate = (target_good[b] - good[a, b] + prior) / others if others else 0.0
            assert (g, expected) == (pytest.approx(good[a, b]), pytest.approx(shown[a, b] * rate))


@pytest.mark.parametrize("prior", [0.0, 20.0])
def test_feedback_without_a_good_outcome_says_nothing(prior: float) -> None:
    """Plays came in without marks: no pair did worse than another, and the pairs that users chose are not dropped."""
    feedback = pl.DataFrame({"source": [0, 1], "target": [1, 2], "plays": [9, 1], "completes": [0, 0],
                             "favourites": [0, 0]})  # fmt: skip
    assert evidence_of_feedback(feedback, prior)["expected"].to_list() == [0, 0]


def test_a_song_recommended_beside_one_other_alone_is_judged_by_the_rate_of_all() -> None:
    feedback = pl.DataFrame({"source": [0, 1], "target": [8, 9], "plays": [40] * 2, "completes": [40, 0],
                             "favourites": [40, 0]})  # fmt: skip
    found = evidence_of_feedback(feedback, 1.0).sort("target")
    below = probability_below_chance(found["good"].to_numpy(), found["expected"].to_numpy(), 1.0)
    assert below[0] < 0.01 and below[1] > 0.99


def test_feedback_is_judged_by_the_targets_own_rate() -> None:
    """A rare song that few like, but source 0's listeners as much as others', is no worse than a hit."""
    feedback = pl.DataFrame(
        {"source": [0, 1, 0, 1], "target": [8, 8, 9, 9], "plays": [500] * 4, "completes": [0] * 4,
         "favourites": [50, 52, 400, 390]}
    )  # fmt: skip
    found = evidence_of_feedback(feedback, 1.0)
    assert (probability_below_chance(found["good"].to_numpy(), found["expected"].to_numpy(), 1.0) < 0.9).all()


def test_evidence_of_listeners_against_a_loop_on_held_out_users() -> None:
    """Both windows the same users' listening, as for split_users: co-listening against the target's share."""
    matrix = listening()
    pairs, of = every_pair(25), listeners(matrix)
    active = len(set().union(*of))
    for a, b, good, expected in evidence_of_listeners(pairs, matrix, matrix).iter_rows():
        assert good == len(of[a] & of[b]) and expected == pytest.approx(len(of[a]) * len(of[b]) / active)


def test_evidence_of_listeners_against_a_loop_on_two_windows() -> None:
    """Only users who could take the target up count: active in the later window, and new to the target."""
    before, after = listening(seed=2), listening(seed=3, share=0.15)
    fresh = after.toarray() * (before.toarray() == 0)
    fresh[:10] = 0  # a quarter of the users never come back
    after = sparse.csr_matrix(fresh)
    knew, took = listeners(before), listeners(after)
    active = set().union(*took)
    for a, b, good, expected in evidence_of_listeners(every_pair(25), before, after).iter_rows():
        could = active - knew[b]
        share = len(took[b]) / len(could) if could else 0.0
        assert (good, expected) == (len(knew[a] & took[b]), pytest.approx(len(knew[a] & could) * share))


def test_unrelated_songs_have_lift_one_on_average_in_a_later_window() -> None:
    """Users choose at random, half of them leave, and nobody takes up twice what they know: no pair is good or bad."""
    rng = np.random.default_rng(0)
    users, songs = 4000, 12
    before = rng.random((users, songs)) < 0.4
    after = (rng.random((users, songs)) < 0.3) & ~before & (np.arange(users) % 2 == 0)[:, None]
    knew, took = (sparse.csr_matrix(window.astype(np.float32)) for window in (before, after))
    found = evidence_of_listeners(every_pair(songs), knew, took)
    assert (found["good"] / found["expected"]).mean() == pytest.approx(1.0, abs=0.03)


@pytest.mark.parametrize("top_k", [4, 100])
def test_cold_neighbours_against_brute_force(top_k: int) -> None:
    is_cold = np.arange(25) < 10
    cold = sparse.csr_matrix(listening(seed=4).toarray() * is_cold)
    warm = sparse.csr_matrix(listening(seed=5).toarray() * ~is_cold)
    a, b = listeners(cold), listeners(warm)
    value = {(s, t): correlation(a[s], b[t], 40) for s in range(10) for t in range(10, 25) if len(a[s] & b[t]) >= 2}
    assert min(value.values()) < 0, "a warm song that a new song's listeners avoid is no neighbour of it"
    positive = {pair: one for pair, one in value.items() if one > 0}
    check_neighbours(cold_neighbours(cold, warm, top_k, 2), positive, top_k)


def table_of(matrix: sparse.csr_matrix) -> pl.DataFrame:
    """As plays without times."""
    user, song, strength = sparse.find(matrix)
    return pl.DataFrame({"user": user, "song": song, "strength": strength}).with_columns(
        played_at=pl.lit(None, pl.Datetime("ms"))
    )


def test_split_users_gives_every_user_to_one_half() -> None:
    plays = table_of(listening())
    first, second = split_users(plays, 40, 0)
    assert_frame_equal(pl.concat([first, second]), plays, check_row_order=False)
    heard = [set(half["user"].to_list()) for half in (first, second)]
    assert not heard[0] & heard[1] and min(map(len, heard)) > 5
    assert split_users(plays, 40, 0)[0].equals(first) and not split_users(plays, 40, 1)[0].equals(first)
    with pytest.raises(UserError, match="at least two users"):
        split_users(plays.filter(pl.col("user") == 0), 1, 0)


# ------------------------------------------------------------------------------------------ huge histories


def test_a_capped_history_is_the_strongest_then_the_latest_then_drawn() -> None:
    """User 0 has seven liked songs and one disliked, two of them twice; user 1 is below the cap."""
    day = [datetime(2026, 1, 1) + timedelta(days=n) for n in range(9)]
    rows = [
        (0, 10, 3.0, day[0]), (0, 11, 2.0, day[1]), (0, 12, 1.0, day[5]), (0, 12, 1.0, day[2]), (0, 13, 1.0, day[4]),
        (0, 14, 1.0, None), (0, 15, 1.0, day[3]), (0, 15, 2.0, day[0]), (0, 16, 1.0, day[3]), (0, 17, -1.0, day[8]),
        (1, 14, 1.0, None), (1, 17, -1.0, day[0]), (1, 10, 1.0, day[1]),
    ]  # fmt: skip
    plays = pl.DataFrame(rows, schema=["user", "song", "strength", "played_at"], orient="row")
    for most, expected in ((1, [10]), (2, [10, 15]), (3, [10, 11, 15]), (5, [10, 11, 12, 13, 15])):
        kept, users = cap_histories(plays, most, 0)
        kept = kept.lazy().filter(pl.col("strength") > 0).collect()
        if most > 2:
            assert users == 1
            assert sorted(kept.filter(pl.col("user") == 1)["song"].to_list()) == [10, 14]
        assert sorted(kept.filter(pl.col("user") == 0)["song"].to_list()) == expected
    full = listening_matrix(plays, 2, 20)
    assert (listening_matrix(cap_histories(plays, 6, 0)[0], 2, 20) != full).nnz == 1, "song 14, which has no date, goes"
    for none in (7, 0):
        same, users = cap_histories(plays, none, 0)
        assert users == 0 and same.equals(plays)


def test_the_draw_favours_no_song_and_ties_none_together() -> None:
    """600 users who heard all of 40 songs keep 10 each: every song, and every two songs, as often as by chance."""
    plays = table_of(sparse.csr_matrix(np.ones((600, 40), dtype=np.float32)))
    kept, users = cap_histories(plays, 10, 3)
    kept = kept.lazy().collect()
    assert users == 600 and kept.height == 6000
    chosen = listening_matrix(kept, 600, 40).toarray()
    times = chosen.sum(axis=0)
    assert ((times - 150) ** 2 / (600 * 0.25 * 0.75)).sum() < 40 + 4 * np.sqrt(80), "χ²"
    together = (chosen.T @ chosen)[np.triu_indices(40, 1)] / 600
    by_chance = 10 * 9 / (40 * 39)
    assert abs(together - by_chance).max() < 5 * np.sqrt(by_chance / 600)
    other = cap_histories(plays, 10, 4)[0]
    assert 0.15 < listening_matrix(other, 600, 40).multiply(chosen).sum() / 6000 < 0.35, "another seed, another draw"


def test_the_draw_is_a_fifth_power_and_takes_the_largest_numbers() -> None:
    top = 2**31 - 1
    pairs = [(0, 0), (5, 7), (top, top), (top, 1)]
    for seed in (0, 7, 2**40):
        expected = [pow(u * 845_431_123 + s * 961_748_927 + (seed % top + 1) * 472_882_027, 5, top) for u, s in pairs]
        assert draw(*np.array(pairs).T, seed).tolist() == expected
