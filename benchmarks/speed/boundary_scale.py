"""Time of the interest boundary in bulk: new songs against all users' own thresholds, and all users against new songs.

    OMP_NUM_THREADS=1 python -m benchmarks.speed.boundary_scale users=1000000 new=1000 out=runs/boundary_scale.json

Generated towers: users around 200 tastes, songs around the same ones; about one song in twenty clears a user's
threshold. `retrieval.boundary`, exact and with an IVF index of the users, in turns with the bare matrix product of the
same size, a block at a time, of which nothing is kept. Beside it stands the plain form on some of the songs: the
margins of all pairs as a dense array, argpartition of each row. Written: medians of seconds, over those of the product,
the share of the exact list that is found, and peak memory.

Shapes: C songs, U users, D vector size.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from benchmarks.measure import forget_peak, memory, tell, timed
from configs.load import command
from configs.options import at_least, opt
from data.arrays import FloatArray
from retrieval.audience import Audience, rank_by_score, slices, songs_at_once
from retrieval.boundary import margins, songs_above, users_above
from retrieval.index import unit_rows
from retrieval.metrics import hits
from retrieval.products import CELLS, FEWEST

TASTES, OPEN = 200, 0.05
KINDS = ("Flat", "IVF,Flat")


@dataclass
class BoundaryScaleConfig:
    """Options of this benchmark."""

    users: int = opt(1_000_000, "listeners")
    new: int = opt(1000, "new songs")
    dim: int = opt(64, "size of user and item vectors")
    budget: int = opt(100, "users a song")
    songs_per_user: int = opt(20, "songs a user")
    peer: int = opt(100, "new songs for which the plain form runs")
    turns: int = opt(3, "times that each is measured, in turns")
    memory_mb: float = opt(1024.0, "working memory of all forms")
    seed: int = opt(0, "seed of the towers")
    out: str | None = opt(None, "JSON file to write")


def main(config: BoundaryScaleConfig) -> None:
    """Run the command (see the module's docstring)."""
    at_least(config, 1, "users", "new", "dim", "budget", "songs_per_user", "peer", "turns")
    item_CD, user_UD, boundary_U = parts = towers(config)
    before = memory("VmRSS")
    forget_peak()
    seconds, over, found = in_turns(config, parts)
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
        "plain_over_ours": {kind: expected / seconds[f"users of songs, {kind}"] for kind in KINDS},
        "over_the_product": over,
        "share_of_exact_list": {
            kind: float(hits(found[f"users of songs, {kind}"].users_CB[: len(few)], *exact).sum() / max(1, len(song)))
            for kind in KINDS
        },
        "users_with_a_song": float((found["songs of users"].users_CB >= 0).any(axis=1).mean()),
    }
    tell(config, report)


def in_turns(
    config: BoundaryScaleConfig, parts: tuple[FloatArray, FloatArray, FloatArray]
) -> tuple[dict[str, float], dict[str, float], dict[str, Audience]]:
    """Medians of the seconds of each way, and of how many times the product's they are; what each has found."""
    found: dict[str, Audience] = {}
    ways: dict[str, Callable[[], Audience | None]] = {
        "product": lambda: product(*parts[:2]),
        **{f"users of songs, {kind}": partial(users_above, *parts, config.budget, kind=kind, memory_mb=config.memory_mb)
           for kind in KINDS},
        "songs of users": lambda: songs_above(*parts, config.songs_per_user, memory_mb=config.memory_mb),
    }  # fmt: skip
    turns: list[dict[str, float]] = [{} for _ in range(config.turns)]
    for turn in turns:
        for name, way in ways.items():
            with timed(turn, name):
                result = way()
            if result is not None:
                found[name] = result
    seconds = {name: float(np.median([turn[name] for turn in turns])) for name in ways}
    over = {name: float(np.median([turn[name] / turn["product"] for turn in turns])) for name in found}
    return seconds, over, found


def product(item_CD: FloatArray, user_UD: FloatArray) -> None:
    """The inner products of all pairs, users of a block at a time."""
    for rows in slices(len(user_UD), max(FEWEST, CELLS // len(item_CD))):
        item_CD @ user_UD[rows].T


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
