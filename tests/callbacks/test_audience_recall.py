"""Do new songs find their listeners, and listeners new songs: against brute force, and as what chooses best.ckpt."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import sparse

from callbacks.audience_recall import AudienceRecall
from callbacks.checkpoint import BEST
from configs.targeting import TargetingConfig
from inference.targeting import options_of
from tests.callbacks.test_index_recall import recall

OPTIONS = options_of(TargetingConfig())
USERS, KNOWN, D = 14, 9, 5
SONG_IDS, NEW_IDS = np.arange(KNOWN) * 2, np.array([1, 3, 5, 7, 9])  # known songs 0, 2 … 16; the others are new


class Data:
    """Listening of 14 users, of whom 4 and 11 never played a known song."""

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        self.dense = rng.integers(1, 4, (USERS, 18)) * (rng.random((USERS, 18)) < 0.5)
        self.dense[:, 1::2] = 0
        self.dense[[4, 11]] = 0
        self.listeners = np.array([(song, user) for song in NEW_IDS[:4] for user in rng.permutation(USERS)[:5]])
        self.listeners[0], self.listeners[5] = (1, 4), (3, 11)  # two of these are of users without a play
        self.listeners = np.unique(self.listeners, axis=0)

    @property
    def listening(self) -> sparse.csr_matrix:
        return sparse.csr_matrix(self.dense.astype(np.float32))

    def val_listeners(self) -> tuple[np.ndarray, np.ndarray]:
        return self.listeners[:, 0], self.listeners[:, 1]

    def val_positives(self) -> tuple[np.ndarray, np.ndarray]:
        return np.array([1, 1, 3]), np.array([0, 2, 4])


def brute(
    dense: np.ndarray, listeners: set[tuple[int, int]], known: dict[int, np.ndarray], new: dict[int, np.ndarray],
    n_users: int, k: int, mode: str = "taste",
) -> tuple[float, float]:  # fmt: skip
    """Recall of listeners (song, user) among `n_users` a song, and of songs among `k` a user."""
    taste_UD = sum(np.outer(dense[:, song], vector.astype(np.float64)) for song, vector in known.items())
    users = np.flatnonzero(np.any(taste_UD, axis=1))
    taste_UD = taste_UD[users] / np.linalg.norm(taste_UD[users], axis=1, keepdims=True)
    scores = np.stack([one / np.linalg.norm(one) for one in new.values()]) @ taste_UD.T
    if mode == "i2i2u":
        scores = np.stack([through_similar(dense[users], dense, known, one) for one in new.values()])
    by_song = recall(scores, listeners, new, users, n_users)
    return by_song, recall(scores.T, {(user, song) for song, user in listeners}, users, new, k)


def through_similar(heard: np.ndarray, dense: np.ndarray, known: dict[int, np.ndarray], new: np.ndarray) -> np.ndarray:
    """I2I2U scores of some users by the 100 nearest known songs, popular ones weighing less."""
    score, near = np.zeros(len(heard)), sorted(known, key=lambda song: -float(known[song] @ new))[:100]
    similarity = [float(known[song] @ new) for song in near]
    for song, one in zip(near, similarity, strict=True):
        weight = 0.01 + 0.99 * (one - similarity[-1]) / (similarity[0] - similarity[-1])
        score += weight * ((dense[:, song] > 0).sum() + 1) ** -0.5 * heard[:, song]
    return score


@pytest.mark.parametrize(("k", "users"), [(1, 3), (2, 6), (50, 100)])
@pytest.mark.parametrize("mode", ["i2i2u", "taste"])
def test_figures_against_brute_force(k: int, users: int, mode: Any) -> None:
    data, rng = Data(), np.random.default_rng(0)
    known, new = (rng.standard_normal((n, D)).astype(np.float32) for n in (KNOWN, len(NEW_IDS)))
    options = OPTIONS if k > 1 else replace(OPTIONS, memory_mb=1e-6)  # one at a time
    of_items, of_queries = {"id": SONG_IDS, "vector": known}, {"id": NEW_IDS, "vector": new}
    found = AudienceRecall(k, users, mode, options).measure(of_items, of_queries, data)
    pairs = set(map(tuple, data.listeners.tolist()))
    given = (dict(zip(SONG_IDS, known, strict=True)), dict(zip(NEW_IDS, new, strict=True)))
    by_song, by_user = brute(data.dense, pairs, *given, users, k, mode)
    assert found[f"val/listeners_recall@{users}"] == pytest.approx(by_song, abs=1e-6)
    assert found[f"val/songs_recall@{k}"] == pytest.approx(by_user, abs=1e-6)
    assert found["val/audience"] == pytest.approx((by_song + by_user) / 2, abs=1e-6)
    assert {f"val/recall@{k}", f"val/ndcg@{k}"} < found.keys(), "the neighbours' recall stays"
    if k == 50:
        assert by_user == 1.0 and 0 < by_song < 1.0


def test_a_real_run_keeps_its_best_epoch(i2i_run: Path) -> None:
    """What train.py writes down as best is the highest `val/audience` of the log, and best.ckpt is of that epoch."""
    with (i2i_run / "logs" / "metrics.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["val/audience"]]
    values = [float(row["val/audience"]) for row in rows]
    halves = [(float(r["val/listeners_recall@50"]) + float(r["val/songs_recall@20"])) / 2 for r in rows]
    assert values == pytest.approx(halves, abs=1e-6)
    best = json.loads((i2i_run / "manifest.json").read_text())["best"]["val/audience"]
    assert len(values) == 3 and best == pytest.approx(max(values), abs=1e-6) and 0 < best <= 1
    checkpoint = torch.load(i2i_run / "checkpoints" / BEST, weights_only=True)
    assert checkpoint["epoch"] == values.index(max(values))


@pytest.mark.parametrize("mode", ["i2i2u", "taste"])
def test_a_real_run_logs_the_true_figures(
    mode: str, train_i2i: Callable[..., Path], catalogue: Any, tmp_path: Path
) -> None:
    """The best checkpoint, encoded and ranked by hand, has the figures that the run wrote down.

    Few users a song and one song a user, so that they are not all 1.
    """
    from inference.vectors import encode_songs

    hard_run = train_i2i(tmp_path / "i2i", "recall_k=1", "recall_users=7", f"recall_mode={mode}", "trainer.epochs=2")
    found = encode_songs(hard_run)[1]["vector"]
    dense = np.zeros((catalogue.n_users, catalogue.n_songs))
    for user, song, strength in catalogue.plays.select("user", "song", "strength").iter_rows():
        if strength > 0:
            dense[user, song] = max(dense[user, song], strength)
    plays = catalogue.cold_plays.select("song", "user", "strength").rows()
    asked = set(catalogue.rows("cold_val").tolist())
    listeners = {(song, user) for song, user, strength in plays if strength > 0 and song in asked}
    known, new = ({int(song): found[song] for song in catalogue.rows(name)} for name in ("warm", "cold_val"))
    by_song, by_user = brute(dense, listeners, known, new, n_users=7, k=1, mode=mode)
    best = json.loads((hard_run / "manifest.json").read_text())["best"]["val/audience"]
    assert best == pytest.approx((by_song + by_user) / 2, abs=1e-6) and 0.05 < best < 0.95
    query_of, item_of = catalogue.pairs("val_pairs")
    recalls = []
    for query in asked:
        wanted = set(item_of[query_of == query].tolist())
        nearest = max(known, key=lambda song, query=query: float(known[song] @ new[query]))  # type: ignore[misc]
        recalls.append(len(wanted & {nearest}) / len(wanted))
    with (hard_run / "logs" / "metrics.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["val/audience"]]
    (logged,) = [float(row["val/recall@1"]) for row in rows if float(row["val/audience"]) == pytest.approx(best)]
    assert logged == pytest.approx(np.mean(recalls), abs=1e-6)
