"""What users did: favourite and completion rates of those reached for new songs, and where the boundary's gate stands.

Favourite rate = favourites / plays, completion rate = completes / plays (the article's Q1). Logged plays have selection
bias (users were exposed for a reason), so rates come from `truth.parquet` if given: outcomes of a fixed sample of
users, exposed or not.

Shapes: C new songs, N exposures, D draws of the bootstrap.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from configs.errors import UserError
from data.arrays import AnyArray, IntArray
from data.catalogue import Catalogue
from evaluation.comparison import PARTS
from inference.vectors import Boundary
from retrieval.audience import Audience, slices
from retrieval.bootstrap import interval, resampled_sums
from retrieval.gate import calibration_error, fit_calibration, gate_curve, precision_recall, probability, reach_curve
from retrieval.songs import Songs
from retrieval.targeting import Targeting

RATES = {"favourite_rate": "favourited", "completion_rate": "completed"}
FEW = 20  # exposures, below which nothing of the gate is measured
CHUNK = 50_000  # exposures scored at a time


def read_truth(path: str, catalogue: Catalogue) -> pl.DataFrame:
    """Read outcomes with song and user numbers: `song`, `user`, `completed`, `favourited`.

    Raises:
        UserError: the file is missing or damaged, or lacks a column.
    """
    if not Path(path).is_file():
        raise UserError(f"truth file not found: {path} (only the demo world has one)")
    try:
        table = pl.read_parquet(path, glob=False)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise UserError(f"{path}: cannot be read as Parquet ({type(error).__name__})") from None
    missing = {"song_id", "user_id", "completed", "favourited"} - set(table.columns)
    if missing:
        raise UserError(f"{path}: columns missing: {sorted(missing)}")
    songs = catalogue.songs.select("song_id").with_row_index("song")
    users = catalogue.users.select("user_id").with_row_index("user")
    return table.join(songs, on="song_id").join(users, on="user_id").select("song", "user", "completed", "favourited")


def outcome_rates(
    audiences: dict[str, Audience], known: pl.DataFrame, source: str, new: IntArray, seed: int = 0
) -> dict[str, Any]:
    """Rates among the users reached by each method and among all users, and the difference that each part makes.

    Empty if no outcome is `known`. Intervals are from a bootstrap over new songs (`seed`), with the same draws for all
    methods.
    """
    known = known.filter(pl.col("song").is_in(pl.Series(new)))
    if known.is_empty():
        return {}
    reached = {"everybody": known}
    for name, audience in audiences.items():
        row, rank = np.nonzero(audience.users_CB >= 0)
        pairs = pl.DataFrame({"song": new[row], "user": audience.users_CB[row, rank]}).cast(known.schema["song"])
        reached[name] = known.join(pairs, on=["song", "user"], how="inner")
    sums = {name: sums_by_song(outcomes, new) for name, outcomes in reached.items()}
    drawn = {name: ratios(resampled_sums(sums_C4, seed)) for name, sums_C4 in sums.items()}
    rate = {name: ratios(sums_C4.sum(axis=0)) for name, sums_C4 in sums.items()}
    return {
        "source": source,
        "rows": [
            {"method": name, "outcomes": outcomes.height, **with_intervals(rate[name], drawn[name])}
            for name, outcomes in reached.items()
        ],
        "parts": [
            {"part": part, "method": more, "less": less}
            | with_intervals(rate[more] - rate[less], drawn[more] - drawn[less])
            for part, more, less in PARTS
            if {more, less} <= set(reached)
        ],
    }


def logged(catalogue: Catalogue) -> pl.DataFrame:
    """Held-out plays with a known outcome."""
    plays = catalogue.cold_plays.select("song", "user", "completed", "favourited")
    return plays.filter(pl.col("completed").is_not_null() | pl.col("favourited").is_not_null())


def sums_by_song(outcomes: pl.DataFrame, new: IntArray) -> AnyArray:
    """Sums of each new song, (C, 4): favourites, known favourite outcomes, completes, known complete outcomes."""
    place = np.searchsorted(new, outcomes["song"].to_numpy())
    columns = []
    for column in RATES.values():
        for of in (outcomes[column].fill_null(False), outcomes[column].is_not_null()):
            columns.append(np.bincount(place[of.to_numpy()], minlength=len(new)))
    return np.stack(columns, axis=1)


def ratios(sums_4: AnyArray) -> AnyArray:
    """Favourite and completion rate (…, 2) of sums (…, 4); NaN where no outcome is known."""
    with np.errstate(invalid="ignore"):
        return np.asarray(sums_4[..., 0::2] / sums_4[..., 1::2])


def with_intervals(rate_2: AnyArray, drawn_D2: AnyArray) -> dict[str, Any]:
    """Name both rates, or differences of rates, with 95 % intervals; None where no outcome is known."""
    row: dict[str, Any] = {}
    for name, rate, drawn_D in zip(RATES, rate_2, drawn_D2.T, strict=True):
        known = bool(np.isfinite(rate))
        row[name] = float(rate) if known else None
        row[f"{name}_ci95"] = interval(drawn_D) if known else None
    return row


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
        "margin": gate,
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
    users, place = np.unique(user, return_inverse=True)
    weights_CS, heard_NS = songs.similar.weights_CS, targeting.listening.heard(users)
    score = np.concatenate(
        [
            np.asarray(weights_CS[at[rows]].multiply(heard_NS[place[rows]]).sum(axis=1)).ravel()
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
