"""FAISS search against brute force, exact and approximate, and what it refuses."""

from __future__ import annotations

from typing import Any

import faiss
import numpy as np
import pytest

from retrieval import index as module
from retrieval.index import (
    FLAT_MOST,
    FLOAT_MOST,
    Only,
    add,
    build_index,
    choose,
    remove,
    resolve,
    search,
    tune,
    unit_rows,
)


def vectors(n: int, d: int = 16, seed: int = 0) -> np.ndarray:
    """Clustered, as song vectors are, and of different lengths: inner product is not cosine."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((12, d))
    return (centres[rng.integers(12, size=n)] + 0.6 * rng.standard_normal((n, d))).astype(np.float32)


def brute(items: np.ndarray, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    score = queries.astype(np.float64) @ items.astype(np.float64).T
    order = np.argsort(-score, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(score, order, axis=1), order


def share(found: np.ndarray, exact: np.ndarray) -> float:
    """Share of the exact results that were found."""
    return float(np.mean([len(set(a) & set(b)) / len(b) for a, b in zip(found.tolist(), exact.tolist(), strict=True)]))


@pytest.mark.parametrize("chunk", [100_000, 7])
@pytest.mark.parametrize("given", [np.asarray, np.asfortranarray, np.float64])
@pytest.mark.parametrize("asked", [0, 20])
def test_flat_is_exact(chunk: int, given: Any, asked: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also scores below zero are results."""
    monkeypatch.setattr(module, "CHUNK", chunk)
    items, queries = vectors(300), vectors(asked, seed=1)
    scores, positions = search(build_index(given(items)), given(queries), 300)
    expected_scores, expected = brute(items, queries, 300)
    assert (positions == expected).all()
    np.testing.assert_allclose(scores, expected_scores, rtol=1e-5, atol=1e-5)
    assert positions.dtype == np.int64 and scores.dtype == np.float32


@pytest.mark.parametrize("kind", ["Flat", "IVF,Flat", "HNSW32"])
@pytest.mark.parametrize("n", [1, 5])
def test_fewer_items_than_k(kind: str, n: int) -> None:
    items, queries = vectors(n), vectors(3, seed=1)
    scores, positions = search(build_index(items, kind), queries, 9)
    assert scores.shape == positions.shape == (3, 9)
    missing = positions == -1
    assert missing[:, n:].all() and not missing[:, 0].any()
    assert np.isneginf(scores[missing]).all() and np.isfinite(scores[~missing]).all()
    assert all(len(set(row[row >= 0])) == (row >= 0).sum() for row in positions)


@pytest.mark.parametrize(("kind", "minimum"), [("IVF,Flat", 0.8), ("IVF,SQ8", 0.8), ("HNSW32", 0.95)])
def test_approximate_indexes_find_most_of_the_exact_neighbours(kind: str, minimum: float) -> None:
    items, queries = vectors(4000), vectors(100, seed=1)
    scores, positions = search(build_index(items, kind), queries, 10)
    _, expected = brute(items, queries, 10)
    assert share(positions, expected) >= minimum
    found = positions >= 0
    exact = np.take_along_axis(queries @ items.T, np.maximum(positions, 0), axis=1)
    coarse = 0.2 if "SQ8" in kind else 1e-4
    np.testing.assert_allclose(scores[found], exact[found], rtol=1e-4, atol=coarse)
    assert np.isneginf(scores[~found]).all()


def test_an_unlucky_query_gets_as_many_results_as_any() -> None:
    """The few lists around it hold too few vectors: it looks into more."""
    rng = np.random.default_rng(0)
    items = np.concatenate([rng.standard_normal((900, 4)) + 50, rng.standard_normal((3, 4)) - 500]).astype(np.float32)
    index = build_index(items, "IVF,Flat")
    module.set_effort(index, "IVF60,Flat", 1)
    scores, positions = search(index, items[-3:], 50)
    assert (positions >= 0).all() and np.isfinite(scores).all() and (positions[:, :3] >= 900).all()


@pytest.mark.parametrize("kind", ["HNSW32", "IVF,Flat", "IVF,SQ8", "PCA16,IVF,Flat"])
def test_an_index_looks_the_farther_the_more_results_are_wanted(kind: str) -> None:
    """Tuned to find 95% of 100 neighbours, it also finds 95% of 1,000, and so many."""
    items, queries = vectors(6000), vectors(50, seed=1)
    index, kind = build_index(items, kind, np.arange(6000)), resolve(kind, 6000)
    exact = brute(items, queries, 1000)[1]
    _, recall = tune(index, kind, queries, exact[:, :100], 0.95)
    for k in (100, 200, 500, 1000):
        found = search(index, queries, k)[1]
        assert (found >= 0).all()
        assert share(found, exact[:, :k]) >= min(0.95, recall), k


@pytest.mark.parametrize("ids", [None, np.arange(1000)])
@pytest.mark.parametrize("kind", ["PCA16,Flat", "RR16,PCA16,Flat", "PCA16,IVF10,Flat"])
def test_a_pca_of_vectors_that_share_a_mean_keeps_inner_products(kind: str, ids: Any) -> None:
    items, queries = (unit_rows(vectors(n, seed=seed) + 1) for n, seed in ((1000, 0), (50, 1)))
    index = faiss.deserialize_index(faiss.serialize_index(build_index(items, kind, ids)))
    module.set_effort(index, kind, 10)
    scores, _ = search(index, queries, 10)
    expected, _ = brute(items, queries, 10)
    np.testing.assert_allclose(scores, expected, rtol=1e-4)


def test_a_pca_to_fewer_numbers_keeps_the_direction_of_a_mean() -> None:
    """All that the vectors have are seven directions and their mean; scores stand beside those of other indexes."""
    basis = np.linalg.qr(vectors(16).T)[0][:8].astype(np.float32)
    items, queries = (np.c_[2 + 0 * row[:, :1], row[:, :7]] @ basis for row in (vectors(1000), vectors(50, seed=1)))
    scores, _ = search(build_index(items, "PCA8,Flat", np.arange(1000)), queries, 10)
    np.testing.assert_allclose(scores, brute(items, queries, 10)[0], rtol=1e-4)


def test_an_index_is_tuned_for_few_results_and_for_many() -> None:
    items, queries = vectors(6000), vectors(50, seed=1)
    index, exact = build_index(items, "IVF155,Flat"), brute(items, queries, 1000)[1]
    _, recall = tune(index, "IVF155,Flat", queries, exact, 0.99)
    shares = [share(search(index, queries, k)[1], exact[:, :k]) for k in (100, 1000)]
    assert recall == pytest.approx(min(shares)) and recall >= 0.99


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("kind", ["Flat", "IVF,Flat", "HNSW32"])
def test_broken_vectors_are_refused_and_counted(bad: float, kind: str) -> None:
    items = vectors(50)
    items[3, 2] = items[9, 0] = items[9, 1] = bad
    with pytest.raises(ValueError, match="2 vectors have NaN"):
        build_index(items, kind)
    with pytest.raises(ValueError, match="2 vectors have NaN"):
        search(build_index(vectors(50)), items, 3)


@pytest.mark.parametrize("shape", [(0, 4), (4,), (4, 0), (2, 3, 4)])
def test_nothing_to_index(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="at least one vector"):
        build_index(np.zeros(shape, dtype=np.float32))


@pytest.mark.parametrize(
    ("kind", "n", "full"),
    [
        ("auto", 1, "Flat"),
        ("auto", FLAT_MOST, "Flat"),
        ("auto", FLAT_MOST + 1, "IVF894,Flat"),
        ("auto", FLOAT_MOST + 1, "IVF8944,SQ8"),
        ("IVF,PQ8", 10_000, "IVF200,PQ8"),
        ("IVF_HNSW32,SQ8", 100, "IVF20_HNSW32,SQ8"),
        ("OPQ8,IVF,PQ8", 100, "OPQ8,IVF20,PQ8"),
        ("IVF64,Flat", 10_000, "IVF64,Flat"),
    ],
)
def test_a_kind_is_said_in_full(kind: str, n: int, full: str) -> None:
    assert resolve(kind, n) == full and f"{FLAT_MOST:,}" in choose(FLAT_MOST)[1]


@pytest.mark.parametrize("kind", ["Flat", "IVF16,Flat", "IVF16,SQ8", "IVF16,PQ16x4", "OPQ8,IVF16,PQ8x4"])
def test_added_replaced_and_removed_by_number(kind: str) -> None:
    """Against an index of what should be left; with all lists looked into, so that both are complete."""
    items, number = vectors(900), 3 * np.arange(900) + 7
    index = build_index(items, kind, number)
    remove(index, number[:30])  # ten of which come back with other vectors, beside a new one
    back = np.concatenate([number[:10], [9999]])
    items[:10], extra = -items[:10], vectors(1, seed=5)
    add(index, np.concatenate([items[:10], extra]), back)
    left = np.concatenate([number[:10], number[30:], [9999]])
    assert index.ntotal == len(left)
    rows = np.concatenate([items[:10], items[30:], extra])
    tune(index, kind, rows[:5], np.full((5, 1), -5), 1.0)  # nothing is found: everything is looked into
    found = search(index, rows, 3)[1]
    assert set(found.ravel()) <= set(left)
    if "PQ" in kind:
        assert (found == left[:, None]).any(axis=1).mean() > 0.5  # codes are coarse
    else:
        _, expected = brute(rows, rows, 3)
        assert (found == left[expected]).mean() > (0.9 if "SQ" in kind else 0.999)


def test_what_is_not_there_cannot_be_removed() -> None:
    items = vectors(20)
    with pytest.raises(ValueError, match="1 of 2 vectors to remove are not in the index"):
        remove(build_index(items, "Flat", np.arange(20)), np.array([3, 20]))
    graph = build_index(items, "HNSW32", np.arange(20))
    with pytest.raises(ValueError, match="choose Flat or IVF"):
        remove(graph, np.array([3]))
    add(graph, items[:1], np.array([77]))
    assert set(search(graph, items[:1], 2)[1][0]) == {0, 77}
    remove(graph, np.zeros(0, dtype=np.int64))


@pytest.mark.parametrize("kind", ["IVF50,Flat", "HNSW64"])
def test_tuning_looks_no_further_than_it_must(kind: str) -> None:
    items, queries = vectors(3000), vectors(100, seed=1)
    _, exact = brute(items, queries, 10)
    efforts = []
    for minimum in (0.3, 0.9, 0.99):
        index = build_index(items, kind)
        effort, recall = tune(index, kind, queries, exact, minimum)
        assert minimum <= recall == pytest.approx(share(search(index, queries, 10)[1], exact))
        efforts.append(effort)
    assert efforts == sorted(efforts) and efforts[0] < efforts[-1]


def test_tuning_ends_where_codes_are_too_coarse() -> None:
    items, queries = vectors(2000), vectors(50, seed=1)
    kind = "IVF16,PQ2x4"
    effort, recall = tune(build_index(items, kind), kind, queries, brute(items, queries, 10)[1], 1.0)
    assert effort == 16 and 0 < recall < 0.9


@pytest.mark.parametrize("kind", ["Flat", "IVF20,Flat", "IVF20,SQ8", "HNSW16", "PCA8,IVF20,Flat"])
def test_some_vectors_alone(kind: str) -> None:
    """As many as are asked for, and no other, though few of the lists or none of the nearest have them."""
    items, queries = vectors(600), vectors(15, seed=1)
    index = build_index(items, kind, np.arange(600) * 3)
    some = np.sort(np.random.default_rng(0).choice(600, 50, replace=False))
    scores, found = search(index, queries, 60, Only(some * 3))
    assert (np.sort(found[:, :50]) == some * 3).all()
    assert (found[:, 50:] == -1).all() and np.isneginf(scores[:, 50:]).all()
    if kind == "Flat":
        np.testing.assert_array_equal(found[:, :50], 3 * some[brute(items[some], queries, 50)[1]])
    assert (search(index, queries, 5, Only(np.arange(0)))[1] == -1).all()


def test_some_vectors_alone_are_refused_where_faiss_would_overlook_it() -> None:
    with pytest.raises(ValueError, match="choose Flat, IVF or HNSW"):
        search(build_index(vectors(300), "PCA8,Flat", np.arange(300)), vectors(2), 5, Only(np.arange(3)))
