"""The gate's figures against loops."""

from __future__ import annotations

import numpy as np
import pytest

from retrieval.gate import calibration_error, fit_calibration, gate_curve, precision_recall, probability, reach_curve


def planted(n: int = 4000, slope: float = 0.7, intercept: float = -1.2) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    margin = rng.normal(0.5, 2, n)
    return margin, (rng.random(n) < 1 / (1 + np.exp(-(slope * margin + intercept)))).astype(float)


def test_calibration_is_found_again_and_is_the_maximum_of_the_likelihood() -> None:
    margin, liked = planted()
    fitted = fit_calibration(margin, liked)
    assert fitted is not None and fitted == (pytest.approx(0.7, abs=0.08), pytest.approx(-1.2, abs=0.12))
    residual = liked - probability(margin, fitted)
    assert abs(residual.mean()) < 1e-4 and abs((residual * margin).mean()) < 1e-3, "the gradient is zero there"
    assert fit_calibration(margin, np.ones_like(liked)) is None and fit_calibration(margin, 0 * liked) is None


def test_calibration_error_against_a_loop() -> None:
    margin, liked = planted(997)
    predicted = probability(margin)
    order, total = np.argsort(predicted), 0.0
    for part in np.array_split(order, 10):
        total += len(part) / len(order) * abs(np.mean([liked[i] for i in part]) - np.mean([predicted[i] for i in part]))
    assert calibration_error(predicted, liked) == pytest.approx(total)
    assert calibration_error(liked, liked) == 0 and calibration_error(1 - liked, liked) > 0.9
    fitted = fit_calibration(margin, liked)
    assert fitted is not None and calibration_error(probability(margin, fitted), liked) < total / 3
    assert calibration_error(predicted[:3], liked[:3]) >= 0, "fewer exposures than bins"
    assert probability(np.array([-1e9, 0.0, 1e9])).tolist() == pytest.approx([0, 0.5, 1], abs=1e-12)


def test_weighted_calibration_error_is_that_of_repeated_exposures() -> None:
    margin, liked = planted(500)
    predicted, weight = probability(margin), np.random.default_rng(1).uniform(0.1, 3, 500)
    total = 0.0
    for part in np.array_split(np.argsort(predicted), 7):
        total += abs(sum(weight[i] * (liked[i] - predicted[i]) for i in part)) / sum(weight)
    assert calibration_error(predicted, liked, 7, weight) == pytest.approx(total)
    assert calibration_error(predicted, liked, 7, 3.0) == pytest.approx(calibration_error(predicted, liked, 7))
    drawn = np.random.default_rng(2).random(500) < 0.2  # negatives that are drawn twice as often weigh half
    twice = np.r_[predicted, predicted[drawn]], np.r_[liked, liked[drawn]]
    half = np.where(np.r_[drawn, drawn[drawn]], 0.5, 1.0)
    assert calibration_error(*twice, 1, half) == pytest.approx(calibration_error(predicted, liked, 1))


@pytest.mark.filterwarnings("error")
def test_precision_and_recall() -> None:
    margin, liked = np.array([2.0, 1.0, 0.5, -1.0, -2.0]), np.array([1, 0, 0, 1, 0])
    assert precision_recall(margin, liked) == {"precision": pytest.approx(1 / 3), "recall": 0.5, "f1": 0.4}
    assert precision_recall(margin, 0 * liked, 99.0) == {"precision": 0, "recall": 0, "f1": 0}


def test_curve_against_brute_force() -> None:
    margin, liked = planted(403)
    rows = gate_curve(margin, {"liked_rate": liked}, places=7)
    assert len(rows) == 7 and rows[0]["passed"] == 1.0 and rows[0]["margin"] == margin.min()
    for row in rows:
        passed = margin >= row["margin"]
        assert row["passed"] == pytest.approx(passed.mean()) and row["liked_rate"] == pytest.approx(
            liked[passed].mean()
        )
    shares = [row["passed"] for row in rows]
    assert shares == sorted(shares, reverse=True) and rows[-1]["passed"] == pytest.approx(1 / 7, abs=0.01)
    assert rows[-1]["liked_rate"] > rows[0]["liked_rate"] + 0.2
    assert len(gate_curve(margin[:3], {"liked_rate": liked[:3]}, places=20)) == 3


@pytest.mark.parametrize("gated", [False, True])
def test_reach_against_a_loop(gated: bool) -> None:
    rng = np.random.default_rng(3)
    song, score = rng.integers(0, 4, 300), np.where(rng.random(300) < 0.1, -np.inf, rng.normal(size=300))
    passes = rng.random(300) < 0.4 if gated else np.ones(300, dtype=bool)
    liked = (rng.random(300) < 0.3).astype(float)
    shares = (0.001, 0.1, 0.3, 0.6, 1.0)
    rows = reach_curve(song, score, passes, {"rate": liked}, shares)
    expected = []
    for share in shares:
        reached: list[int] = []
        for one in range(4):
            of_song = [n for n in range(300) if song[n] == one]
            best = sorted((n for n in of_song if passes[n]), key=lambda n: -score[n])
            reached += best[: max(1, round(share * len(of_song)))]
        expected.append((len(reached) / 300, np.mean(liked[reached])))
    distinct = [one for at, one in enumerate(expected) if at == 0 or one[0] > expected[at - 1][0]]
    assert [(row["reached"], row["rate"]) for row in rows] == [pytest.approx(one) for one in distinct]
    assert rows[-1]["reached"] == pytest.approx(passes.mean()) and len(rows) == (4 if gated else 5)
    assert reach_curve(song, score, np.zeros(300, dtype=bool), {"rate": liked}) == []
