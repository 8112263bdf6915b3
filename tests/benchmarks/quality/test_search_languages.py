"""Figures of search_languages against loops, and its translations."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from benchmarks.quality.search_languages import FIRST, SearchLanguagesConfig, main, ranked
from configs.errors import UserError


def test_figures_against_sklearn_and_a_loop() -> None:
    rng = np.random.default_rng(0)
    scores, right, sound = rng.normal(size=(5, 40)), rng.random((5, 40)) < 0.3, rng.normal(size=(40, 3))
    found = ranked(scores, right, sound)
    each = [average_precision_score(*both) for both in zip(right, scores, strict=True)]
    first = [sorted(range(40), key=lambda song, row=row: -row[song])[:FIRST] for row in scores]
    hits = [np.mean([right[query, song] for song in songs]) for query, songs in enumerate(first)]
    assert found == pytest.approx({"map": np.mean(each), "P@10": np.mean(hits)})


def test_every_label_has_one_translation_of_its_own() -> None:
    with open(SearchLanguagesConfig().words, encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file, delimiter="\t"))
    assert all(len(row) == 2 and all(row) for row in rows) and len(rows) > 200
    assert len({label for label, _ in rows}) == len({words for _, words in rows}) == len(rows)
    assert not any(word.isascii() for _, word in rows)


def test_encoders_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"run benchmarks\.quality\.clip_moodclips first"):
        main(SearchLanguagesConfig(clip=str(tmp_path), out=str(tmp_path / "out.json")))
