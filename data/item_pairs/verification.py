"""Listening matrix, and the posterior verification of song pairs mined from it (`neighbours.py`).

The article: positives are "item pairs of collaborative similarity whose recommendation then had good user feedback".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import polars as pl
from scipy import sparse, special

from configs.errors import UserError
from data.arrays import AnyArray
from retrieval.listening import strongest

if TYPE_CHECKING:
    from data.item_pairs.neighbours import Pairs

Table: TypeAlias = "pl.DataFrame | pl.LazyFrame"
KEYS = ("source", "target")


def listening_matrix(plays: Table, n_users: int, n_songs: int) -> sparse.csr_matrix:
    """Sparse matrix (users, songs) of the strongest signal of each user for each song, without dislikes."""
    liked = plays.lazy().filter(pl.col("strength") > 0).select("user", "song", "strength").collect(engine="streaming")
    user_N, song_N, strength_N = (liked[name].to_numpy() for name in ("user", "song", "strength"))
    return strongest(user_N, song_N, strength_N, (n_users, n_songs))


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


def probability_below_chance(good: AnyArray, expected: AnyArray, prior: float) -> AnyArray:
    """Posterior probability that a pair's lift is below 1: (N,), at most .5 without evidence.

    The lift ℓ multiplies the good outcomes that the target has with anybody: good ~ Poisson(ℓ · expected), the model of
    DuMouchel's gamma-Poisson shrinker (The American Statistician, 1999). The prior Gamma(1 + prior, prior) has its mode
    at ℓ = 1 and is worth `prior` expected outcomes. With prior 0 the result is 1 less the p-value of the exact test
    against ℓ = 1, so that dropping above .9 drops at most a tenth of the pairs that do as well as chance.

    Args:
        good: good outcomes of each pair; half outcomes count: (N,).
        expected: good outcomes that were to be expected at lift 1: (N,).
        prior: expected outcomes that the prior is worth.
    """
    return special.gammainc(1 + prior + good, prior + expected)


def evidence_of_feedback(feedback: pl.DataFrame, prior: float) -> pl.DataFrame:
    """Good and expected outcomes of each pair in `i2i_feedback` (source, target, plays, completes, favourites).

    A favourite counts twice as much as a complete play, and both together as one good outcome: both rates of the
    article's Q1, in [0, 1] a play, so that the variance is at most the Poisson's. Expected is what the target had after
    all other songs, shrunk to the rate of all feedback by a prior worth `prior` good outcomes. Feedback without any
    good outcome, as from a player that records none, expects none: it is no evidence.
    """
    counts = feedback.group_by("source", "target").agg(
        pl.col("plays").sum(), ((2 * pl.col("favourites") + pl.col("completes")) / 3).sum().alias("good")
    )
    overall = float(counts["good"].sum() / max(counts["plays"].sum(), 1))
    other_good, other_plays = (pl.col(name).sum().over("target") - pl.col(name) for name in ("good", "plays"))
    prior_plays = prior / overall if overall else 0.0
    rate = (other_good + prior * (overall > 0)) / (other_plays + prior_plays)
    return counts.select(*KEYS, "good", expected=(pl.col("plays") * rate).fill_nan(0.0))


def evidence_of_listeners(pairs: Pairs, before: sparse.csr_matrix, after: sparse.csr_matrix) -> pl.DataFrame:
    """Good and expected outcomes of each pair in listening data: users who knew the source and adopted the target.

    The check for data without a feedback table. `before` and `after` are an earlier and a later window of the same
    users (`after` without what they knew before), or twice the same matrix of held-out users.

    Only users who could adopt the target are counted: those active in `after` who did not know it before. A target
    without adopters expects none: it is no evidence.
    """
    from data.item_pairs.neighbours import common_listeners  # here: the service takes this module, and no numba

    took = _binary(after)
    active_U = np.diff(took.tocsr().indptr) > 0
    knew = sparse.csc_matrix(sparse.diags(active_U.astype(np.float32)) @ _binary(before))
    settled = sparse.csc_matrix(knew - knew.multiply(took))  # no entries where both windows are the same matrix
    both_took, both_settled = common_listeners(knew, took, pairs), common_listeners(knew, settled, pairs)
    knew_S, took_S, settled_S = (np.asarray(matrix.sum(axis=0)).ravel() for matrix in (knew, took, settled))
    return evidence_of_counts(pairs, (both_took, both_settled), (knew_S, took_S, settled_S), int(active_U.sum()))


def evidence_of_counts(
    pairs: Pairs, both_2N: tuple[AnyArray, AnyArray], songs_3S: tuple[AnyArray, AnyArray, AnyArray], active: int
) -> pl.DataFrame:
    """Compute `evidence_of_listeners` from counts of users who are active in the later window.

    Args:
        pairs: N pairs.
        both_2N: users who knew the source and adopted the target, and who knew both and did not adopt it again.
        songs_3S: users who knew each song, who adopted it, and who knew it and did not adopt it again.
        active: users active in the later window.
    """
    (took_N, settled_N), (knew_S, took_S, settled_S) = both_2N, songs_3S
    share_S = took_S.astype(np.float64) / np.maximum(active - settled_S.astype(np.float64), 1)
    expected = (knew_S[pairs.source] - settled_N) * share_S[pairs.target]
    return pairs.frame().select(KEYS).with_columns(good=pl.Series(took_N, dtype=pl.Float64), expected=expected)


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
