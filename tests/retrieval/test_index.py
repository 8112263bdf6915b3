"""FAISS search against brute force, exact and approximate, and what it refuses."""

from __future__ import annotations

import numpy as np
import pytest

from retrieval import index as module
from retrieval.index import build_index, search, to_cpu


def vectors(n: int, d: int = 16, seed: int = 0) -> np.ndarray:
    """Clustered, as song vectors are, and of different lengths: inner product is not cosine."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((12, d))
    return (centres[rng.integers(12, size=n)] + 0.6 * rng.standard_normal((n, d))).astype(np.float32)


def brute(items: np.ndarray, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    score = queries.astype(np.float64) @ items.astype(np.float64).T
    order = np.argsort(-score, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(score, order, axis=1), order


@pytest.mark.parametrize("chunk", [100_000, 7])
def test_flat_is_exact(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHUNK", chunk)
    items, queries = vectors(300), vectors(20, seed=1)
    scores, positions = search(build_index(items), queries, 10)
    expected_scores, expected = brute(items, queries, 10)
    assert (positions == expected).all()
    np.testing.assert_allclose(scores, expected_scores, rtol=1e-5, atol=1e-5)
    assert positions.dtype == np.int64 and scores.dtype == np.float32


def test_scores_below_zero_are_results_too() -> None:
    items = -np.abs(vectors(50))
    _, positions = search(build_index(items), np.abs(vectors(5, seed=1)), 50)
    assert (np.sort(positions, axis=1) == np.arange(50)).all()


@pytest.mark.parametrize("kind", ["flat", "ivf", "hnsw"])
def test_fewer_items_than_k(kind: str) -> None:
    items, queries = vectors(5), vectors(3, seed=1)
    scores, positions = search(build_index(items, kind), queries, 9)
    assert scores.shape == positions.shape == (3, 9)
    missing = positions == -1
    assert missing[:, 5:].all() and np.isneginf(scores[missing]).all() and np.isfinite(scores[~missing]).all()
    assert all(len(set(row[row >= 0])) == (row >= 0).sum() for row in positions)


@pytest.mark.parametrize(("kind", "least"), [("ivf", 0.8), ("hnsw", 0.95)])
def test_approximate_indexes_find_most_of_the_exact_neighbours(kind: str, least: float) -> None:
    items, queries = vectors(4000), vectors(100, seed=1)
    scores, positions = search(build_index(items, kind), queries, 10)
    _, expected = brute(items, queries, 10)
    recall = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(positions.tolist(), expected.tolist(), strict=True)])
    assert recall >= least
    found = positions >= 0
    exact = np.take_along_axis(queries @ items.T, np.maximum(positions, 0), axis=1)
    np.testing.assert_allclose(scores[found], exact[found], rtol=1e-4, atol=1e-4)
    assert np.isneginf(scores[~found]).all()


def test_an_approximate_index_of_an_unlucky_query_pads_with_nothing() -> None:
    """IVF looks into few lists: what it does not find is −1 with −inf, not a huge negative score."""
    rng = np.random.default_rng(0)
    items = np.concatenate([rng.standard_normal((900, 4)) + 50, rng.standard_normal((3, 4)) - 500]).astype(np.float32)
    scores, positions = search(build_index(items, "ivf"), items[-3:], 200)
    assert (positions == -1).any() and np.isneginf(scores[positions == -1]).all()


@pytest.mark.parametrize("kind", ["flat", "ivf", "hnsw"])
def test_one_item_and_one_query(kind: str) -> None:
    _, positions = search(build_index(vectors(1), kind), vectors(1, seed=1), 1)
    assert positions.tolist() == [[0]]


def test_no_query() -> None:
    scores, positions = search(build_index(vectors(5)), vectors(0), 3)
    assert scores.shape == positions.shape == (0, 3)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("kind", ["flat", "ivf", "hnsw"])
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


def test_unknown_kind() -> None:
    with pytest.raises(ValueError, match="expected flat, ivf or hnsw"):
        build_index(vectors(3), "annoy")


def test_any_float_and_memory_layout() -> None:
    items, queries = vectors(40), vectors(6, seed=1)
    expected = search(build_index(items), queries, 5)[1]
    assert (search(build_index(items.astype(np.float64)), queries[:, ::-1][:, ::-1], 5)[1] == expected).all()
    assert (search(build_index(np.asfortranarray(items)), np.asfortranarray(queries), 5)[1] == expected).all()


def test_saved_and_read_again(tmp_path) -> None:  # type: ignore[no-untyped-def]
    import faiss

    items, queries = vectors(40), vectors(6, seed=1)
    index = build_index(items, "ivf")
    faiss.write_index(to_cpu(index), str(tmp_path / "i.faiss"))
    again = faiss.read_index(str(tmp_path / "i.faiss"))
    assert (search(again, queries, 5)[1] == search(index, queries, 5)[1]).all()
