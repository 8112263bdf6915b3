"""The comparison of methods, its paired differences, parts and buckets, against naive counts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from configs.targeting import EvaluateConfig
from evaluation import comparison
from evaluation.comparison import by_bucket
from retrieval.audience import Audience
from retrieval.bootstrap import mean_interval
from retrieval.metrics import ndcg_at_k

CONFIG = EvaluateConfig(budgets=[3, 7, 12])
METHODS = ("random", "content kNN", "content kNN, our targeting", comparison.OURS, "FirstPlay CAT")
GENRES = np.array(["folk"] * 7 + ["rock"] * 6 + ["", "jazz", "jazz", ""])
PLAYS = np.arange(40) // 3


def naive_recall(users_CB: np.ndarray, listeners: tuple[np.ndarray, np.ndarray]) -> dict[int, tuple[int, float]]:
    """Song → (listeners, recall), by sets."""
    found = {}
    for song in range(len(users_CB)):
        true = {int(user) for row, user in zip(*listeners, strict=True) if row == song}
        if true:
            found[song] = (len(true), len(true & {int(user) for user in users_CB[song]} - {-1}) / len(true))
    return found


def draw(seed: int, songs: int = 17, users: int = 40, budget: int = 12) -> tuple[Audience, tuple[Any, Any]]:
    rng = np.random.default_rng(seed)
    users_CB = np.stack([rng.permutation(users)[:budget] for _ in range(songs)])
    users_CB[2, 4:], users_CB[5] = -1, -1
    true = np.unique(np.stack([rng.integers(0, songs, 150), rng.integers(0, users, 150)], axis=1), axis=0)
    true = true[~np.isin(true[:, 0], [3, 9])]  # two songs without a listener
    return Audience(users_CB, np.zeros(users_CB.shape)), (true[:, 0], true[:, 1])


@pytest.mark.parametrize("seed", range(4))
def test_a_row_of_the_comparison_is_that_of_a_naive_count(seed: int) -> None:
    audience, listeners = draw(seed)
    row = comparison.score("ours", audience, listeners, CONFIG)
    true = set(zip(*map(np.ndarray.tolist, listeners), strict=True))
    for budget in (3, 7, 12):
        reached = [
            (c, int(user)) for c, users in enumerate(audience.users_CB[:, :budget]) for user in users if user >= 0
        ]
        recall = [share for _, share in naive_recall(audience.users_CB[:, :budget], listeners).values()]
        assert row[f"reached@{budget}"] == len(reached)
        assert row[f"target_users_found@{budget}"] == sum(pair in true for pair in reached)
        assert row[f"recall@{budget}"] == pytest.approx(np.mean(recall))
        assert row[f"recall@{budget}_ci95"] == mean_interval(np.array(recall), 0)
        songs = np.arange(17)
        assert row[f"ndcg@{budget}"] == ndcg_at_k(audience.users_CB[:, :budget], songs, *listeners).mean()
    assert row["by_listeners"] == by_bucket(audience.users_CB, np.arange(17), listeners)


@pytest.mark.parametrize("seed", range(4))
def test_buckets_are_thirds_of_the_songs_by_listeners(seed: int) -> None:
    audience, listeners = draw(seed)
    songs = naive_recall(audience.users_CB, listeners)
    rows = by_bucket(audience.users_CB, np.arange(17), listeners)
    assert [row["bucket"] for row in rows] == ["rare", "middle", "popular"] and [r["songs"] for r in rows] == [5, 5, 5]
    ordered = sorted(songs, key=lambda song: songs[song][0])
    for place, row in enumerate(rows):
        part = [songs[song] for song in ordered[5 * place : 5 * place + 5]]
        assert row["listeners"] == [part[0][0], part[-1][0]]
        assert row["recall"] == pytest.approx(np.mean([share for _, share in part]))
    rows = by_bucket(np.array([[0], [1]]), np.arange(2), (np.array([0, 1, 1]), np.array([0, 0, 2])))
    assert [row["bucket"] for row in rows] == ["rare", "middle"], "two songs have no third third"


# --------------------------------------------------------------------------------------- differences and parts


def compared(seed: int) -> tuple[dict[str, Any], dict[str, Audience], list[tuple[int, int]]]:
    """A comparison of five methods, of which ours finds most; listeners in no order."""
    rng = np.random.default_rng(seed)
    _, listeners = draw(seed)
    order = rng.permutation(len(listeners[0]))
    listeners = (listeners[0][order], listeners[1][order])
    pairs = [(int(song), int(user)) for song, user in zip(*listeners, strict=True)]
    found = {}
    for place, name in enumerate(METHODS):
        lift = np.zeros((17, 40))
        lift[listeners] = 0.1 * place
        users_CB = np.argsort(-(rng.random((17, 40)) + lift), axis=1)[:, :12]
        found[name] = Audience(users_CB, np.zeros(users_CB.shape))
    return comparison.compare(found, listeners, GENRES, PLAYS, CONFIG), found, pairs


def naive_difference(one: Audience, other: Audience, pairs: list[tuple[int, int]], budget: int) -> dict[str, Any]:
    """By sets, and songs drawn one list after another."""
    songs = sorted({song for song, _ in pairs})
    more, share = [], []
    for song in songs:
        true = {user for at, user in pairs if at == song}
        hit = [len(true & set(a.users_CB[song, :budget].tolist())) for a in (one, other)]
        more.append(hit[0] - hit[1])
        share.append((hit[0] - hit[1]) / len(true))
    rng = np.random.default_rng(CONFIG.seed)
    drawn = [rng.integers(0, len(songs), len(songs)) for _ in range(2000)]
    result: dict[str, Any] = {f"found@{budget}": sum(more), f"recall@{budget}": np.mean(share)}
    sums, means = [np.array(more)[at].sum() for at in drawn], [np.array(share)[at].mean() for at in drawn]
    return result | {f"found@{budget}_ci95": np.quantile(sums, (0.025, 0.975)).tolist()} | {
        f"recall@{budget}_ci95": np.quantile(means, (0.025, 0.975)).tolist()
    }  # fmt: skip


@pytest.mark.parametrize("seed", range(3))
def test_differences_are_paired_by_song_and_from_the_best_baseline(seed: int) -> None:
    result, found, pairs = compared(seed)
    rows = {row["method"]: row for row in result["audience"]}
    baselines = METHODS[:3]
    best = max(baselines, key=lambda name: rows[name]["target_users_found@7"])
    assert result["best_baseline"] == {"method": best, "budget": 7, "held_out_listeners": len(pairs)}
    assert [row["method"] for row in result["differences"]] == [name for name in METHODS if name != best]
    for row in result["differences"]:
        assert row["less"] == best
        for budget in CONFIG.budgets:
            naive = naive_difference(found[row["method"]], found[best], pairs, budget)
            assert {key: row[key] for key in naive} == {key: pytest.approx(value) for key, value in naive.items()}
            less = [rows[name][f"target_users_found@{budget}"] for name in (row["method"], best)]
            assert row[f"found@{budget}"] == less[0] - less[1], "the two rows of the table differ by as much"


def test_parts_are_the_pairs_whose_methods_are_there() -> None:
    result, found, pairs = compared(0)
    assert [row["part"] for row in result["parts"]] == [
        "our weights, untrained vectors", "trained song vectors", "CAT in place of I2I2U"
    ]  # fmt: skip
    for row in result["parts"]:
        naive = naive_difference(found[row["method"]], found[row["less"]], pairs, 12)
        assert {key: row[key] for key in naive} == {key: pytest.approx(value) for key, value in naive.items()}


# ------------------------------------------------------------------------------------------------- buckets


@pytest.mark.parametrize("seed", range(3))
def test_buckets_are_counted_among_their_listeners_alone(seed: int) -> None:
    result, found, pairs = compared(seed)
    best, rows = result["best_baseline"]["method"], {row["method"]: row for row in result["audience"]}
    drawn = result["buckets"]
    assert (drawn["method"], drawn["baseline"], drawn["budget"]) == (comparison.OURS, best, 12)
    for by in dict.fromkeys(row["by"] for row in drawn["rows"]):
        assert sum(row["listeners"] for row in drawn["rows"] if row["by"] == by) == len(pairs), "each in one bucket"
    thirds = [row for row in drawn["rows"] if row["by"] == "held-out listeners of the song"]
    for bucket, ours, base in zip(
        thirds, *(rows[name]["by_listeners"] for name in (comparison.OURS, best)), strict=True
    ):
        low, high = ours["listeners"]
        assert bucket["bucket"] == f"{ours['bucket']}: {low} to {high}" and bucket["songs"] == ours["songs"]
        assert bucket["recall"] == pytest.approx(ours["recall"]), "as in the method's own row"
        assert bucket["baseline_recall"] == pytest.approx(base["recall"])
    active = [row for row in drawn["rows"] if row["by"] == "training plays of the listener"]
    cut = [tuple(map(int, row["bucket"].split(": ")[1].split(" to "))) for row in active]
    genres = [row for row in drawn["rows"] if row["by"] == "first genre of the song"]
    assert [row["bucket"] for row in genres] == ["folk", "rock", "other or no genre"], "jazz has too few songs"
    inside = [lambda _, user, ends=ends: ends[0] <= PLAYS[user] <= ends[1] for ends in cut]
    inside += [lambda song, _, name=name: GENRES[song] == name for name in ("folk", "rock")]
    for bucket, of in zip(active + genres[:2], inside, strict=True):
        part = [pair for pair in pairs if of(*pair)]
        naive = naive_difference(found[comparison.OURS], found[best], part, 12)
        assert (bucket["songs"], bucket["listeners"]) == (len({song for song, _ in part}), len(part))
        assert bucket["difference"] == pytest.approx(naive["recall@12"])
        assert bucket["difference_ci95"] == pytest.approx(naive["recall@12_ci95"])
        assert bucket["recall"] - bucket["baseline_recall"] == pytest.approx(bucket["difference"])


def test_users_who_play_alike_are_in_one_bucket() -> None:
    plays = np.array([5] * 7 + [9, 9, 40])
    parts = comparison.by_activity(plays)
    assert [(name, len(of)) for name, of in parts.items()] == [("fewest: 5 to 5", 7), ("most: 9 to 40", 3)]
    assert list(comparison.by_activity(np.full(4, 2))) == ["fewest: 2 to 2"]


def test_more_genres_than_are_shown_are_one_bucket() -> None:
    genre = np.repeat([f"g{i}" for i in range(comparison.GENRES + 2)], comparison.FEW)
    parts = comparison.by_genre(np.arange(len(genre)), genre)
    assert list(parts) == [f"g{i}" for i in range(comparison.GENRES)] + ["other or no genre"]
    assert len(parts["other or no genre"]) == 2 * comparison.FEW
    assert list(comparison.by_genre(np.arange(3), np.array(["", "", ""]))) == ["other or no genre"]
