"""The boundary's operating point: how sure a margin is, how good the gate is wherever it stands.

Shapes: N labelled exposures (a user met a new song, and what came of it is known), T thresholds.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
SHARES = (0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)


def fit_calibration(margin_N: Array, liked_N: Array) -> tuple[float, float] | None:
    """(slope, intercept) of P(liked) = σ(slope · margin + intercept), by maximum likelihood (Platt scaling).

    None where all are liked, or none. α and the number of negatives shift the margins of training, so that σ(margin) is
    no probability yet.
    """
    from sklearn.linear_model import LogisticRegression  # a second; who only asks for `probability` need not wait

    if len(np.unique(liked_N)) < 2:
        return None
    fitted = LogisticRegression(C=np.inf, max_iter=1000).fit(margin_N.reshape(-1, 1), liked_N)
    return float(fitted.coef_[0, 0]), float(fitted.intercept_[0])


def probability(margin_N: Array, calibration: tuple[float, float] = (1.0, 0.0)) -> Array:
    """σ(slope · margin + intercept), (N,)."""
    return np.asarray(1 / (1 + np.exp(-np.clip(calibration[0] * margin_N + calibration[1], -60, 60))))


def calibration_error(probability_N: Array, liked_N: Array, bins: int = 10, weight_N: Array | float = 1.0) -> float:
    """Expected calibration error: |share liked − mean probability|, averaged over bins of as many exposures each.

    With weights shares and means are weighted, and a bin counts as much as its exposures weigh.
    """
    order = np.argsort(probability_N, kind="stable")
    weight_N = np.broadcast_to(weight_N, probability_N.shape)
    gap_N = (liked_N - probability_N) * weight_N
    return float(sum(abs(gap_N[part].sum()) for part in np.array_split(order, bins)) / weight_N.sum())


def gate_curve(margin_N: Array, outcomes: dict[str, Array], places: int = 20) -> list[dict[str, float]]:
    """What passes a gate that stands at different margins: {"margin", "passed", one rate an outcome}, lowest first.

    The first row is no gate at all (−∞ is given as the least margin), the others let pass ever fewer, down to 1 of
    `places`. `passed` is the share of exposures above the margin, a rate the mean of an outcome (0/1) among them.
    """
    order = np.argsort(-margin_N, kind="stable")
    counts = np.unique(np.maximum(1, np.round(np.arange(places, 0, -1) / places * len(order)).astype(int)))[::-1]
    return [
        {"margin": float(margin_N[order[n - 1]]), "passed": n / len(order)}
        | {name: float(values_N[order[:n]].mean()) for name, values_N in outcomes.items()}
        for n in counts.tolist()
    ]


def reach_curve(
    song_N: Array, score_N: Array, passes_N: Array, outcomes: dict[str, Array], shares: Sequence[float] = SHARES
) -> list[dict[str, float]]:
    """What those do who are reached when each song goes to a share of its exposures, the best scores first.

    Args:
        song_N: which song an exposure is of; a song's exposures stand for all users.
        score_N: by which its users are ranked; −inf is reached last.
        passes_N: who may be reached; without a gate all True.
        outcomes: 0/1 of each exposure, by name.
        shares: of a song's exposures that it may go to.

    Returns:
        {"reached": share of all exposures, one mean an outcome among these} for each share at which anybody is reached,
        ascending; a gate makes `reached` less than the share asked for.
    """
    order = np.lexsort((-score_N, ~passes_N, song_N))
    _, first, of_song_N, size = np.unique(song_N[order], return_index=True, return_inverse=True, return_counts=True)
    rank_N, size_N = np.empty((2, len(order)), dtype=np.int64)
    rank_N[order], size_N[order] = np.arange(len(order)) - first[of_song_N], size[of_song_N]
    rows: list[dict[str, float]] = []
    for share in shares:
        reached_N = passes_N & (rank_N < np.maximum(1, np.round(share * size_N)))
        means = {name: float(values_N[reached_N].mean()) for name, values_N in outcomes.items() if reached_N.any()}
        row = {"reached": float(reached_N.mean())} | means
        if means and (not rows or row["reached"] > rows[-1]["reached"]):
            rows.append(row)
    return rows


def precision_recall(margin_N: Array, liked_N: Array, at: float = 0.0) -> dict[str, float]:
    """The gate as a classifier of what is liked: precision, recall and F1 of margin > `at`; 0 where nothing passes."""
    from sklearn.metrics import precision_recall_fscore_support

    *found, _ = precision_recall_fscore_support(liked_N > 0, margin_N > at, average="binary", zero_division=0)
    return {name: float(value) for name, value in zip(("precision", "recall", "f1"), found, strict=True)}
