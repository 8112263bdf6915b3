"""Halves of users' histories: what is drawn, how it is cut, and how often a song is a candidate."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import sparse

from configs.errors import UserError
from datamodules.i2i import I2IDataModule
from datamodules.listening import Listening

USERS, SONGS, WARM = 12, 20, np.arange(15)  # songs 15 … 19 are cold: no play, no draw
COUNTS = [0, 1, 2, 3, 3, 4, 5, 7, 10, 15, 1, 2]  # songs of each user


def matrix(seed: int = 0) -> sparse.csr_matrix:
    """Strength 1 … 3 of each user on some of the warm songs; song 14 has one listener alone."""
    rng = np.random.default_rng(seed)
    dense = np.zeros((USERS, SONGS), dtype=np.float32)
    for user, count in enumerate(COUNTS):
        songs = rng.permutation(14)[: min(count, 14)]
        dense[user, songs] = rng.integers(1, 4, len(songs))
    dense[9, 14] = 2
    return sparse.csr_matrix(dense)


def rows(listening: Listening, seed: int = 0) -> list[tuple[list[int], dict[int, float], set[int]]]:
    """The songs of a draw, and of each of its users what is heard (with strength) and what is wanted."""
    songs, item = listening.draw(np.random.default_rng(seed))
    found = []
    for heard, wanted in zip(item["heard"].numpy(), item["wanted"].numpy(), strict=True):
        strengths = {int(song): float(value) for song, value in zip(songs, heard, strict=True) if value != 0}
        found.append((songs.tolist(), strengths, {int(song) for song in songs[wanted]}))
    return found


def whose(heard: dict[int, float], wanted: set[int], dense: np.ndarray) -> list[int]:
    """Users whose songs these may be."""
    return [u for u in range(USERS) if all(dense[u, s] == v for s, v in heard.items()) and all(dense[u, list(wanted)])]


@pytest.mark.parametrize("history", [2, 3, 5, 100])
@pytest.mark.parametrize("candidates", [4, 100])
def test_halves_are_disjoint_and_make_up_the_users_songs(history: int, candidates: int) -> None:
    listening, dense = Listening(matrix(), WARM, 60, history, candidates), matrix().toarray()
    sizes = set()
    for seed in range(5):
        for songs, heard, wanted in rows(listening, seed):
            assert not heard.keys() & wanted and heard.keys() | wanted <= set(songs)
            n = len(heard) + len(wanted)
            assert len(heard) == -(-n // 2) and wanted
            fitting = [u for u in whose(heard, wanted, dense) if n == min(np.count_nonzero(dense[u]), history)]
            assert fitting, "the songs and strengths are those of one user, all of them or `history` of them"
            sizes.add(n)
    assert max(sizes) == min(history, 15) and min(sizes) == 2


def test_every_song_of_a_long_history_is_used_in_its_turn() -> None:
    """One user of ten songs, cut to four: each song is heard and wanted equally often."""
    dense = np.zeros((1, 10), dtype=np.float32)
    dense[0] = 1
    listening = Listening(sparse.csr_matrix(dense), np.arange(10), 4000, 4, 100)
    _, item = listening.draw(np.random.default_rng(0))
    for name in ("heard", "wanted"):
        np.testing.assert_allclose(item[name].numpy().mean(axis=0), 0.2, atol=0.03)


def test_users_are_drawn_uniformly_among_those_with_two_songs() -> None:
    """Seen by their songs: user u's songs are drawn as often as any other's, however many there are."""
    dense = np.zeros((4, 12), dtype=np.float32)
    dense[0, :2] = dense[1, 2:9] = dense[2, 9:] = 1
    dense[3, 0] = 1  # one song: never drawn
    listening = Listening(sparse.csr_matrix(dense), np.arange(12), 9000, 100, 100)
    _, item = listening.draw(np.random.default_rng(1))
    used = item["heard"].numpy() + item["wanted"].numpy()
    assert (used.sum(axis=1) >= 2).all()
    shares = [used[:, at].mean() for at in (0, 2, 9)]
    np.testing.assert_allclose(shares, 1 / 3, atol=0.02)


@pytest.mark.parametrize(("users", "candidates"), [(3, 0), (3, 3), (3, 12), (9, 0), (14, 0)])
def test_log_q_is_the_log_of_the_chance_to_be_there(users: int, candidates: int) -> None:
    """Over many draws, without replacement and, of nine users, with it; users with one song count for nothing."""
    listening, draws = Listening(matrix(), WARM, users, 100, candidates), 6000
    assert len(listening.active) == 9
    times = np.zeros(SONGS)
    for seed in range(draws):
        songs, item = listening.draw(np.random.default_rng(seed))
        times[songs] += 1
        np.testing.assert_array_equal(item["log_q"].numpy(), listening.log_q_S[songs])
    seen = times[WARM] / draws
    np.testing.assert_allclose(np.exp(listening.log_q_S[WARM]), seen, atol=4 * 0.5 / np.sqrt(draws))
    assert (times[15:] == 0).all()
    bound = {3: 0.8, 9: None, 14: 0.95}[users]  # all nine users are drawn: every song is there
    assert bound is None or seen.min() < bound * seen.max(), "else this test could not fail"


def test_nobody_is_drawn_twice_unless_there_are_too_few() -> None:
    for users, twice in ((4, False), (9, False), (14, True)):
        listening, seen = Listening(matrix(), WARM, users, 100, 0), []
        listening.matrix.data[:] = np.arange(1, len(listening.matrix.data) + 1)  # every play tells whose it is
        owner = {float(value): user for user, row in enumerate(listening.matrix.toarray()) for value in row if value}
        for seed in range(20):
            drawn = [owner[next(iter(heard.values()))] for _, heard, _ in rows(listening, seed)]
            seen.append(len(set(drawn)) < len(drawn))
        assert any(seen) is twice


def test_all_songs_are_candidates_where_there_are_no_more() -> None:
    for candidates in (15, 100):
        listening = Listening(matrix(), WARM, 2, 100, candidates)
        songs, item = listening.draw(np.random.default_rng(0))
        assert songs.tolist() == WARM.tolist() and (item["log_q"] == 0).all()
        assert item["heard"].shape == item["wanted"].shape == (2, 15)


def test_songs_are_sorted_once_each_and_never_cold() -> None:
    listening = Listening(matrix(), WARM, 5, 3, 6)
    for seed in range(50):
        songs, _ = listening.draw(np.random.default_rng(seed))
        assert songs.dtype == np.int64 and (np.diff(songs) > 0).all() and set(songs) <= set(WARM)


def test_a_draw_depends_on_its_generator_alone() -> None:
    listening = Listening(matrix(), WARM, 20, 3, 6)
    assert rows(listening, 3) == rows(listening, 3) != rows(listening, 4)
    unsorted = matrix()
    for user in range(USERS):
        at = slice(*unsorted.indptr[user : user + 2])
        unsorted.indices[at], unsorted.data[at] = unsorted.indices[at][::-1].copy(), unsorted.data[at][::-1].copy()
    unsorted.has_sorted_indices = False
    assert rows(Listening(unsorted, WARM, 20, 3, 6), 3) == rows(listening, 3)


def test_nobody_with_two_songs_is_refused() -> None:
    lonely = sparse.csr_matrix(np.eye(5, dtype=np.float32))
    with pytest.raises(UserError, match=r"no user listened to two known songs.*listening_weight=0"):
        Listening(lonely, np.arange(5), 4, 100, 10)
    Listening(lonely, np.arange(5), 0, 100, 10)  # that part is off


def test_in_a_real_batch_only_training_plays_of_known_songs(catalogue_folder: Any) -> None:
    """Nothing that a user did with a cold song, and no dislike, is heard or wanted."""
    data = I2IDataModule(str(catalogue_folder), batch_size=32, users=40, history=100, candidates=10, seed=3)
    plays = data.catalogue.plays.filter(data.catalogue.plays["strength"] > 0)
    of_user: dict[int, dict[int, float]] = {}
    for user, song, strength in plays.select("user", "song", "strength").iter_rows():
        mine = of_user.setdefault(user, {})
        mine[song] = max(strength, mine.get(song, 0.0))
    warm, batches = set(data.warm.tolist()), 0
    assert {len(mine) for mine in of_user.values()} != {30}, "some of their songs are cold"
    for batch in data.train_dataloader():
        listening, batches = batch["listening"], batches + 1
        n_users, n_songs = listening["heard"].shape
        fields = batch["fields"]["content"][listening["at"]]
        assert n_users == 40 and n_songs == len(listening["residual"]) == len(fields)
        # fields and residual codes tell which songs these are
        content = np.asarray(data.fields.dense["content"])
        songs = [
            next(s for s in warm if np.array_equal(content[s], row, equal_nan=True) and data.residual_codes[s] == code)
            for row, code in zip(fields.numpy(), listening["residual"].tolist(), strict=True)
        ]
        for heard, wanted in zip(listening["heard"].numpy(), listening["wanted"].numpy(), strict=True):
            strengths = {songs[at]: float(heard[at]) for at in np.flatnonzero(heard)}
            asked = {songs[at] for at in np.flatnonzero(wanted)}
            assert any(
                mine.keys() == strengths.keys() | asked and strengths.items() <= mine.items()
                for mine in of_user.values()
            )
    assert batches > 3
