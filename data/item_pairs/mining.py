"""From training plays to verified song pairs: mine by collaborative filtering, drop what users contradict."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from scipy import sparse

from configs.data import PairsConfig
from configs.errors import UserError
from data.arrays import IntArray
from data.item_pairs.neighbours import Pairs, cold_neighbours, neighbours
from data.item_pairs.verification import (
    KEYS,
    Table,
    cap_histories,
    evidence_of_feedback,
    evidence_of_listeners,
    listening_matrix,
    probability_below_chance,
    split_users,
)

EARLIER = 0.75  # share of the plays, in time order, before the later window that verifies pairs
BOTH = "feedback_and_later_plays"


def mine(
    plays: Table,
    feedback: pl.DataFrame | None,
    shape: tuple[int, int],
    config: PairsConfig,
    seed: int,
) -> tuple[Pairs, dict[str, Any]]:
    """Mine song pairs of all plays, drop those that the evidence speaks against; returns them and the counts.

    The evidence comes from windows, halves or feedback (`choose_posterior`), but the pairs from all plays: of a song
    that came out in the last of them there is no evidence yet, and it keeps its pairs.

    Args:
        plays: training plays with `user`, `song`, `strength` and maybe `played_at`.
        feedback: `i2i_feedback` with song numbers `source`, `target`, or None.
        shape: (users, songs).
        config: how pairs are mined and verified.
        seed: of the capping of histories, and of the halves of the users.

    Raises:
        UserError: the evidence that was asked for is not in the data.
    """
    dated = plays.lazy().select(pl.col("played_at").is_not_null().mean()).collect().item()
    posterior = choose_posterior(config.posterior, feedback, dated or 0, shape[1])
    pairs, capped = similar_songs(plays, shape, config, seed)
    evidence = []
    if posterior == "split_users":
        evidence = evidence_of_halves(split_users(plays, shape[0], seed), shape, config, seed)
    elif posterior in ("later_plays", BOTH):
        evidence = [evidence_of_listeners(pairs, *taken_up(*windows(plays), shape))]
    pairs, counts = verified(pairs, evidence, feedback, posterior, config)
    return pairs, counts | {"users_capped": capped}


def similar_songs(plays: Table, shape: tuple[int, int], config: PairsConfig, seed: int) -> tuple[Pairs, int]:
    """The most similar songs of each song, and the number of users whose history was capped."""
    capped_plays, capped = cap_histories(plays, config.max_history, seed)
    heard = listening_matrix(capped_plays, *shape)
    return neighbours(heard, config.top_k, config.min_common, config.similarity, config.shrinkage), capped


def validation_pairs(folder: Path, validation: IntArray, shape: tuple[int, int], top_k: int) -> Pairs:
    """Warm songs with the same listeners as each validation song, from a catalogue's held-out plays."""
    warm, cold = (pl.scan_parquet(folder / f"{name}.parquet", glob=False) for name in ("plays", "cold_plays"))
    held_out = cold.filter(pl.col("song").is_in(pl.Series(validation).implode()))
    return cold_neighbours(listening_matrix(held_out, *shape), listening_matrix(warm, *shape), top_k, min_common=1)


def choose_posterior(asked: str, feedback: pl.DataFrame | None, dated: float, n_songs: int) -> str:
    """Which check there is evidence for.

    `auto` takes a feedback table that has at least a row for each song; beside a smaller one a later window of plays,
    where plays have times: the first feedback of a young service must not end the check of all that it says nothing
    of. With neither, nothing is checked: to check two halves of the listeners against each other costs half of the
    plays, and on no public data was it worth that (docs/results/long_tail.md).

    Args:
        asked: `pairs.posterior`.
        feedback: `i2i_feedback`, or None.
        dated: share of plays with a time; those without count as earlier.
        n_songs: of the catalogue.

    Raises:
        UserError: the evidence that was asked for is not in the data.
    """
    timed, rows = dated > 0.5, 0 if feedback is None else feedback.height
    if asked == "auto" and timed and rows < n_songs:
        return BOTH if rows else "later_plays"
    if asked == "auto":
        return "feedback" if rows else "none"
    if asked in ("feedback", BOTH) and feedback is None:
        raise UserError(f"pairs.posterior={asked}, but the dataset has no i2i_feedback.parquet")
    if asked in ("later_plays", BOTH) and not timed:
        raise UserError(f"pairs.posterior={asked}, but most plays have no played_at")
    return asked


def verified(
    pairs: Pairs, evidence: list[pl.DataFrame], feedback: pl.DataFrame | None, posterior: str, config: PairsConfig
) -> tuple[Pairs, dict[str, Any]]:
    """Drop the mined pairs whose lift is probably below 1; returns the rest and the manifest's counts.

    Outcomes of several sources add up. What is not known of a pair is no reason to drop it, unless
    `pairs.keep_unobserved=false`.
    """
    if posterior in ("feedback", BOTH) and feedback is not None:
        evidence = [*evidence, evidence_of_feedback(feedback, config.prior_outcomes)]
    if posterior == "none":
        return pairs, {"posterior": posterior, "mined": len(pairs), "kept": len(pairs), "dropped": 0}
    outcomes = pl.concat(table.with_columns(pl.col(KEYS).cast(pl.Int64)) for table in evidence)
    outcomes = outcomes.group_by(KEYS).agg(pl.col("good", "expected").sum())
    of_pairs = pairs.frame().join(outcomes, on=KEYS, how="left", maintain_order="left").fill_null(0)
    good, expected = of_pairs["good"].to_numpy(), of_pairs["expected"].to_numpy()
    observed = expected > 0
    keep = probability_below_chance(good, expected, config.prior_outcomes) <= config.drop_above
    keep &= observed | config.keep_unobserved
    return pairs.take(keep), {
        "posterior": posterior,
        "mined": len(pairs),
        "observed": int(observed.sum()),
        "kept": int(keep.sum()),
        "dropped": int((~keep).sum()),
        "songs_with_a_pair": len(np.unique(pairs.source[keep])),
    }


def windows(plays: Table) -> tuple[pl.LazyFrame, pl.LazyFrame]:
    """The earlier and the later plays; those without a date are earlier, of one moment the rows' order decides."""
    times = plays.lazy().select("played_at").collect().to_series()
    edge = int(len(times) * EARLIER)
    in_order = times.sort()  # those without a date first
    first = in_order[min(edge, len(times) - 1)]  # the time of the first later play
    at_first = (times == first).arg_true()  # of the plays at that time it is this one:
    row = at_first[min(edge - in_order.search_sorted(first, "left"), len(at_first) - 1)]
    numbered = plays.lazy().select("user", "song", "strength", "played_at").with_row_index("row")
    is_later = (pl.col("played_at") > first) | ((pl.col("played_at") == first) & (pl.col("row") >= row))
    later = is_later.fill_null(False)
    return numbered.filter(~later).drop("row"), numbered.filter(later).drop("row")


def taken_up(earlier: Table, later: Table, shape: tuple[int, int]) -> tuple[sparse.csr_matrix, sparse.csr_matrix]:
    """Listening in the earlier plays, and songs newly taken up in the later ones."""
    before, after = listening_matrix(earlier, *shape), listening_matrix(later, *shape)
    fresh = sparse.csr_matrix(after - after.multiply(before.astype(bool).astype(np.float32)))
    fresh.eliminate_zeros()
    return before, fresh


def evidence_of_halves(
    halves: tuple[Table, Table], shape: tuple[int, int], config: PairsConfig, seed: int
) -> list[pl.DataFrame]:
    """Outcomes of the pairs mined on each half of the users among the users of the other half."""
    evidence = []
    for mine_on, check_on in halves, halves[::-1]:
        heard = listening_matrix(check_on, *shape)
        evidence.append(evidence_of_listeners(similar_songs(mine_on, shape, config, seed)[0], heard, heard))
    return evidence
