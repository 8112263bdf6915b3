"""Listening matrix, and the posterior verification of song pairs mined from it (`neighbours.py`).

The article: positives are "item pairs of collaborative similarity whose recommendation then had good user feedback".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import polars as pl
from scipy import sparse

from configs.errors import UserError
from data.arrays import AnyArray

if TYPE_CHECKING:
    from data.item_pairs.neighbours import Pairs

Table: TypeAlias = "pl.DataFrame | pl.LazyFrame"


def listening_matrix(plays: Table, n_users: int, n_songs: int) -> sparse.csr_matrix:
    """Sparse matrix (users, songs) of the strongest signal of each user for each song, without dislikes."""
    liked = plays.lazy().filter(pl.col("strength") > 0).group_by("user", "song").agg(pl.col("strength").max())
    liked = liked.collect(engine="streaming")
    coordinates = (liked["user"].to_numpy(), liked["song"].to_numpy())
    return sparse.csr_matrix((liked["strength"].to_numpy().astype(np.float32), coordinates), shape=(n_users, n_songs))


def cap_histories(plays: Table, most: int, seed: int) -> tuple[Table, int]:
    """Limit each history to `most` songs (0: no limit); returns the plays and the number of users with dropped songs.

    The work of mining is quadratic in the length of a history, and users with tens of thousands of songs are shops or
    bots. Songs are kept by strongest signal, then latest play, then a hash (`draw`): by song number, all users would
    keep the same ones.
    """
    liked = plays.lazy().filter(pl.col("strength") > 0)
    songs_of = liked.group_by("user").agg(pl.col("song").n_unique().alias("songs"))
    users = songs_of.filter((pl.col("songs") > most) & (most > 0)).select("user").collect(engine="streaming")
    if users.is_empty():
        return plays, 0
    of_heavy = liked.filter(pl.col("user").is_in(users["user"].implode()))
    heavy = of_heavy.group_by("user", "song").agg(pl.col("strength", "played_at").max()).collect(engine="streaming")
    kept = (
        heavy.with_columns(draw=draw(pl.col("user").cast(pl.Int64), pl.col("song").cast(pl.Int64), seed))
        .sort("strength", "played_at", "draw", "song", descending=[True, True, False, False], nulls_last=True)
        .group_by("user", maintain_order=True)
        .head(most)
    )
    columns = ["user", "song", "strength"]
    rest = plays.lazy().filter(~pl.col("user").is_in(users["user"].implode()))
    return pl.concat([rest.select(columns), kept.lazy().select(columns)]), users.height


def draw(user: Any, song: Any, seed: int) -> Any:
    """Pseudo-random hash of 64-bit columns, the same in polars and Spark: x⁵ mod 2³¹ − 1, a permutation of x.

    No product exceeds 2⁶³ for users and songs below 2³¹.
    """
    prime = 2**31 - 1
    x = (user * 845_431_123 + song * 961_748_927 + (seed % prime + 1) * 472_882_027) % prime
    square = x * x % prime
    return square * square % prime * x % prime


def smoothed_lift(good: AnyArray, shown: AnyArray, global_rate: Any, prior: float) -> AnyArray:
    """Ratio of the smoothed rate of good outcomes to the global rate.

    (good + prior·r) / (shown + prior) / r with r the global rate: the posterior mean under a Beta prior worth `prior`
    observations. Without observations the lift is exactly 1, which passes `min_lift` 1.
    """
    known = shown + prior > 0
    lift = (good / np.maximum(global_rate, 1e-12) + prior) / np.where(known, shown + prior, 1.0)
    return np.where(known, lift, 1.0)


def verify_by_feedback(pairs: Pairs, feedback: pl.DataFrame, prior: float) -> tuple[AnyArray, AnyArray]:
    """Lift and observations of each pair in `i2i_feedback` (columns source, target, plays, completes, favourites).

    A favourite counts as a good outcome, a complete play as half of one: the sum uses both rates of the article's Q1.
    Feedback without any good outcome, as from a player that records none, is no evidence: lift 1 and 0 observations.
    """
    counts = (
        feedback.group_by("source", "target")
        .agg(pl.col("plays").sum(), (pl.col("favourites") + 0.5 * pl.col("completes")).sum().alias("good"))
        .with_columns(pl.col("source", "target").cast(pl.Int64))
    )
    joined = pairs.frame().join(counts, on=["source", "target"], how="left", maintain_order="left").fill_null(0)
    global_rate = float(counts["good"].sum() / max(counts["plays"].sum(), 1))
    shown = joined["plays"].to_numpy() * (global_rate > 0)
    return smoothed_lift(joined["good"].to_numpy(), shown, global_rate, prior), shown


def pooled(one: tuple[AnyArray, AnyArray], other: tuple[AnyArray, AnyArray], prior: float) -> tuple[AnyArray, AnyArray]:
    """Pool two checks (lift, observations) of the same pairs: observations are added, the prior counts once.

    Global rates differ, so good outcomes are added as multiples of their global rate: lift·(shown + prior) − prior.
    """
    (lift, shown), (other_lift, other_shown) = one, other
    good = lift * (shown + prior) + other_lift * (other_shown + prior) - 2 * prior
    return smoothed_lift(good, shown + other_shown, 1.0, prior), shown + other_shown


def verify_by_listeners(
    pairs: Pairs, before: sparse.csr_matrix, after: sparse.csr_matrix, prior: float
) -> tuple[AnyArray, AnyArray]:
    """Lift and observations of each pair in listening data that it was not mined from.

    The share of users who adopted the target (`after`) among those who knew the source (`before`), relative to the
    target's share among all users: the check for data without a feedback table. `before` and `after` are an earlier and
    a later window of the same users (`after` without what they knew before), or twice the same matrix of held-out
    users.

    Only users who could adopt the target are counted: those active in `after` who did not know it before. A target
    without adopters is no evidence: lift 1 and 0 observations.
    """
    from data.item_pairs.neighbours import common_listeners  # here: the service takes this module, and no numba

    took = _binary(after)
    active_U = np.diff(took.tocsr().indptr) > 0
    knew = sparse.csc_matrix(sparse.diags(active_U.astype(np.float32)) @ _binary(before))
    settled = sparse.csc_matrix(knew - knew.multiply(took))  # no entries where both windows are the same matrix
    both_took, both_settled = common_listeners(knew, took, pairs), common_listeners(knew, settled, pairs)
    knew_S, took_S, settled_S = (np.asarray(matrix.sum(axis=0)).ravel() for matrix in (knew, took, settled))
    return lift_of_listeners(pairs, both_took, both_settled, knew_S, took_S, settled_S, int(active_U.sum()), prior)


def lift_of_listeners(
    pairs: Pairs,
    both_took: AnyArray,
    both_settled: AnyArray,
    knew_S: AnyArray,
    took_S: AnyArray,
    settled_S: AnyArray,
    active: int,
    prior: float,
) -> tuple[AnyArray, AnyArray]:
    """Compute `verify_by_listeners` from counts of users who are active in the later window.

    Args:
        pairs: N pairs.
        both_took: users who knew the source and adopted the target: (N,).
        both_settled: users who knew the source and already knew the target: (N,).
        knew_S: users who knew each song: (S,).
        took_S: users who adopted each song: (S,).
        settled_S: users who knew each song and did not adopt it again: (S,).
        active: users active in the later window.
        prior: observations that the prior is worth.
    """
    share_S = took_S.astype(np.float64) / np.maximum(active - settled_S.astype(np.float64), 1)
    seen = (knew_S[pairs.source] - both_settled) * (share_S[pairs.target] > 0)
    return smoothed_lift(both_took, seen, share_S[pairs.target], prior), seen


def split_users(plays: Table, n_users: int, seed: int) -> tuple[Table, Table]:
    """Split the plays into those of two seeded halves of the users."""
    if n_users < 2:
        raise UserError("posterior=split_users needs at least two users")
    half = pl.Series(np.flatnonzero(np.random.default_rng(seed).random(n_users) < 0.5)).implode()
    return plays.filter(pl.col("user").is_in(half)), plays.filter(~pl.col("user").is_in(half))


def _binary(matrix: sparse.csr_matrix) -> sparse.csc_matrix:
    """Copy of a matrix with 1 for every entry."""
    binary = sparse.csc_matrix(matrix, dtype=np.float32, copy=True)
    binary.data[:] = 1.0
    return binary
