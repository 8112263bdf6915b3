"""The benchmark of the index, small: its figures against brute force, and that it measures what it says."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.speed import index_scale
from benchmarks.speed.index_scale import IndexScaleConfig, song_like
from configs.errors import UserError
from retrieval.index import exact_neighbours, share_found


def test_exact_and_recall_against_sorting() -> None:
    vectors = song_like(260, 12, seed=3)
    songs, queries = vectors[:250], vectors[250:]
    order = np.argsort(-(queries @ songs.T), axis=1)[:, :10]
    assert (exact_neighbours(queries, songs, 10) == order).all()
    assert share_found(order[:, ::-1], order) == 1 and share_found(order + 1000, order) == 0
    assert share_found(np.concatenate([order[:, :4], order[:, 4:] + 1000], axis=1), order) == pytest.approx(0.4)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)


def test_report(tmp_path: Path) -> None:
    config = IndexScaleConfig(
        sizes=[900, 3000], dim=16, queries=50, repeats=2, index="IVF,Flat", out=f"{tmp_path}/r.json"
    )
    index_scale.main(config)
    first, second = json.loads((tmp_path / "r.json").read_text())["sizes"]
    assert (first["songs"], first["kind"]) == (900, "IVF60,Flat") and second["kind"] == "IVF110,Flat"
    for row in (first, second):
        assert row["effort"] >= 1 and row["reason"] == "as asked for"
        assert all(0.7 < row[f"recall@10{after}"] <= 1 for after in ("", " after replacing", " after removing"))
        assert min(row["queries_per_second"], row["faiss_queries_per_second"], row["ours_over_faiss"]) > 0


def test_what_cannot_be_measured() -> None:
    for wrong in ({"sizes": []}, {"sizes": [0]}, {"queries": 0}):
        with pytest.raises(UserError, match="must be at least 1"):
            index_scale.main(IndexScaleConfig(**wrong))  # type: ignore[arg-type]
