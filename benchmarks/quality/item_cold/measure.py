"""Figures of a score matrix in both directions, the choice of settings on validation, and what differs over seeds.

Shapes: U users, C cold songs.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import sparse

from benchmarks.measure import half_interval
from benchmarks.quality.item_cold.folds import Held
from data.arrays import AnyArray, BoolArray, FloatArray
from retrieval.audience import top_users
from retrieval.metrics import hits, ndcg_at_k, recall_at_k, true_counts

SONGS, USERS = 20, 50  # K of users → songs, and of songs → users
POWERS = (0.0, 0.25, 0.5, 1.0)  # a user's score is divided by (their plays + 1) to this power, songs → users
TO_SONGS, TO_USERS = f"recall@{SONGS}", f"songs_to_users_recall@{USERS}"
BUCKETS = ("rare", "middle", "popular")
ARTISTS = ("known_artist", "new_artist")  # whether a new song's artist has a known song
OVERLAPS = (f"overlap_with_taste@{USERS}", f"overlap_with_i2i2u@{USERS}")  # of CAT's audiences


@dataclass
class Scores:
    """What a method says: for users who look for songs, and for songs that look for users, each (U, C)."""

    songs: FloatArray
    users: FloatArray


def to_songs(score_UC: FloatArray, held: Held) -> dict[str, float]:
    """Every user with a held-out play ranks the cold songs: Recall@20 and NDCG@20, mean over users.

    Apart for songs of known and of new artists: of such held-out plays of a user the share that is among the same 20.
    """
    users = np.unique(held.user_of)
    # Ties go to a lower number, and published files often number the popular items first: so the songs are shuffled.
    shuffled = np.random.default_rng(0).permutation(score_UC.shape[1])
    at = top_users(score_UC[users][:, shuffled], SONGS).users_CB
    found = np.where(at >= 0, shuffled[at], -1)
    truth = (found, users, held.user_of, held.position_of)
    result = {TO_SONGS: float(recall_at_k(*truth).mean()), f"ndcg@{SONGS}": float(ndcg_at_k(*truth).mean())}
    for kind, is_kind_C in by_artist(held).items():
        of_kind = is_kind_C[held.position_of]
        recall = recall_at_k(found, users, held.user_of[of_kind], held.position_of[of_kind])
        result[f"{TO_SONGS}_{kind}"] = float(recall.mean()) if len(recall) else 0.0
    return result


def to_users(score_UC: FloatArray, held: Held, plays_UW: sparse.csr_matrix, power: float) -> dict[str, float]:
    """Every cold song ranks all users: Recall@50, mean over songs and over thirds of them, and listeners found.

    Apart for songs of known and of new artists: also how many of them have a listener.
    """
    scale_U = (np.diff(plays_UW.indptr) + 1.0) ** -power
    songs = np.arange(score_UC.shape[1])
    found = top_users((score_UC * scale_U[:, None].astype(np.float32)).T, USERS).users_CB
    truth = (found, songs, held.position_of, held.user_of)
    recall = recall_at_k(*truth)
    result = {TO_USERS: float(recall.mean()), f"target_users_found@{USERS}": float(hits(*truth).sum())}
    heard = true_counts(songs, held.position_of, held.user_of)
    order = np.argsort(heard[heard > 0], kind="stable")
    for bucket, part in zip(BUCKETS, np.array_split(order, len(BUCKETS)), strict=True):
        result[f"{TO_USERS}_{bucket}"] = float(recall[part].mean()) if len(part) else 0.0
    for kind, is_kind_C in by_artist(held).items():
        of_kind = is_kind_C[heard > 0]
        result[f"{TO_USERS}_{kind}"] = float(recall[of_kind].mean()) if of_kind.any() else 0.0
        result[f"songs_{kind}"] = float(of_kind.sum())
    return result


def by_artist(held: Held) -> dict[str, BoolArray]:
    """Which songs are of a known artist and which of a new one, each (C,); nothing where there are no artists."""
    known_C = held.known_artist_C
    return {} if known_C is None else dict(zip(ARTISTS, (known_C, ~known_C), strict=True))


def both(scores: Scores, held: Held, plays_UW: sparse.csr_matrix, power: float = 0.0) -> dict[str, float]:
    """All figures of one method."""
    return to_songs(scores.songs, held) | to_users(scores.users, held, plays_UW, power)


def tuned(
    settings: Iterable[tuple[str, Any]], powers: Sequence[float], score_of: Any, parts: dict[str, Held], plays: Any
) -> tuple[dict[str, float], dict[str, str]]:
    """Test figures of the settings that do best on validation, chosen for each direction apart; and which these were.

    `score_of(setting)` gives the scores of both parts, `{"cold_val": Scores, "cold_test": Scores}`.
    """
    best: dict[str, tuple[float, str, dict[str, float]]] = {}
    for name, setting in settings:
        scores = score_of(setting)
        val, test = scores["cold_val"], scores["cold_test"]
        figures = to_songs(val.songs, parts["cold_val"])
        value = figures[TO_SONGS] + figures[f"ndcg@{SONGS}"]
        if value > best.get("songs", (-1.0,))[0]:
            best["songs"] = (value, name, to_songs(test.songs, parts["cold_test"]))
        for power in powers:
            value = to_users(val.users, parts["cold_val"], plays, power)[TO_USERS]
            if value > best.get("users", (-1.0,))[0]:
                found = to_users(test.users, parts["cold_test"], plays, power)
                best["users"] = (value, f"{name} power={power}", found)
    return best["songs"][2] | best["users"][2], {way: one[1] for way, one in best.items()}


def row(runs: Sequence[dict[str, float]], reference: Sequence[dict[str, float]] | None) -> dict[str, Any]:
    """Mean and standard deviation over seeds of every figure, and the paired difference to `reference`.

    `…_less` is the mean of reference − this over the same seeds, `…_less_ci95` half its 95 % interval (Student's t).
    """
    result: dict[str, Any] = {}
    for key in runs[0]:
        values = np.array([run[key] for run in runs])
        result[key], result[f"{key}_std"] = float(values.mean()), spread(values)
        if reference is not None and key in reference[0]:
            less = np.array([run[key] for run in reference]) - values
            result[f"{key}_less"] = float(less.mean())
            if len(less) > 1:
                result[f"{key}_less_ci95"] = half_interval(less)
    return result | {"per_seed": list(runs)}


def rows_of(data: str, features: str, of_set: dict[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """JSON rows of one feature set; differences are to `firstplay` where it ran."""
    reference = [numbers(run) for run in of_set["firstplay"]] if "firstplay" in of_set else None
    return [
        {"data": data, "method": method, "features": features, "seeds": len(runs)}
        | row([numbers(run) for run in runs], reference if method != "firstplay" else None)
        | {"chosen": [run["chosen"] for run in runs]}
        for method, runs in of_set.items()
    ]


def numbers(run: dict[str, Any]) -> dict[str, float]:
    """The figures among a run's entries."""
    return {key: value for key, value in run.items() if isinstance(value, int | float)}


def spread(values: AnyArray) -> float:
    """Standard deviation over seeds; 0 for a single one."""
    return float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
