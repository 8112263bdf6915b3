"""Time and memory of audience targeting at the size of a real service, on synthetic power-law listening.

    python -m benchmarks.speed.audience_scale users=1000000 plays=50000000 new=1000 out=runs/audience_scale.json

Similar songs, I2I2U, CAT, their union, a cap per user and the reasons, as `pipeline.audience` calls them. Beside it, in
the same run, two plain forms of I2I2U on some of the songs: weights @ listening.T as a dense array with argpartition of
each row; and a join of two tables with a sum and a sort, in polars. Written: seconds of each stage, peak memory, (song,
user) pairs scored a second, and whether all found the same; with `shares=[0.1,0.3,1]` for so many of the users too.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import polars as pl
from scipy import sparse
from tqdm import tqdm

from benchmarks.measure import forget_peak, memory, tell, timed
from configs.errors import UserError
from configs.load import as_dict, command
from configs.options import opt
from configs.targeting import TargetingConfig
from inference.song_index import SongIndex
from inference.targeting import targeting_of
from retrieval.audience import Audience, activity_scale, cap_users, union
from retrieval.index import build_index
from retrieval.listening import Listening
from retrieval.targeting import CHOICES

GENRES = 50


@dataclass
class ScaleConfig:
    """Options of this benchmark."""

    users: int = opt(1_000_000, "listeners")
    plays: int = opt(50_000_000, "plays, repeated ones included")
    songs: int = opt(100_000, "known songs")
    new: int = opt(1000, "new songs")
    dim: int = opt(64, "size of a song vector")
    peer: int = opt(20, "new songs for which the plain forms run too")
    shares: list[float] = opt([1.0], "shares of the users, with their plays, for each of which all is measured")
    seed: int = opt(0, "seed of the listening")
    out: str | None = opt(None, "JSON file to write")
    targeting: TargetingConfig = field(default_factory=lambda: TargetingConfig(per_user_cap=5))


def main(config: ScaleConfig) -> None:
    """Run the command (see the module's docstring)."""
    if min(config.users, config.plays, config.songs, config.new, config.dim, config.peer) < 1:
        raise UserError("users, plays, songs, new, dim and peer must be at least 1")
    if not config.shares or not all(0 < share <= 1 for share in config.shares):
        raise UserError(f"shares={list(config.shares)}: some above 0 and up to 1")
    report: dict[str, Any] = {"options": as_dict(config), "cpus": os.cpu_count()}
    report |= {"threads": os.environ.get("OMP_NUM_THREADS", "all")}
    report["sizes"] = [measure(config, share) for share in tqdm(config.shares, desc="sizes")]
    tell(report, config.out)


def measure(config: ScaleConfig, share: float) -> dict[str, Any]:
    """Everything about a share of the users."""
    part = replace(config, users=max(1, round(share * config.users)), plays=max(1, round(share * config.plays)))
    index, listening = world(part)
    about = {"users": part.users, "plays": part.plays, "entries": int(listening.nnz)}
    about["memory_before_mb"] = memory("VmRSS") or 0
    forget_peak()
    return about | run(part, index, listening)


def run(config: ScaleConfig, index: SongIndex, listening: sparse.csr_matrix) -> dict[str, Any]:
    """All stages, timed, and the plain form beside them."""
    options, new = config.targeting, np.arange(config.songs, config.songs + config.new)
    budget = min(options.budget, config.users)
    depth = min(CHOICES * budget, config.users) if options.per_user_cap else budget
    targeting = targeting_of(index, Listening(listening), options)
    seconds: dict[str, float] = {}
    with timed(seconds, "similar songs"):
        songs = targeting.songs(index.vectors[new], new)
    with timed(seconds, "i2i2u"):
        first = targeting.listeners(songs, depth)
    with timed(seconds, "cat"):
        second = targeting.near_clusters(songs, depth)
    with timed(seconds, "union"):
        both = union(first, second, depth)
    with timed(seconds, "cap"):
        capped = cap_users(both, options.per_user_cap or config.new, budget)
    with timed(seconds, "reasons"):
        targeting.reasons(capped.users_CB, songs)
    peak = memory("VmHWM")
    dense, transposing, same = plain(config, songs.similar.weights_CS, listening, first)
    expected = {"plain": transposing + dense * config.new}
    forget_peak()
    joined, same_joined = join_in_polars(config, songs.similar.weights_CS, listening, first)
    expected["polars"] = joined * config.new
    return {
        "seconds": {name: round(value, 3) for name, value in seconds.items()},
        "peak_memory_mb": peak,
        "pairs_per_second": {name: round(config.new * config.users / seconds[name]) for name in ("i2i2u", "cat")},
        "users_named": int((capped.users_CB >= 0).sum()),
        **{f"{name}_i2i2u_seconds_for_all_songs": round(one, 3) for name, one in expected.items()},  # from `peer` songs
        **{f"{name}_over_ours": round(one / seconds["i2i2u"], 2) for name, one in expected.items()},
        "polars_peak_memory_mb": memory("VmHWM"),
        "same_audiences": same and same_joined,
    }


def plain(
    config: ScaleConfig, weights: sparse.csr_matrix, listening: sparse.csr_matrix, ours: Audience
) -> tuple[float, float, bool]:
    """The obvious form: seconds a song, seconds of the transposition that it and ours start with, same scores?"""
    scale = activity_scale(listening, config.targeting.activity_power)
    n, budget = min(config.peer, config.new), ours.users_CB.shape[1]
    seconds: dict[str, float] = {}
    with timed(seconds, "transposing"):
        by_song = sparse.csr_matrix(listening.T)
    found = []
    with timed(seconds, "scoring"):
        score = (weights[:n] @ by_song).toarray() * scale
        for row in score:
            best = np.argpartition(-row, budget - 1)[:budget]
            found.append(np.sort(row[best])[::-1])
    expected = np.where(ours.users_CB[:n] >= 0, ours.scores_CB[:n], 0.0)
    return seconds["scoring"] / n, seconds["transposing"], bool(np.allclose(np.stack(found), expected, rtol=1e-4))


def join_in_polars(
    config: ScaleConfig, weights: sparse.csr_matrix, listening: sparse.csr_matrix, ours: Audience
) -> tuple[float, bool]:
    """Two tables joined, summed and sorted: seconds a song, and whether the scores are the same."""
    n, budget = min(config.peer, config.new), ours.users_CB.shape[1]
    scale = activity_scale(listening, config.targeting.activity_power)
    user = np.repeat(np.arange(listening.shape[0], dtype=np.int32), np.diff(listening.indptr))
    plays = pl.DataFrame({"user": user, "song": listening.indices, "value": listening.data * scale[user]})
    few = sparse.coo_matrix(weights[:n])
    near = pl.DataFrame({"new": few.row, "song": few.col, "weight": few.data}).with_columns(
        pl.col("song").cast(pl.Int32)
    )
    seconds: dict[str, float] = {}
    with timed(seconds, "joining"):
        score = near.lazy().join(plays.lazy(), on="song").group_by("new", "user").agg(
            (pl.col("weight") * pl.col("value")).sum().alias("score")
        )  # fmt: skip
        best = score.group_by("new").agg(pl.col("score").top_k(budget).sort(descending=True)).sort("new").collect()
    found = np.zeros((n, budget))
    for row, values in best.iter_rows():
        found[row, : len(values)] = values
    expected = np.where(ours.users_CB[:n] >= 0, ours.scores_CB[:n], 0.0)
    return seconds["joining"] / n, bool(np.allclose(found, expected, rtol=1e-4))


def world(config: ScaleConfig) -> tuple[SongIndex, sparse.csr_matrix]:
    """Song vectors around genre centres, the new songs last, and `listening_of` the others."""
    rng = np.random.default_rng(config.seed)
    n = config.songs + config.new
    centre = rng.standard_normal((GENRES, config.dim), dtype=np.float32)
    vectors = centre[np.arange(n) % GENRES] + rng.standard_normal((n, config.dim), dtype=np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    known = np.arange(config.songs)
    listening = listening_of(config.users, config.songs, config.new, config.plays, rng)
    return SongIndex({}, build_index(vectors[known]), known, vectors), listening


def listening_of(users: int, songs: int, new: int, plays: int, rng: np.random.Generator) -> sparse.csr_matrix:
    """Listening (users, songs + new) with long tails of users and of songs, to all but the new ones.

    Song n is of genre n % GENRES. Half of a user's plays are of their genre; a song's share of its genre's plays falls
    as the power 0.6 of its rank.
    """
    activity = rng.pareto(1.5, users) + 0.5
    share = np.floor(np.concatenate([[0], np.cumsum(activity)]) / activity.sum() * plays)
    indptr = share.astype(np.int64)
    genre = np.repeat(rng.integers(0, GENRES, users, dtype=np.int32), np.diff(indptr))
    total = len(genre)
    other = rng.random(total, dtype=np.float32) < 0.5
    genre[other] = rng.integers(0, GENRES, int(other.sum()), dtype=np.int32)
    del other
    song = rng.random(total, dtype=np.float32) ** np.float32(2.5)
    song *= max(1, songs // GENRES)
    song = np.minimum(song.astype(np.int32) * GENRES + genre, songs - 1).astype(np.int32)
    del genre
    strength = rng.integers(1, 4, total, dtype=np.int8).astype(np.float32)
    indptr = indptr.astype(np.int32 if total < 2**31 else np.int64)
    listening = sparse.csr_matrix((strength, song, indptr), shape=(users, songs + new))
    listening.sum_duplicates()
    np.minimum(listening.data, 3, out=listening.data)
    return listening


if __name__ == "__main__":
    command(main, ScaleConfig, __doc__)
