"""Time and memory of audience targeting at the size of a real service, on synthetic power-law listening.

    python -m benchmarks.speed.audience_scale users=1000000 plays=50000000 new=1000 out=runs/audience_scale.json

Similar songs, I2I2U, taste, CAT, I2I2U ∪ CAT, a cap per user and the reasons, as `pipeline.audience` calls them. Beside
it, in the same run, two plain forms of I2I2U on some of the songs: weights @ listening.T as a dense array with
argpartition of each row; and a join of two tables with a sum and a sort, in polars. Written: seconds of each stage,
peak memory, (song, user) pairs scored a second, and whether all found the same; with `shares=[0.1,0.3,1]` for so many
of the users too. With `reached=[0.1,0.5,0.9]` lists are made anew where a condition leaves such shares of the users:
processor seconds, the least of ROUNDS in turns, and whether the first song's list is that of all users without those.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import polars as pl
from scipy import sparse
from tqdm import tqdm

from benchmarks.measure import forget_peak, memory, tell, timed
from configs.errors import UserError
from configs.load import command
from configs.options import at_least, opt
from configs.targeting import TargetingConfig
from data.arrays import FloatArray, IntArray
from inference.song_index import SongIndex
from inference.targeting import targeting_of
from retrieval.allocation import rank_values, share_out
from retrieval.audience import Excluded, union
from retrieval.index import build_index
from retrieval.listening import Listening
from retrieval.targeting import CHOICES, Mode, Targeting

GENRES, ROUNDS = 50, 3
MODES: tuple[Mode, ...] = ("i2i2u", "taste", "cat")


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
    reached: list[float] = opt([], "shares of the users that conditions leave")
    seed: int = opt(0, "seed of the listening")
    out: str | None = opt(None, "JSON file to write")
    targeting: TargetingConfig = field(default_factory=lambda: TargetingConfig(per_user_cap=5))


def main(config: ScaleConfig) -> None:
    """Run the command (see the module's docstring)."""
    at_least(config, 1, "users", "plays", "songs", "new", "dim", "peer")
    if not config.shares or not all(0 < share <= 1 for share in config.shares):
        raise UserError(f"shares={list(config.shares)}: some above 0 and up to 1")
    tell(config, {"sizes": [measure(config, share) for share in tqdm(config.shares, desc="sizes")]})


def measure(config: ScaleConfig, share: float) -> dict[str, Any]:
    """Everything about a share of the users."""
    part = replace(config, users=max(1, round(share * config.users)), plays=max(1, round(share * config.plays)))
    index, listening = world(part)
    about = {"users": part.users, "plays": part.plays, "entries": int(listening.nnz)}
    return about | {"memory_before_mb": memory("VmRSS")} | run(part, index, listening)


def run(config: ScaleConfig, index: SongIndex, listening: sparse.csr_matrix) -> dict[str, Any]:
    """All stages, timed, and the plain forms beside them."""
    options, new = config.targeting, np.arange(config.songs, config.songs + config.new)
    budget = min(options.budget, config.users)
    depth = min(CHOICES * budget, config.users) if options.per_user_cap else budget
    targeting = targeting_of(index, Listening(listening), options)
    seconds: dict[str, float] = {}
    forget_peak()
    with timed(seconds, "similar songs"):
        songs = targeting.songs(index.vectors[new], new)
    with timed(seconds, "i2i2u"):
        first = targeting.listeners(songs, depth)
    with timed(seconds, "taste"):
        targeting.near_taste(songs, depth)
    with timed(seconds, "cat"):
        second = targeting.near_clusters(songs, depth)
    with timed(seconds, "union"):
        both = union(first, second, depth)
    with timed(seconds, "cap"):
        capped = share_out(both, rank_values(both), budget, options.per_user_cap, None)
    with timed(seconds, "reasons"):
        targeting.reasons(capped.users_CB, songs)
    report: dict[str, Any] = {
        "seconds": seconds,
        "peak_memory_mb": memory("VmHWM"),
        "pairs_per_second": {name: round(config.new * config.users / seconds[name]) for name in MODES},
        "users_named": int((capped.users_CB >= 0).sum()),
        "same_audiences": True,
    }
    few = slice(min(config.peer, config.new))
    expected = np.where(first.users_CB[few] >= 0, first.scores_CB[few], 0.0)
    for name, form in (("plain", plain), ("polars", join_in_polars)):
        forget_peak()
        once, a_song, found = form(songs.similar.weights_CS[few], listening, targeting.activity_U, depth)
        for_all = once + a_song * config.new
        report |= {f"{name}_i2i2u_seconds_for_all_songs": for_all, f"{name}_over_ours": for_all / seconds["i2i2u"]}
        report |= {f"{name}_peak_memory_mb": memory("VmHWM")}
        report["same_audiences"] &= bool(np.allclose(found, expected, rtol=1e-4))
    if config.reached:
        report |= conditions(config, targeting, new)
    return report


def conditions(config: ScaleConfig, targeting: Targeting, new: IntArray) -> dict[str, Any]:
    """How long lists under conditions take, of one song and of all, and whether they are exact."""
    took = {str(n): under_conditions(config, targeting, new[:n]) for n in sorted({1, config.new})}
    return {"reached": took, "same_under_conditions": same_under_conditions(config, targeting, new[:1])}


def under_conditions(config: ScaleConfig, targeting: Targeting, new: IntArray) -> dict[str, dict[str, float]]:
    """Processor seconds of every mode's lists of some new songs, by the share of the users that may be reached."""
    chance_U, vectors = np.random.default_rng(config.seed).random(config.users), targeting.song_SD[new]
    took: dict[str, dict[str, float]] = {}
    for share in ROUNDS * [1.0, *config.reached]:
        songs = targeting.songs(vectors, new, excluded=Excluded(np.flatnonzero(chance_U >= share)))
        for mode in MODES:
            began = time.process_time()
            targeting.audience(songs, mode, config.targeting.budget)
            least = took.setdefault(mode, {})
            least[str(share)] = min(time.process_time() - began, least.get(str(share), np.inf))
    return took


def same_under_conditions(config: ScaleConfig, targeting: Targeting, new: IntArray) -> dict[str, bool]:
    """Whether each mode's list under a condition has the scores of the list of all users, without those left out."""
    chance_U, vectors = np.random.default_rng(config.seed).random(config.users), targeting.song_SD[new]
    everybody, same = targeting.songs(vectors, new), dict[str, bool]()
    for mode in MODES:
        whole = targeting.audience(everybody, mode, config.users)
        same[mode] = True
        for share in config.reached:
            songs = targeting.songs(vectors, new, excluded=Excluded(np.flatnonzero(chance_U >= share)))
            found = targeting.audience(songs, mode, config.targeting.budget)
            may = (whole.users_CB[0] >= 0) & (chance_U[whole.users_CB[0]] < share)
            expected, named = whole.scores_CB[0, may][: config.targeting.budget], found.users_CB[0] >= 0
            scores = found.scores_CB[0, named]
            same[mode] &= len(scores) == len(expected) and bool(np.allclose(scores, expected, rtol=1e-4))
    return same


def plain(
    weights: sparse.csr_matrix, listening: sparse.csr_matrix, scale_U: FloatArray, budget: int
) -> tuple[float, float, FloatArray]:
    """The obvious form: seconds of the transposition that ours starts with too, seconds a song, the best scores."""
    seconds: dict[str, float] = {}
    with timed(seconds, "transposing"):
        by_song = sparse.csr_matrix(listening.T)
    found = []
    with timed(seconds, "scoring"):
        for row in (weights @ by_song).toarray() * scale_U:
            best = np.argpartition(-row, budget - 1)[:budget]
            found.append(np.sort(row[best])[::-1])
    return seconds["transposing"], seconds["scoring"] / len(found), np.stack(found)


def join_in_polars(
    weights: sparse.csr_matrix, listening: sparse.csr_matrix, scale_U: FloatArray, budget: int
) -> tuple[float, float, FloatArray]:
    """Two tables joined, summed and sorted: no seconds before it, seconds a song, the best scores."""
    user = np.repeat(np.arange(listening.shape[0], dtype=np.int32), np.diff(listening.indptr))
    plays = pl.LazyFrame({"user": user, "song": listening.indices, "value": listening.data * scale_U[user]})
    few = sparse.coo_matrix(weights)
    near = pl.LazyFrame({"new": few.row, "song": few.col.astype(listening.indices.dtype), "weight": few.data})
    score = (pl.col("weight") * pl.col("value")).sum().alias("score")
    best = pl.col("score").top_k(budget).sort(descending=True)
    seconds: dict[str, float] = {}
    with timed(seconds, "joining"):
        scores = near.join(plays, on="song").group_by("new", "user").agg(score)
        rows = scores.group_by("new").agg(best).collect()
    found = np.zeros((weights.shape[0], budget))
    for row, values in rows.iter_rows():
        found[row, : len(values)] = values
    return 0.0, seconds["joining"] / len(found), found


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
