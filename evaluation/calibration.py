"""Where the boundary's gate stands: its curve on labelled exposures of new songs, and how sure its margins are."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

from data.arrays import AnyArray, IntArray
from data.catalogue import Catalogue
from evaluation.outcomes import logged
from inference.vectors import Boundary
from retrieval.audience import slices
from retrieval.gate import calibration_error, fit_calibration, gate_curve, precision_recall, probability, reach_curve
from retrieval.targeting import Songs, Targeting

LIKED = "liked"  # completed or favourited
FEW = 20  # exposures, below which nothing is told
CHUNK = 50_000  # exposures scored at a time


def gate_figures(
    boundary: Boundary,
    new: IntArray,
    validation: Boundary,
    held: IntArray,
    truth: pl.DataFrame | None,
    data: Catalogue,
    gate: float = 0.0,
) -> dict[str, Any]:
    """Curve, classification and calibration of the gate; empty where too few outcomes are known.

    Args:
        boundary: scores of the songs `new`, on which the figures are measured.
        new: their song numbers, ascending.
        validation: scores of the songs `held`, to whose outcomes the calibration is fitted.
        held: their song numbers, ascending.
        truth: outcomes for a fixed sample of users, exposed or not; None: logged plays of `data`, which are selected.
        gate: the margin at which it is classified.
    """
    known = truth if truth is not None else logged(data)
    seen = exposures(known, boundary, new)
    if seen is None:
        return {}
    margin, outcomes = seen
    liked = outcomes[LIKED]
    rates = {f"{name}_rate": values for name, values in outcomes.items() if name != LIKED}
    figures: dict[str, Any] = {
        "source": "truth" if truth is not None else "logged plays",
        "exposures": len(margin),
        "curve": gate_curve(margin, rates | {"liked_rate": liked}),
        "at_the_boundary": precision_recall(margin, liked, gate),
        "calibration_error_before": calibration_error(probability(margin), liked),
    }
    fitted_on = exposures(known, validation, held)
    fitted = fit_calibration(fitted_on[0], fitted_on[1][LIKED]) if fitted_on is not None else None
    if fitted is not None:
        slope, intercept = fitted
        figures["calibration"] = {"slope": slope, "intercept": intercept}
        figures["calibration_error"] = calibration_error(probability(margin, fitted), liked)
    return figures


def reach_figures(
    boundary: Boundary,
    new: IntArray,
    songs: Songs,
    truth: pl.DataFrame | None,
    targeting: Targeting,
    gate: float = 0.0,
) -> dict[str, Any]:
    """Outcome rates of those whom I2I2U reaches, against how many it reaches, gated and ungated; empty without truth.

    Only a truth tells of users drawn without regard to the song, who can stand for all of them.

    Args:
        boundary: scores of the songs `new`.
        new: their song numbers, ascending.
        songs: the same songs, and the known ones like each of them.
        truth: outcomes for a fixed sample of users.
        targeting: how I2I2U scores.
        gate: the margin at which the gate stands.
    """
    seen = exposures(truth, boundary, new) if truth is not None else None
    if seen is None or truth is None:
        return {}
    _, at, user = of_songs(truth, new)
    weights_CS = songs.similar.weights_CS
    score = np.concatenate(
        [
            np.asarray(weights_CS[at[rows]].multiply(targeting.listening.heard(user[rows])).sum(axis=1)).ravel()
            for rows in slices(len(at), CHUNK)
        ]
    )
    score *= targeting.activity_U[user]
    margin, outcomes = seen
    rates = {f"{name}_rate": values for name, values in outcomes.items() if name != LIKED}
    return {
        "ungated": reach_curve(at, score, score > 0, rates),  # who heard none of the similar songs is never reached
        "gated": reach_curve(at, score, (score > 0) & (margin > gate), rates),
    }


def exposures(known: pl.DataFrame, boundary: Boundary, songs: IntArray) -> tuple[AnyArray, dict[str, AnyArray]] | None:
    """Margins (N,) and outcomes (0/1) of the known (song, user) pairs; None for fewer than FEW."""
    known, at, user = of_songs(known, songs)
    known = known.with_columns(pl.col("completed", "favourited").fill_null(False))
    if known.height < FEW:
        return None
    margin = boundary.margin(at, user)
    outcomes = {name: known[name].to_numpy().astype(float) for name in ("favourited", "completed")}
    names = {"favourited": "favourite", "completed": "completion"}
    liked = np.maximum(outcomes["favourited"], outcomes["completed"])
    return margin, {names[name]: values for name, values in outcomes.items()} | {LIKED: liked}


def of_songs(known: pl.DataFrame, songs: IntArray) -> tuple[pl.DataFrame, IntArray, IntArray]:
    """The outcomes of some songs, ascending, and of each its song's place among these and its user."""
    known = known.filter(pl.col("song").is_in(pl.Series(songs)))
    return known, np.searchsorted(songs, known["song"].to_numpy()), known["user"].to_numpy()
