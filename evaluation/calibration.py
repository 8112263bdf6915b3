"""Where the boundary's gate stands: its curve on labelled exposures of new songs, and how sure its margins are."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

from data.arrays import AnyArray, IntArray
from evaluation.outcomes import RATES
from inference.vectors import Boundary
from retrieval.audience import slices
from retrieval.gate import calibration_error, fit_calibration, gate_curve, precision_recall, probability, reach_curve
from retrieval.targeting import Songs, Targeting

FEW = 20  # exposures, below which nothing is measured
CHUNK = 50_000  # exposures scored at a time


def gate_figures(
    boundary: Boundary, new: IntArray, held: IntArray, known: pl.DataFrame, source: str, gate: float = 0.0
) -> dict[str, Any]:
    """Curve, classification and calibration of the gate; empty where too few outcomes are known.

    Args:
        boundary: scores of all songs.
        new: the songs on which the figures are measured, ascending.
        held: the songs to whose outcomes the calibration is fitted, ascending.
        known: outcomes for a fixed sample of users, exposed or not, or logged ones, which are selected.
        source: which of the two.
        gate: the margin at which it is classified.
    """
    seen = exposures(known, boundary, new)
    if seen is None:
        return {}
    margin, rates = seen
    liked = rates["liked_rate"]
    figures: dict[str, Any] = {
        "source": source,
        "exposures": len(margin),
        "curve": gate_curve(margin, rates),
        "at_the_boundary": precision_recall(margin, liked, gate),
        "calibration_error_before": calibration_error(probability(margin), liked),
    }
    fitted = calibration(known, boundary, held)
    if fitted is not None:
        figures["calibration"] = dict(zip(("slope", "intercept"), fitted, strict=True))
        figures["calibration_error"] = calibration_error(probability(margin, fitted), liked)
    return figures


def calibration(known: pl.DataFrame, boundary: Boundary, songs: IntArray) -> tuple[float, float] | None:
    """(slope, intercept) from a margin to the probability of liking, by outcomes of some songs; None for too few."""
    seen = exposures(known, boundary, songs)
    return None if seen is None else fit_calibration(seen[0], seen[1]["liked_rate"])


def reach_figures(
    boundary: Boundary, new: IntArray, songs: Songs, truth: pl.DataFrame, targeting: Targeting, gate: float = 0.0
) -> dict[str, Any]:
    """Outcome rates of those whom I2I2U reaches, against how many it reaches, gated and ungated; empty for too few.

    Args:
        boundary: scores of all songs.
        new: the songs that are targeted, ascending.
        songs: the same songs, and the known ones like each of them.
        truth: outcomes of users drawn without regard to the song, who alone can stand for all.
        targeting: how I2I2U scores.
        gate: the margin at which the gate stands.
    """
    seen = exposures(truth, boundary, new)
    if seen is None:
        return {}
    margin, rates = seen
    of_new = truth.filter(pl.col("song").is_in(pl.Series(new)))
    at, user = np.searchsorted(new, of_new["song"].to_numpy()), of_new["user"].to_numpy()
    weights_CS = songs.similar.weights_CS
    score = np.concatenate(
        [
            np.asarray(weights_CS[at[rows]].multiply(targeting.listening.heard(user[rows])).sum(axis=1)).ravel()
            for rows in slices(len(at), CHUNK)
        ]
    )
    score *= targeting.activity_U[user]
    rates.pop("liked_rate")
    return {
        "ungated": reach_curve(at, score, score > 0, rates),  # who heard none of the similar songs is never reached
        "gated": reach_curve(at, score, (score > 0) & (margin > gate), rates),
    }


def exposures(known: pl.DataFrame, boundary: Boundary, songs: IntArray) -> tuple[AnyArray, dict[str, AnyArray]] | None:
    """Margins (N,) and outcomes (0/1, by the name of their rate) of the known pairs of some songs and a user.

    None for fewer than FEW. Liked: completed or favourited.
    """
    known = known.filter(pl.col("song").is_in(pl.Series(songs)))
    if known.height < FEW:
        return None
    rates = {rate: known[column].fill_null(False).to_numpy().astype(float) for rate, column in RATES.items()}
    rates["liked_rate"] = np.maximum(*rates.values())
    return boundary.margin(known["song"].to_numpy(), known["user"].to_numpy()), rates
