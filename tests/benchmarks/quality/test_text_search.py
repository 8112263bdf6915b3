"""Figures of text_search against loops and sklearn."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from benchmarks.quality.text_search import FIRST, figures, measured, ways
from retrieval.queries import centre


def test_figures_against_sklearn_and_a_loop() -> None:
    rng = np.random.default_rng(0)
    scores, right = rng.normal(size=(5, 40)), rng.random((5, 40)) < 0.3
    sound = np.where(rng.random(40)[:, None] < 0.4, np.nan, rng.normal(size=(40, 3)))
    found = figures(scores, right, sound)
    each = [average_precision_score(*both) for both in zip(right, scores, strict=True)]
    assert found["map"] == pytest.approx(np.mean(each))
    first = [sorted(range(40), key=lambda song, row=row: -row[song])[:FIRST] for row in scores]
    assert found["silent"] == pytest.approx(np.mean([[np.isnan(sound[song, 0]) for song in songs] for songs in first]))


def test_words_beside_sound_are_found_first_unless_centred() -> None:
    """All words lie in one corner and all sound in another, as in a trained CLIP; a song's own direction is small."""
    rng = np.random.default_rng(1)
    topic = np.eye(8)[rng.integers(0, 3, 300)] + 0.3 * rng.normal(size=(300, 8))
    sound, words = topic + 4 * np.eye(8)[6], topic + 4 * np.eye(8)[7]
    queries = np.eye(8)[:3] + 4 * np.eye(8)[7]
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    centres = np.stack([centre(sound), centre(words)])
    right = np.stack([topic.argmax(axis=1) == at for at in range(3)])
    rows = {row["compared by"]: row for row in measured(queries, right, (sound, words), centres, 3)}
    plain, joined = rows["mean of both"], rows["mean of both, each centred"]
    assert plain["silent in thirds"] > 0.6 and abs(joined["silent in thirds"] - 1 / 3) < 0.15
    assert joined["map in thirds"] > plain["map in thirds"] + 0.05 and joined["silent"] == 0


def test_a_song_that_lacks_both_scores_nothing() -> None:
    rng = np.random.default_rng(2)
    sound, words = rng.normal(size=(2, 6, 4))
    sound[0] = words[0] = np.nan
    centres = np.stack([centre(sound), centre(words)])
    for scores in ways(rng.normal(size=(2, 4)), (sound, words), centres).values():
        assert (scores[:, 0] == 0).all() and np.isfinite(scores).all()
