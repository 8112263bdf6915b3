"""Time of the interest boundary in bulk: new songs against all users' own thresholds, and all users against new songs.

    OMP_NUM_THREADS=1 python -m benchmarks.speed.boundary_scale users=1000000 new=1000 out=runs/boundary_scale.json

Generated towers: users around 200 tastes, songs around the same ones; about one song in twenty clears a user's
threshold. `retrieval.boundary` with a flat and an IVF index of the users, beside the plain form in the same run on some
of the songs: the margins of all pairs as a dense array, argpartition of each row. Written: seconds, the share of the
exact list that is found, and peak memory.

Shapes: C songs, U users, D vector size.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from benchmarks.measure import forget_peak, memory, tell, timed
from configs.load import command
from configs.options import at_least, opt
from data.arrays import FloatArray
from retrieval.audience import Audience, rank_by_score, songs_at_once
from retrieval.boundary import margins, songs_above, users_above
from retrieval.index import unit_rows
from retrieval.metrics import hits

TASTES, OPEN = 200, 0.05


@dataclass
class BoundaryScaleConfig:
    """Options of this benchmark."""

    users: int = opt(1_000_000, "listeners")
    new: int = opt(1000, "new songs")
    dim: int = opt(64, "size of user and item vectors")
    budget: int = opt(100, "users a song")
    songs_per_user: int = opt(20, "songs a user")
    peer: int = opt(100, "new songs for which the plain form runs")
    memory_mb: float = opt(1024.0, "working memory of all forms")
    seed: int = opt(0, "seed of the towers")
    out: str | None = opt(None, "JSON file to write")


def main(config: BoundaryScaleConfig) -> None:
    """Run the command (see the module's docstring)."""
    at_least(config, 1, "users", "new", "dim", "budget", "songs_per_user", "peer")
    item_CD, user_UD, boundary_U = parts = towers(config)
    before = memory("VmRSS")
    forget_peak()
    seconds: dict[str, float] = {}
    found: dict[str, Audience] = {}
    for kind in ("Flat", "IVF,Flat"):
        with timed(seconds, f"users of songs, {kind}"):
            found[kind] = users_above(*parts, config.budget, kind=kind, memory_mb=config.memory_mb)
    with timed(seconds, "songs of users"):
        songs = songs_above(*parts, config.songs_per_user, memory_mb=config.memory_mb)
    peak = memory("VmHWM")
    few = item_CD[: config.peer]

    def clear(rows: slice) -> FloatArray:
        margin = margins(few[rows], user_UD, boundary_U)
        return np.where(margin > 0, margin, -np.inf)

    with timed(seconds, "plain"):
        plain = rank_by_score(clear, len(few), config.budget, songs_at_once(config.memory_mb, len(user_UD)))
    expected = seconds.pop("plain") * config.new / len(few)
    song, place = np.nonzero(plain.users_CB >= 0)
    exact = np.arange(len(few)), song, plain.users_CB[song, place]
    report = {
        "memory_before_mb": before,
        "seconds": seconds,
        "peak_memory_mb": peak,
        "plain_seconds_for_all_songs": expected,  # from `peer` of them
        "plain_over_ours": {kind: expected / seconds[f"users of songs, {kind}"] for kind in found},
        "share_of_exact_list": {
            kind: float(hits(one.users_CB[: len(few)], *exact).sum() / max(1, len(song))) for kind, one in found.items()
        },
        "users_with_a_song": float((songs.users_CB >= 0).any(axis=1).mean()),
    }
    tell(config, report)


def towers(config: BoundaryScaleConfig) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Items (C, D), users (U, D) and boundary scores (U,)."""
    rng = np.random.default_rng(config.seed)
    taste = unit_rows(rng.standard_normal((TASTES, config.dim)))

    def around(n: int) -> FloatArray:
        noise = rng.standard_normal((n, config.dim), dtype=np.float32) / np.float32(np.sqrt(config.dim))
        return np.asarray(4 * (taste[rng.integers(0, TASTES, n)] + noise), dtype=np.float32)

    item_CD, user_UD = around(config.new), around(config.users)
    sample = user_UD[rng.integers(0, config.users, 2000)] @ item_CD.T
    spread = rng.normal(0, 1, config.users).astype(np.float32)
    return item_CD, user_UD, np.float32(np.quantile(sample, 1 - OPEN)) + spread


if __name__ == "__main__":
    command(main, BoundaryScaleConfig, __doc__)
