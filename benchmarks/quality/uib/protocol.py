"""Who is ranked among whom, and the figures of it.

Shapes: U users, I artists, D vector size, N artists against one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from data.arrays import FloatArray, IntArray
from data.contract.dataset import Dataset

MINIMUM, AGAINST = 5, 100


@dataclass
class Plays:
    """(user, artist) rows (N, 2), each once, by user; the published ids of both by row number."""

    pairs: IntArray
    users: list[str]
    artists: list[str]


@dataclass
class Split:
    """Training rows (N, 2); of each user the held-out artist and those it is ranked among, (U,) and (U, 100)."""

    train: IntArray
    val: IntArray
    test: IntArray
    val_against: IntArray
    test_against: IntArray


def read_plays(dataset: Dataset) -> Plays:
    """Users with at least five artists, and the artists that one of them played."""
    pairs = dataset.plays.select("user_id", "song_id").unique()
    enough = pairs.group_by("user_id").len().filter(pl.col("len") >= MINIMUM)
    pairs = pairs.join(enough, on="user_id", how="semi")
    numbers = [sorted(pairs[name].unique().to_list(), key=int) for name in ("user_id", "song_id")]
    rows = [
        pairs[name].replace_strict(ids, np.arange(len(ids))).to_numpy()
        for name, ids in zip(("user_id", "song_id"), numbers, strict=True)
    ]
    table = np.stack(rows, axis=1).astype(np.int64)
    return Plays(table[np.lexsort((table[:, 1], table[:, 0]))], *numbers)


def deal(plays: Plays, seed: int) -> Split:
    """Hold out two artists of each user, and draw whom they are ranked among."""
    rng = np.random.default_rng(seed)
    mixed = plays.pairs[rng.permutation(len(plays.pairs))]
    mixed = mixed[np.argsort(mixed[:, 0], kind="stable")]
    first = np.flatnonzero(np.diff(mixed[:, 0], prepend=-1))
    kept = np.ones(len(mixed), dtype=bool)
    kept[first] = kept[first + 1] = False

    def against() -> IntArray:
        key = rng.random((len(plays.users), len(plays.artists)), dtype=np.float32)
        key[tuple(plays.pairs.T)] = np.inf  # the smallest keys: uniform, each artist once, none that they played
        return np.argpartition(key, AGAINST, axis=1)[:, :AGAINST]

    return Split(mixed[kept], mixed[first + 1, 1], mixed[first, 1], against(), against())


def judged(split: Split, item_ID: FloatArray, user_UD: FloatArray, boundary_U: FloatArray) -> tuple[float, Any]:
    """Validation NDCG@10, and the test figures."""

    def margins(positive_U: IntArray, against_UN: IntArray) -> tuple[FloatArray, FloatArray]:
        asked = np.concatenate([positive_U[:, None], against_UN], axis=1)
        margin = np.einsum("ud,und->un", user_UD, item_ID[asked]) - boundary_U[:, None]
        return margin[:, 0], margin[:, 1:]

    val, test = margins(split.val, split.val_against), margins(split.test, split.test_against)
    found = figures(*test)
    if boundary_U.any():
        cuts = np.quantile(val[1], np.linspace(0.9, 0.9999, 200))
        best = max(cuts, key=lambda cut: f1(*val, cut))
        found |= {"F1": f1(*test, 0.0), "F1, margin chosen": f1(*test, best)}
    return figures(*val)["NDCG@10"], found


def figures(positive_U: FloatArray, negative_UN: FloatArray) -> dict[str, float]:
    """HIT, NDCG and MRR of one positive among its negatives; equal scores are ahead of it."""
    rank = 1 + (negative_UN >= positive_U[:, None]).sum(axis=1)
    near = rank <= 10
    return {
        "HIT@1": float((rank == 1).mean()),
        "HIT@10": float(near.mean()),
        "NDCG@10": float((near / np.log2(rank + 1)).mean()),
        "MRR@10": float((near / rank).mean()),
    }


def f1(positive_U: FloatArray, negative_UN: FloatArray, cut: float) -> float:
    """F1 of what is above the cut, over all users together."""
    right, wrong = (positive_U > cut).sum(), (negative_UN > cut).sum()
    return float(2 * right / max(1, len(positive_U) + right + wrong))
