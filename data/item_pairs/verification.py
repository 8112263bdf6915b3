"""Listening, and the posterior check of the pairs mined from it (`neighbours.py`): the teacher of the song encoder.

The article: positives are "item pairs of collaborative similarity whose recommendation then had good user feedback".
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import polars as pl
from scipy import sparse

from configs.errors import UserError
from data.arrays import AnyArray
from data.item_pairs.neighbours import Pairs, common_listeners

Table: TypeAlias = "pl.DataFrame | pl.LazyFrame"


def listening_matrix(plays: Table, n_users: int, n_songs: int) -> sparse.csr_matrix:
    """(users, songs) matrix: the strongest signal a user gave a song; dislikes are left out."""
    liked = plays.lazy().filter(pl.col("strength") > 0).group_by("user", "song").agg(pl.col("strength").max())
    liked = liked.collect(engine="streaming")
    coordinates = (liked["user"].to_numpy(), liked["song"].to_numpy())
    return sparse.csr_matrix((liked["strength"].to_numpy().astype(np.float32), coordinates), shape=(n_users, n_songs))


def cap_histories(plays: Table, most: int, seed: int) -> tuple[Table, int]:
    """The plays with at most so many songs of a user, and of how many users that left songs out (most=0: of none).

    The work grows with the square of a history, and one of tens of thousands is a shop or a program. Kept are the songs
    that the user gave the strongest signal, of these those played last, and of these those that `draw` says: by
    number, the same songs would be kept for everybody.
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
    """A number that looks like chance, of 64-bit columns of any engine: x⁵ mod 2³¹ − 1, which is a permutation.

    No product passes 2⁶³ where users and songs are below 2³¹.
    """
    prime = 2**31 - 1
    x = (user * 845_431_123 + song * 961_748_927 + (seed % prime + 1) * 472_882_027) % prime
    square = x * x % prime
    return square * square % prime * x % prime


def smoothed_lift(good: AnyArray, shown: AnyArray, global_rate: Any, prior: float) -> AnyArray:
    """Rate of good outcomes, shrunk towards the global rate, as a multiple of it.

    (good + prior·r) / (shown + prior) / r with r the global rate: the posterior mean under a Beta prior that is
    worth `prior` observations. A pair that was never shown has lift 1 (exactly, so that it clears `min_lift` 1).
    """
    known = shown + prior > 0
    lift = (good / np.maximum(global_rate, 1e-12) + prior) / np.where(known, shown + prior, 1.0)
    return np.where(known, lift, 1.0)


def verify_by_feedback(pairs: Pairs, feedback: pl.DataFrame, prior: float) -> tuple[AnyArray, AnyArray]:
    """Lift and observations of each pair in `i2i_feedback` (columns source, target, plays, completes, favourites).

    A good outcome is a favourite, or half a good outcome a complete play: the two rates that the article's Q1 names
    are summed so that neither alone decides. Feedback without a single good outcome, as of a player that tells of none,
    is no evidence: lift 1, seen by 0.
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
    """Two checks (lift, observations) of the same pairs as one: observations are added, and the prior counts once.

    Each has its own global rate, so what is added is good outcomes as multiples of that: lift·(shown + prior) − prior.
    """
    (lift, shown), (other_lift, other_shown) = one, other
    good = lift * (shown + prior) + other_lift * (other_shown + prior) - 2 * prior
    return smoothed_lift(good, shown + other_shown, 1.0, prior), shown + other_shown


def verify_by_listeners(
    pairs: Pairs, before: sparse.csr_matrix, after: sparse.csr_matrix, prior: float
) -> tuple[AnyArray, AnyArray]:
    """Lift of each pair in listening that was not used to mine it.

    Of the users who knew the source (`before`), how many took up the target (`after`), against the target's own
    share among all users: the check for data without a feedback table. `before` and `after` are an earlier and a later
    window of the same users (`after` without what they knew before), or twice the same matrix of held-out users.

    Only who could take the target up is counted: users seen in `after` who did not know the target before. Else a
    song's old listeners would speak against it. A target that nobody took up is no evidence: lift 1, seen by 0.
    """
    took = _heard(after)
    active_U = np.diff(took.tocsr().indptr) > 0
    knew = sparse.csc_matrix(sparse.diags(active_U.astype(np.float32)) @ _heard(before))
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
    """`verify_by_listeners` from its counts, of users seen in the later window.

    Args:
        pairs: N pairs.
        both_took: of those who knew the source, how many took the target up: (N,).
        both_settled: of those who knew the source, how many knew the target already: (N,).
        knew_S: who knew each song: (S,).
        took_S: who took it up: (S,).
        settled_S: who knew it and did not take it up anew: (S,).
        active: users seen in the later window.
        prior: observations that the prior is worth.
    """
    share_S = took_S.astype(np.float64) / np.maximum(active - settled_S.astype(np.float64), 1)
    seen = (knew_S[pairs.source] - both_settled) * (share_S[pairs.target] > 0)
    return smoothed_lift(both_took, seen, share_S[pairs.target], prior), seen


def split_users(plays: Table, n_users: int, seed: int) -> tuple[Table, Table]:
    """The plays of one seeded half of the users, and those of the other."""
    if n_users < 2:
        raise UserError("posterior=split_users needs at least two users")
    half = pl.Series(np.flatnonzero(np.random.default_rng(seed).random(n_users) < 0.5)).implode()
    return plays.filter(pl.col("user").is_in(half)), plays.filter(~pl.col("user").is_in(half))


def _heard(matrix: sparse.csr_matrix) -> sparse.csc_matrix:
    """A copy that says only who heard what: 1 for every entry."""
    heard = sparse.csc_matrix(matrix, dtype=np.float32, copy=True)
    heard.data[:] = 1.0
    return heard
