"""What reached users did with a new song: favourite and completion rates, from truth.parquet or from logged plays.

Favourite rate = favourites / plays, completion rate = completes / plays (the article's Q1). Logged plays are selected
(a user was shown the song for a reason), so where `truth.parquet` gives the outcome for a fixed sample of users,
exposed or not, the rates come from it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from configs.errors import UserError
from datamodules.arrays import IntArray
from datamodules.catalogue import Catalogue
from retrieval.audience import Audience


def read_truth(path: str, catalogue: Catalogue) -> pl.DataFrame:
    """Outcomes with song and user numbers: `song`, `user`, `completed`, `favourited`.

    Raises:
        UserError: missing or damaged file, missing column.
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
    found: dict[str, Audience], truth: pl.DataFrame | None, catalogue: Catalogue, new: IntArray
) -> dict[str, Any]:
    """Rates among the reached users of each method, and among everybody; empty if no outcome is known."""
    source = "truth" if truth is not None else "logged plays"
    known = truth if truth is not None else logged(catalogue)
    known = known.filter(pl.col("song").is_in(pl.Series(new)))
    if known.is_empty():
        return {}
    rows = [{"method": "everybody", **rates(known)}]
    for name, audience in found.items():
        row, rank = np.nonzero(audience.users_CB >= 0)
        reached = pl.DataFrame({"song": new[row], "user": audience.users_CB[row, rank]})
        met = (
            known.join(reached.cast(known.schema["song"]), on=["song", "user"], how="inner")
            if len(row)
            else known.clear()
        )
        rows.append({"method": name, **rates(met)})
    return {"source": source, "rows": rows}


def logged(catalogue: Catalogue) -> pl.DataFrame:
    """Held-out plays whose outcome is known."""
    plays = catalogue.cold_plays.select("song", "user", "completed", "favourited")
    return plays.filter(pl.col("completed").is_not_null() | pl.col("favourited").is_not_null())


def rates(outcomes: pl.DataFrame) -> dict[str, Any]:
    """Favourite and completion rate with their standard errors, and on how many (song, user) outcomes they rest."""
    n = outcomes.height
    result: dict[str, Any] = {"outcomes": n}
    for name, column in (("favourite_rate", "favourited"), ("completion_rate", "completed")):
        values = outcomes[column].drop_nulls()
        rate = float(values.mean()) if len(values) else None  # type: ignore[arg-type]
        result[name] = rate
        result[f"{name}_se"] = None if rate is None else float(np.sqrt(rate * (1 - rate) / len(values)))
    return result
