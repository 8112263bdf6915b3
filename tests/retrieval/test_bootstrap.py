"""Intervals by drawing songs anew: against a loop, the normal interval, and how often they hold the truth."""

from __future__ import annotations

import numpy as np
import pytest

from retrieval import bootstrap


def test_interval_is_that_of_the_mean() -> None:
    values = np.random.default_rng(0).exponential(1.0, 200)
    low, high = bootstrap.mean_interval(values, seed=1)
    error = values.std() / np.sqrt(len(values))
    assert low < values.mean() < high
    assert high - low == pytest.approx(2 * 1.96 * error, rel=0.08), "the normal interval, for so many songs"
    assert bootstrap.mean_interval(values, seed=1) == [low, high] != bootstrap.mean_interval(values, seed=2)
    assert bootstrap.mean_interval(np.full(7, 0.25), seed=0) == [0.25, 0.25]
    assert bootstrap.interval(np.array([np.nan, 1.0, 1.0])) == [1.0, 1.0], "draws without a value are left out"
    few = [bootstrap.mean_interval(np.array([0.0, 1.0]), seed=0)]
    assert few == [[0.0, 1.0]], "two songs: nearly nothing is known"


def test_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    rng, covered = np.random.default_rng(3), 0
    for trial in range(150):
        low, high = bootstrap.mean_interval(rng.random(40), seed=trial, draws=400)
        covered += low <= 0.5 <= high
    assert 0.87 < covered / 150 < 0.99


def test_sums_are_those_of_a_loop_whatever_is_drawn_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(0).standard_normal((7, 3))
    rng = np.random.default_rng(5)
    naive = [values[rng.integers(0, 7, 7)].sum(axis=0) for _ in range(50)]
    np.testing.assert_allclose(bootstrap.resampled_sums(values, 5, 50), naive)
    for at_once in (1, 7, 30, 7 * 50):
        monkeypatch.setattr(bootstrap, "DRAWN", at_once)
        np.testing.assert_allclose(bootstrap.resampled_sums(values, 5, 50), naive)


def test_the_same_seed_draws_the_same_songs_so_that_differences_are_paired() -> None:
    rng = np.random.default_rng(1)
    song = rng.exponential(1.0, 60)  # what makes a song easy or hard is common to both methods
    one, other = song + 0.1 * rng.standard_normal(60), song
    paired = bootstrap.mean_interval(one - other, 3)
    draws = [bootstrap.resampled_sums(values[:, None], 3)[:, 0] / 60 for values in (one, other)]
    assert paired == pytest.approx(bootstrap.interval(draws[0] - draws[1]))
    alone = bootstrap.mean_interval(one, 3)
    assert paired[1] - paired[0] < 0.2 * (alone[1] - alone[0])
