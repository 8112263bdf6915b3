"""Methods side by side on the same new songs: what each finds, and differences paired by song, with intervals.

Shapes: C new songs, H of them with a held-out listener, B budgets, K users named for a song.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from configs.targeting import EvaluateConfig
from data.arrays import AnyArray, IntArray
from evaluation.buckets import buckets, by_bucket
from retrieval.audience import Audience
from retrieval.bootstrap import mean_interval
from retrieval.metrics import hits, ndcg_at_k, recall_at_k, true_counts

OURS = "FirstPlay I2I2U"  # fixed before anything is measured; other FirstPlay rows are variants of it
PARTS = (  # what is added, the method with it, the method without it
    ("our weights, untrained vectors", "content kNN, our targeting", "content kNN"),
    ("trained song vectors", OURS, "content kNN, our targeting"),
    ("their contrastive part", OURS, "CB2CF (λ=0)"),
    ("CAT in place of I2I2U", "FirstPlay CAT", OURS),
    ("CAT beside I2I2U", "FirstPlay I2I2U ∪ CAT", OURS),
    ("gate on I2I2U", "FirstPlay I2I2U, gated", OURS),
    ("boundary on U2I", "FirstPlay U2I boundary", "FirstPlay U2I, no boundary"),
)


def is_ours(method: str) -> bool:
    """Whether a row of the comparison is FirstPlay or a variant of it, and no baseline."""
    return method.startswith("FirstPlay")


def compare(
    found: dict[str, Audience],
    listeners: tuple[IntArray, IntArray],
    genre_C: AnyArray,
    plays_U: IntArray,
    config: EvaluateConfig,
) -> dict[str, Any]:
    """The comparison's part of metrics.json.

    `audience`: a row a method. `best_baseline`: the one that finds most listeners at the middle budget, chosen on these
    same songs, in its favour. `differences`: every method less that one. `parts`: with a part less without it.
    `buckets`: FirstPlay beside the best baseline.

    Args:
        found: audiences by method.
        listeners: (place of the song, user) of each held-out listening.
        genre_C: first genre of each new song, "" for none.
        plays_U: training plays of each user.
        config: budgets, and the seed of the bootstrap.
    """
    rows = [score(name, audience, listeners, config) for name, audience in found.items()]
    middle = config.budgets[len(config.budgets) // 2]
    baselines = [row for row in rows if not is_ours(row["method"])]
    best = max(baselines, key=lambda row: row[f"target_users_found@{middle}"])["method"]
    found_BH = {name: found_by_song(audience, listeners, config.budgets) for name, audience in found.items()}
    count_H = true_counts(np.unique(listeners[0]), *listeners)

    def less(method: str, other: str) -> dict[str, Any]:
        names = {"method": method, "less": other}
        return names | difference(found_BH[method] - found_BH[other], count_H, config)

    return {
        "audience": rows,
        "best_baseline": {"method": best, "budget": middle, "held_out_listeners": int(count_H.sum())},
        "differences": [less(name, best) for name in found if name != best],
        "parts": [
            {"part": part, **less(added, without)} for part, added, without in PARTS if {added, without} <= set(found)
        ],
        "buckets": buckets(OURS, best, found, listeners, genre_C, plays_U, config),
    }


def score(name: str, found: Audience, listeners: tuple[IntArray, IntArray], config: EvaluateConfig) -> dict[str, Any]:
    """One row of the comparison: target users found and recall at each budget, NDCG, by bucket, with an interval."""
    songs = np.arange(len(found.users_CB))
    row: dict[str, Any] = {"method": name}
    for budget in config.budgets:
        top = found.users_CB[:, :budget]
        hit = hits(top, songs, *listeners)
        recall = recall_at_k(top, songs, *listeners)
        row[f"target_users_found@{budget}"] = int(hit.sum())
        row[f"reached@{budget}"] = int((top >= 0).sum())
        row[f"recall@{budget}"] = float(recall.mean())
        row[f"recall@{budget}_ci95"] = mean_interval(recall, config.seed)
        row[f"ndcg@{budget}"] = float(ndcg_at_k(top, songs, *listeners).mean())
    row["by_listeners"] = by_bucket(found.users_CB[:, : config.budgets[-1]], songs, listeners)
    return row


def found_by_song(found: Audience, listeners: tuple[IntArray, IntArray], budgets: list[int]) -> IntArray:
    """Held-out listeners found at each budget, for each song that has one, (B, H)."""
    heard = np.unique(listeners[0])
    hit_HK = hits(found.users_CB[heard], heard, *listeners)
    return np.stack([hit_HK[:, :budget].sum(axis=1) for budget in budgets])


def difference(more_BH: IntArray, count_H: IntArray, config: EvaluateConfig) -> dict[str, Any]:
    """How many listeners more were found in all, and how much greater recall is, at each budget, with intervals.

    Args:
        more_BH: listeners found more by one method than by another, for each song.
        count_H: its held-out listeners.
        config: budgets, and the seed of the bootstrap, which draws the same songs for both methods.
    """
    row: dict[str, Any] = {}
    for budget, more_H in zip(config.budgets, more_BH, strict=True):
        recall_H = more_H / count_H
        row[f"found@{budget}"] = int(more_H.sum())
        row[f"found@{budget}_ci95"] = mean_interval(more_H * len(more_H), config.seed)
        row[f"recall@{budget}"] = float(recall_H.mean())
        row[f"recall@{budget}_ci95"] = mean_interval(recall_H, config.seed)
    return row
