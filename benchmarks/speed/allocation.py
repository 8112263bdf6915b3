"""Time, memory and optimality of giving a day's songs to users together, on synthetic values.

    python -m benchmarks.speed.allocation songs=1000 candidates=1000 users=1000000 out=runs/allocation.json

A pair's value is a chance of a favourite: σ(song + user + noise), with users' activity a power law. Active users are
candidates of many songs and worth much to all of them. `noise` is what a song and a user have of their own: the less,
the more songs want the same users. Written: seconds, peak memory, the gap to the bound that the prices prove, how far
greedy choices stay behind, and what exploration adds; `caps` are measured one after another.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.measure import forget_peak, memory, tell, timed
from configs.errors import UserError
from configs.load import command
from configs.options import at_least, opt
from retrieval.allocation import TOLERANCE, Exploration, ValuedPairs, allocate


@dataclass
class AllocationConfig:
    """Options of this benchmark."""

    users: int = opt(1_000_000, "users")
    songs: int = opt(1000, "new songs")
    candidates: int = opt(1000, "users who are a candidate of a song")
    budget: int = opt(100, "users a song")
    caps: list[int] = opt([1, 5], "songs a user, one measurement each")
    noise: float = opt(1.0, "spread of what a pair has of its own, in log-odds")
    exploration: float = opt(0.05, "share of the budgets that is drawn at random")
    tolerance: float = opt(TOLERANCE, "share of the best total value that may be missing")
    seed: int = opt(0, "seed of the values")
    out: str | None = opt(None, "JSON file to write")


def main(config: AllocationConfig) -> None:
    """Run the command (see the module's docstring)."""
    at_least(config, 1, "users", "songs", "candidates", "budget")
    if not config.caps or min(config.caps) < 1:
        raise UserError(f"caps={list(config.caps)}: some of at least 1")
    candidates = world(config)
    allocate(ValuedPairs(*(np.zeros(1, int),) * 2, np.ones(1), 1), 1, 1)  # compiles
    about = {"pairs": len(candidates.song_P), "users_among_them": len(np.unique(candidates.user_P))}
    tell(config, about | {"caps": [measure(config, candidates, cap) for cap in config.caps]})


def measure(config: AllocationConfig, candidates: ValuedPairs, cap: int) -> dict[str, Any]:
    """One cap: with and without exploration, and greedy choices."""
    seconds: dict[str, float] = {}
    forget_peak()
    before = memory("VmRSS")
    with timed(seconds, "allocation"):
        found = allocate(candidates, config.budget, cap, tolerance=config.tolerance)
    peak = memory("VmHWM")
    how = Exploration(config.exploration, config.seed, np.arange(config.songs))
    with timed(seconds, "with exploration"):
        explored = allocate(candidates, config.budget, cap, how, config.tolerance)
    with timed(seconds, "greedy"):
        greedy = greedy_value(candidates, config.budget, cap, config.users)
    return {
        "cap": cap,
        "seconds": seconds,
        "memory_before_mb": before,
        "peak_memory_mb": peak,
        "chosen": int(found.chosen_P.sum()),
        "value": found.value,
        "gap_to_bound": found.gap,
        "greedy_over_ours": greedy / found.value,
        "explored": int(explored.explored_P.sum()),
        "value_with_exploration_over_without": float(candidates.value_P[explored.chosen_P].sum()) / found.value,
    }


def greedy_value(candidates: ValuedPairs, budget: int, cap: int, users: int) -> float:
    """Of the most valuable pair first, then the next that still has room on both sides."""
    from retrieval.auction import greedy

    ends_2P = np.stack([candidates.song_P, candidates.user_P + candidates.n_songs]).astype(np.int32)
    limits = np.repeat([budget, cap], [candidates.n_songs, users])
    chosen_P = greedy(np.argsort(-candidates.value_P, kind="stable"), ends_2P, limits)
    return float(candidates.value_P[chosen_P].sum())


def world(config: AllocationConfig) -> ValuedPairs:
    """Candidates drawn by activity, and their values."""
    rng = np.random.default_rng(config.seed)
    activity_U = rng.pareto(1.5, config.users) + 0.05
    drawn = rng.choice(config.users, (config.songs, 2 * config.candidates), p=activity_U / activity_U.sum())
    key = np.unique(np.arange(config.songs)[:, None] * config.users + drawn)
    key = key[rng.permutation(len(key))]
    key = key[np.argsort(key // config.users, kind="stable")]
    song = key // config.users
    key = key[np.arange(len(key)) - np.searchsorted(song, np.arange(config.songs))[song] < config.candidates]
    song, user = np.divmod(key, config.users)
    of_song, of_user = 0.5 * rng.normal(size=config.songs)[song], np.log1p(activity_U)[user]
    value = 1 / (1 + np.exp(4 - of_song - of_user - config.noise * rng.normal(size=len(key))))
    return ValuedPairs(song, user, value, config.songs)


if __name__ == "__main__":
    command(main, AllocationConfig, __doc__)
