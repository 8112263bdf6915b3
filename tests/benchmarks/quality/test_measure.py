"""Figures, choices on validation and differences over seeds, against loops written from the definitions."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import sparse, stats

from benchmarks.quality.item_cold.folds import Held
from benchmarks.quality.item_cold.measure import POWERS, Scores, both, row, to_songs, to_users, tuned

Toy = tuple[np.ndarray, Held, sparse.csr_matrix]


def toy(users: int = 90, songs: int = 30, seed: int = 0, share: float = 0.15) -> Toy:
    """Scores, held-out plays (users 0 and 1 and song 2 have none) and warm plays, from none to many a user."""
    rng = np.random.default_rng(seed)
    heard = rng.random((users, songs)) < np.linspace(0.02, 2 * share, songs)
    heard[:2] = heard[:, 2] = False
    score = (rng.standard_normal((users, songs)) + heard).astype(np.float32)
    user, song = np.nonzero(heard)
    order = rng.permutation(len(user))
    warm = rng.random((users, 40)) < rng.random((users, 1)) ** 2
    warm[5] = False
    held = Held(np.arange(songs) + 100, user[order], song[order])
    return score, held, sparse.csr_matrix(warm.astype(np.float32))


def ranked(score: np.ndarray, k: int) -> list[int]:
    return sorted((i for i in range(len(score)) if score[i] > -math.inf), key=lambda i: (-score[i], i))[:k]


def naive_to_songs(score: np.ndarray, held: Held, k: int = 20) -> tuple[float, float]:
    recalls, gains = [], []
    for user in range(len(score)):
        truth = {song for u, song in zip(held.user_of, held.position_of, strict=True) if u == user}
        if truth:
            hits = [song in truth for song in ranked(score[user], k)]
            ideal = sum(1 / math.log2(place + 2) for place in range(min(len(truth), k)))
            recalls.append(sum(hits) / len(truth))
            gains.append(sum(hit / math.log2(place + 2) for place, hit in enumerate(hits)) / ideal)
    return float(np.mean(recalls)), float(np.mean(gains))


def naive_recalls(score: np.ndarray, held: Held, plays: sparse.csr_matrix, power: float) -> dict[int, tuple[int, int]]:
    """Hits and listeners of every song that has one."""
    counts = np.asarray(plays.sum(axis=1)).ravel()
    found = {}
    for song in range(score.shape[1]):
        truth = {user for user, s in zip(held.user_of, held.position_of, strict=True) if s == song}
        if truth:
            scaled = np.array([score[user, song] / (counts[user] + 1) ** power for user in range(len(score))])
            found[song] = (len(truth & set(ranked(scaled, 50))), len(truth))
    return found


@pytest.mark.parametrize(("songs", "share"), [(30, 0.15), (12, 0.15), (30, 0.9)])  # of 12 all 20; more true than 20
def test_users_to_songs_is_the_loop(songs: int, share: float) -> None:
    score, held, _ = toy(songs=songs, share=share)
    recall, ndcg = naive_to_songs(score, held)
    assert to_songs(score, held) == pytest.approx({"recall@20": recall, "ndcg@20": ndcg})
    assert ndcg < 1 and (recall < 1 if songs == 30 else recall == 1)


@pytest.mark.parametrize("power", POWERS)
@pytest.mark.parametrize("users", [90, 40])  # 40: fewer than the 50 that are asked for
def test_songs_to_users_is_the_loop(power: float, users: int) -> None:
    score, held, plays = toy(users=users)
    found = naive_recalls(score, held, plays, power)
    got = to_users(score, held, plays, power)
    assert got["songs_to_users_recall@50"] == pytest.approx(np.mean([hits / all_ for hits, all_ in found.values()]))
    assert got["target_users_found@50"] == sum(hits for hits, _ in found.values())


def test_buckets_are_thirds_by_listeners() -> None:
    score, held, plays = toy(songs=31)
    found = naive_recalls(score, held, plays, 0.5)
    order = sorted(found, key=lambda song: (found[song][1], song))
    got = to_users(score, held, plays, 0.5)
    assert len(order) == 30  # song 2 has no listener
    for name, part in zip(("rare", "middle", "popular"), (order[:10], order[10:20], order[20:]), strict=True):
        expected = np.mean([found[song][0] / found[song][1] for song in part])
        assert got[f"songs_to_users_recall@50_{name}"] == pytest.approx(expected)


def test_songs_of_known_and_of_new_artists_are_apart() -> None:
    """Every listener and every song by loops; both kinds together are all."""
    score, held, plays = toy()
    known = np.random.default_rng(5).random(30) < 0.6
    apart = Held(held.songs, held.user_of, held.position_of, known)
    by_song, shuffled = naive_recalls(score, held, plays, 0.5), naive_lists(score)
    got = both(Scores(score, score), apart, plays, 0.5)
    pairs = list(zip(held.user_of.tolist(), held.position_of.tolist(), strict=True))
    for kind, is_kind in (("known_artist", known), ("new_artist", ~known)):
        songs = [song for song in by_song if is_kind[song]]
        expected = np.mean([by_song[song][0] / by_song[song][1] for song in songs])
        assert got[f"songs_to_users_recall@50_{kind}"] == pytest.approx(expected)
        assert got[f"songs_{kind}"] == len(songs) > 5
        recalls = []
        for user in range(len(score)):
            truth = {song for u, song in pairs if u == user and is_kind[song]}
            if truth:
                recalls.append(len(truth & set(shuffled[user])) / len(truth))
        assert got[f"recall@20_{kind}"] == pytest.approx(np.mean(recalls)) and len(set(recalls)) > 3
    without = both(Scores(score, score), held, plays, 0.5)
    assert {key: got[key] for key in without} == without
    assert set(got) - set(without) == {
        f"{name}_{kind}"
        for name in ("songs_to_users_recall@50", "recall@20", "songs")
        for kind in ("known_artist", "new_artist")
    }


def naive_lists(score: np.ndarray) -> list[list[int]]:
    """The first 20 songs of each user."""
    return [ranked(row, 20) for row in score]


def test_a_kind_without_a_song_is_zero() -> None:
    score, held, plays = toy()
    got = both(
        Scores(score, score), Held(held.songs, held.user_of, held.position_of, np.ones(30, dtype=bool)), plays, 0.0
    )
    assert got["songs_new_artist"] == got["recall@20_new_artist"] == got["songs_to_users_recall@50_new_artist"] == 0
    assert got["recall@20_known_artist"] == got["recall@20"]


def test_who_is_not_in_an_audience_is_never_found() -> None:
    score, held, plays = toy(users=40)
    score[::2] = -np.inf
    got = both(Scores(score, score), held, plays)
    assert (got["recall@20"], got["ndcg@20"]) == pytest.approx(naive_to_songs(score, held))
    assert got["target_users_found@50"] == np.sum(held.user_of % 2)  # all 20 others fit into the 50


def test_each_direction_has_its_own_scores() -> None:
    score, held, plays = toy()
    other = score[::-1].copy()
    expected = to_songs(score, held) | to_users(other, held, plays, 0.25)
    assert both(Scores(score, other), held, plays, 0.25) == expected
    assert to_songs(score, held) != to_songs(other, held)


@pytest.mark.parametrize("seed", range(3))
def test_settings_are_chosen_on_validation_alone(seed: int) -> None:
    """Eight settings, as good on validation as chance has it, and best on test where they are worst on validation."""
    (_, val, plays), (_, test, _) = toy(seed=seed), toy(seed=seed + 50)
    rng = np.random.default_rng(seed)
    truth = {part: np.zeros((90, 30), dtype=np.float32) for part in ("cold_val", "cold_test")}
    for part, held in (("cold_val", val), ("cold_test", test)):
        truth[part][held.user_of, held.position_of] = 1
    made = {}
    for number in range(8):
        signal = {"songs": rng.random(), "users": rng.random()}
        made[number] = {
            part: Scores(
                *(
                    (truth[part] * (signal[way] if part == "cold_val" else 1 - signal[way]) + rng.random((90, 30)))
                    .astype(np.float32)
                    for way in ("songs", "users")
                )
            )
            for part in truth
        }  # fmt: skip
    figures, chosen = tuned([(f"n{n}", n) for n in made], POWERS, made.get, {"cold_val": val, "cold_test": test}, plays)

    def songs(n: int, part: str, held: Held) -> float:
        return sum(naive_to_songs(made[n][part].songs, held))

    def users(choice: tuple[int, float], part: str, held: Held) -> float:
        found = naive_recalls(made[choice[0]][part].users, held, plays, choice[1])
        return float(np.mean([hits / all_ for hits, all_ in found.values()]))

    best_songs = max(made, key=lambda n: songs(n, "cold_val", val))
    choices = [(n, power) for n in made for power in POWERS]
    best_users = max(choices, key=lambda choice: users(choice, "cold_val", val))
    assert chosen == {"songs": f"n{best_songs}", "users": f"n{best_users[0]} power={best_users[1]}"}
    scores = (made[best_songs]["cold_test"].songs, made[best_users[0]]["cold_test"].users)
    assert figures == to_songs(scores[0], test) | to_users(scores[1], test, plays, best_users[1])
    assert best_songs != max(made, key=lambda n: songs(n, "cold_test", test))  # or the test would show nothing
    assert best_users != max(choices, key=lambda choice: users(choice, "cold_test", test))


def test_the_first_of_equal_settings_is_kept() -> None:
    score, held, plays = toy()
    parts = {"cold_val": held, "cold_test": held}
    same = {part: Scores(score, score) for part in parts}
    _, chosen = tuned([("a", 0), ("b", 1)], (0.0, 0.0), lambda _: same, parts, plays)
    assert chosen == {"songs": "a", "users": "a power=0.0"}


@pytest.mark.parametrize("seeds", [1, 2, 5])
def test_paired_difference_is_scipys(seeds: int) -> None:
    rng = np.random.default_rng(seeds)
    this, reference = rng.random(seeds), rng.random(seeds)
    runs = [{"x": x, "only_here": 1.0} for x in this]
    alone, got = row(runs, None), row(runs, [{"x": x, "only_there": 1.0} for x in reference])
    assert alone["x"] == got["x"] == pytest.approx(this.mean()) and alone["per_seed"] == runs
    assert got["x_std"] == pytest.approx(np.std(this, ddof=1) if seeds > 1 else 0)
    assert got["x_less"] == pytest.approx(reference.mean() - this.mean())
    assert ("x_less_ci95" in got) == (seeds > 1) and "only_here_less" not in got and "only_there" not in got
    assert not [key for key in alone if "less" in key]
    if seeds > 1:
        interval = stats.ttest_rel(reference, this).confidence_interval(0.95)
        assert got["x_less"] - got["x_less_ci95"] == pytest.approx(interval.low)
        assert got["x_less"] + got["x_less_ci95"] == pytest.approx(interval.high)
