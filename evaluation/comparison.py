"""Methods side by side on the same new songs: what each finds, and differences paired by song, with intervals; and
where FirstPlay finds more than the best baseline, where less: by songs, by their genre, by listeners.

Shapes: C new songs, H of them with a held-out listener, P (song, held-out listener) pairs, B budgets, K users named for
a song, U users.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from configs.targeting import EvaluateConfig
from data.arrays import AnyArray, IntArray
from retrieval.audience import Audience
from retrieval.bootstrap import mean_interval
from retrieval.metrics import hits, ndcg_at_k, overlap, recall_at_k, true_counts

OURS = "FirstPlay I2I2U"  # fixed before anything is measured; other FirstPlay rows are variants of it
TASTE, CAT, RANKED = "FirstPlay taste", "FirstPlay CAT", "FirstPlay, ranked"
GENRES = 8  # the most frequent ones; the others are one bucket
FEW = 5  # songs, below which a genre is among the others
PARTS = (  # what is added, the method with it, the method without it
    ("our weights, untrained vectors", "content kNN, our targeting", "content kNN"),
    ("trained song vectors", OURS, "content kNN, our targeting"),
    ("their contrastive part", OURS, "CB2CF (λ=0)"),
    ("taste in place of I2I2U", TASTE, OURS),
    ("CAT in place of I2I2U", CAT, OURS),
    ("CAT beside I2I2U", "FirstPlay I2I2U ∪ CAT", OURS),
    ("taste beside I2I2U", "FirstPlay I2I2U ∪ taste", OURS),
    ("learned ranking of all channels", RANKED, OURS),
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
    `overlap`: what CAT has in common with other modes. `buckets`: FirstPlay beside the best baseline.

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

    ours_P, base_P = (pairs_found(found[name], listeners, config.budgets[-1]) for name in (OURS, best))
    return {
        "audience": rows,
        "best_baseline": {"method": best, "budget": middle, "held_out_listeners": int(count_H.sum())},
        "differences": [less(name, best) for name in found if name != best],
        "parts": [
            {"part": part, **less(added, without)} for part, added, without in PARTS if {added, without} <= set(found)
        ],
        "overlap": overlaps(found, config.budgets),
        "buckets": {
            "method": OURS,
            "baseline": best,
            "budget": config.budgets[-1],
            "rows": [
                {"by": by, "bucket": name, **in_bucket(listeners[0][of], ours_P[of], base_P[of], config.seed)}
                for by, parts in buckets(listeners, genre_C, plays_U).items()
                for name, of in parts.items()
            ],
        },
    }


def overlaps(found: dict[str, Audience], budgets: list[int]) -> list[dict[str, Any]]:
    """Of CAT's users, the mean share that taste, and that I2I2U, names too, at each budget."""
    return [
        {"method": CAT, "other": other}
        | {f"overlap@{b}": overlap(found[CAT].users_CB[:, :b], found[other].users_CB[:, :b]) for b in budgets}
        for other in (TASTE, OURS)
        if {CAT, other} <= set(found)
    ]


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

    `more_BH` are listeners of each song found more by one method than by another, `count_H` its held-out ones. The
    bootstrap draws the same songs for both methods.
    """
    row: dict[str, Any] = {}
    for budget, more_H in zip(config.budgets, more_BH, strict=True):
        recall_H = more_H / count_H
        row[f"found@{budget}"] = int(more_H.sum())
        row[f"found@{budget}_ci95"] = mean_interval(more_H * len(more_H), config.seed)
        row[f"recall@{budget}"] = float(recall_H.mean())
        row[f"recall@{budget}_ci95"] = mean_interval(recall_H, config.seed)
    return row


def buckets(
    listeners: tuple[IntArray, IntArray], genre_C: AnyArray, plays_U: IntArray
) -> dict[str, dict[str, IntArray]]:
    """Places of the (song, listener) pairs of each bucket, by what they are divided by and its name."""
    song_P, user_P = listeners
    return {
        "held-out listeners of the song": by_listeners(song_P),
        "training plays of the listener": by_activity(plays_U[user_P]),
        "first genre of the song": by_genre(song_P, genre_C),
    }


def by_bucket(users_CB: AnyArray, songs: IntArray, listeners: tuple[IntArray, IntArray]) -> list[dict[str, Any]]:
    """Recall for thirds of the new songs by how many listeners they found: rare, middle, popular."""
    counts = true_counts(songs, *listeners)
    heard = counts[counts > 0]
    recall = recall_at_k(users_CB, songs, *listeners)
    rows = []
    for name, part in song_thirds(heard).items():
        span = [int(heard[part].min()), int(heard[part].max())]
        rows.append({"bucket": name, "songs": len(part), "listeners": span, "recall": float(recall[part].mean())})
    return rows


def song_thirds(count_H: IntArray) -> dict[str, IntArray]:
    """Places of the songs of each third by how many listeners they found, by its name; none is empty."""
    parts = np.array_split(np.argsort(count_H, kind="stable"), 3)
    return {name: part for name, part in zip(("rare", "middle", "popular"), parts, strict=True) if len(part)}


def pairs_found(found: Audience, listeners: tuple[IntArray, IntArray], budget: int) -> AnyArray:
    """Whether each listener is among those named for their song, (P,) bool."""
    song_P, user_P = listeners
    row, rank = np.nonzero(found.users_CB[:, :budget] >= 0)
    return hits(user_P[:, None], song_P, row, found.users_CB[row, rank])[:, 0]


def by_listeners(song_P: IntArray) -> dict[str, IntArray]:
    """Places of the pairs in each third of the songs by how many listeners they found: those of each method's row."""
    _, place_P, count = np.unique(song_P, return_inverse=True, return_counts=True)
    return {
        f"{name}: {count[part].min():,} to {count[part].max():,}": np.flatnonzero(np.isin(place_P, part))
        for name, part in song_thirds(count).items()
    }


def by_activity(plays_P: IntArray) -> dict[str, IntArray]:
    """Places of the pairs in each third by how much their user plays; each user is in one, so they are not even."""
    third_P = np.searchsorted(np.quantile(plays_P, (1 / 3, 2 / 3), method="higher"), plays_P)
    parts = {name: np.flatnonzero(third_P == third) for third, name in enumerate(("fewest", "middle", "most"))}
    return {f"{name}: {plays_P[of].min():,} to {plays_P[of].max():,}": of for name, of in parts.items() if len(of)}


def by_genre(song_P: IntArray, genre_C: AnyArray) -> dict[str, IntArray]:
    """Places of the pairs of each frequent genre, by name, and of all others."""
    heard = genre_C[np.unique(song_P)]
    names, songs = np.unique(heard[heard != ""], return_counts=True)
    most = np.argsort(-songs, kind="stable")[:GENRES]
    often = sorted(names[most[songs[most] >= FEW]])
    parts = {str(name): np.flatnonzero(genre_C[song_P] == name) for name in often}
    parts["other or no genre"] = np.flatnonzero(~np.isin(genre_C[song_P], often))
    return {name: of for name, of in parts.items() if len(of)}


def in_bucket(song_P: IntArray, ours_P: AnyArray, base_P: AnyArray, seed: int) -> dict[str, Any]:
    """Mean over songs of the share of the bucket's listeners that each method found, and the paired difference."""
    songs, place_P = np.unique(song_P, return_inverse=True)
    count = np.bincount(place_P)
    ours, base = (np.bincount(place_P, weights=hit_P) / count for hit_P in (ours_P, base_P))
    return {
        "songs": len(songs),
        "listeners": len(song_P),
        "recall": float(ours.mean()),
        "baseline_recall": float(base.mean()),
        "difference": float((ours - base).mean()),
        "difference_ci95": mean_interval(ours - base, seed),
    }
