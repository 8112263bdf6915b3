"""From training plays to verified song pairs: mine by collaborative filtering, keep what users confirmed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from scipy import sparse

from configs.data import PairsConfig
from configs.errors import UserError
from data.arrays import AnyArray, IntArray
from data.item_pairs.neighbours import Pairs, cold_neighbours, neighbours
from data.item_pairs.verification import (
    Table,
    cap_histories,
    listening_matrix,
    pooled,
    split_users,
    verify_by_feedback,
    verify_by_listeners,
)

EARLIER = 0.75  # share of the plays, in time order, that mines pairs when a later window verifies them
BOTH = "feedback_and_later_plays"

Check = tuple[AnyArray, AnyArray]  # lift of each pair, observations of each
Verified = tuple[Pairs, AnyArray, AnyArray]


def mine(
    plays: Table,
    feedback: pl.DataFrame | None,
    shape: tuple[int, int],
    config: PairsConfig,
    seed: int,
) -> tuple[Pairs, dict[str, Any]]:
    """Verified positives and what the manifest says about them.

    A pair is kept if its smoothed lift (`collaborative.smoothed_lift`) is at least `config.min_lift`. What
    `posterior=auto` takes is in `choose_posterior`.

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
    capped = 0

    def mined(plays: Table) -> Pairs:
        nonlocal capped
        short, heavy = cap_histories(plays, config.max_history, seed)
        capped += heavy
        heard = listening_matrix(short, *shape)
        return neighbours(heard, config.top_k, config.min_common, config.similarity, config.shrinkage)

    check: Check | None = None
    if posterior == "split_users":
        pairs, lift, shown = by_halves(split_users(plays, shape[0], seed), shape, mined, config.prior_plays)
        check = lift, shown
    elif posterior in ("later_plays", BOTH):
        earlier, later = windows(plays)
        pairs = mined(earlier)
        check = verify_by_listeners(pairs, *taken_up(earlier, later, shape), config.prior_plays)
    else:
        pairs = mined(plays)
    pairs, evidence = kept(pairs, check, feedback, posterior, config)
    return pairs, evidence | {"users_capped": capped}


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


def kept(
    pairs: Pairs, check: Check | None, feedback: pl.DataFrame | None, posterior: str, config: PairsConfig
) -> tuple[Pairs, dict[str, Any]]:
    """What is kept of mined pairs once feedback, if asked, is heard too, and the manifest's counts; unchecked, all."""
    if posterior in ("feedback", BOTH):
        told = verify_by_feedback(pairs, feedback, config.prior_plays)
        check = told if check is None else pooled(check, told, config.prior_plays)
    if check is None:
        return pairs, {"posterior": posterior, "mined": len(pairs), "kept": len(pairs), "dropped": 0}
    return keep_good((pairs, *check), posterior, config.min_lift, config.keep_unobserved)


def keep_good(
    verified: Verified, posterior: str, min_lift: float, keep_unobserved: bool
) -> tuple[Pairs, dict[str, Any]]:
    """The pairs that users confirmed, and the counts for the manifest."""
    pairs, lift, shown = verified
    observed = shown > 0
    keep = (lift >= min_lift) & (observed | keep_unobserved)
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


def by_halves(halves: tuple[Table, Table], shape: tuple[int, int], mined: Any, prior: float) -> Verified:
    """Pairs mined on each half of the users, verified on the other; a pair found twice keeps its better-seen check."""
    parts = []
    for mine_on, check_on in halves, halves[::-1]:
        pairs, check = mined(mine_on), listening_matrix(check_on, *shape)
        parts.append((pairs, *verify_by_listeners(pairs, check, check, prior)))
    source, target, similarity, lift, shown = (
        np.concatenate(column)
        for column in zip(*((p.source, p.target, p.similarity, a, n) for p, a, n in parts), strict=True)
    )
    order = np.lexsort((-shown, target, source))
    source, target = source[order], target[order]
    first = np.ones(len(order), dtype=bool)
    first[1:] = (source[1:] != source[:-1]) | (target[1:] != target[:-1])
    chosen = order[first]
    return Pairs(source[first], target[first], similarity[chosen]), lift[chosen], shown[chosen]
