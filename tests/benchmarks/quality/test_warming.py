"""warm_up: who is revealed and who is to be found, item kNN against a loop, and the command on the tiny dataset."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from scipy import sparse

from benchmarks.quality import warm_up
from benchmarks.quality.item_cold.__main__ import ItemColdConfig
from benchmarks.quality.item_cold.folds import Held
from configs.errors import UserError
from configs.load import load
from tests.benchmarks.small import I2I, listed

RNG = np.random.default_rng(0)


def held() -> Held:
    """Song 5 has 30 listeners, song 8 has 26, song 9 too few."""
    user = np.concatenate([RNG.permutation(60)[:n] for n in (30, 26, 20)])
    return Held(np.array([5, 8, 9]), user, np.repeat([0, 1, 2], [30, 26, 20]))


def test_the_first_listeners_are_revealed_and_the_others_to_be_found(monkeypatch: pytest.MonkeyPatch) -> None:
    one = held()
    songs = warm_up.songs_of(one, np.eye(10, dtype=np.float32), seed=0)
    assert songs.content_CD.argmax(axis=1).tolist() == [5, 8]
    for c, n in enumerate((30, 26)):
        assert sorted(songs.place[songs.song == c].tolist()) == list(range(n))
        assert set(songs.user[songs.song == c]) == set(one.user_of[one.position_of == c])
    seen: list[tuple[np.ndarray, np.ndarray]] = []

    def score(first: sparse.csr_matrix) -> np.ndarray:
        """Names exactly the listeners who are to be found, but for one; and all who are known."""
        wanted = np.zeros((2, 60), dtype=np.float32)
        wanted[songs.song[songs.place != 25], songs.user[songs.place != 25]] = 1
        seen.append((first.toarray(), wanted))
        return wanted

    monkeypatch.setattr(warm_up, "K", 9)  # of 10 and 6 that are to be found, 9 and 5 are named
    found = warm_up.recalls(songs, 60, score)
    assert found == pytest.approx([(9 / 10 + 5 / 6) / 2] * 6)
    for n, (first, _) in zip(warm_up.SHOWN, seen, strict=True):
        assert (first.sum(axis=1) == n).all()
        for c in range(2):
            known = songs.user[(songs.song == c) & (songs.place < n)]
            assert set(np.flatnonzero(first[c])) == set(known)


def test_songs_with_few_listeners_cannot_warm_up() -> None:
    one = held()
    few = one.position_of == 2
    with pytest.raises(UserError, match="no new song has 25 listeners"):
        warm_up.songs_of(Held(one.songs, one.user_of[few], one.position_of[few]), np.eye(10, dtype=np.float32), 0)


def test_item_knn_against_a_loop() -> None:
    first = sparse.csr_matrix((RNG.random((3, 12)) < 0.4).astype(np.float32))
    plays = sparse.csr_matrix((RNG.random((12, 7)) < 0.4).astype(np.float32))
    found = warm_up.co_listening(first, plays)
    for c in range(3):
        own = set(first[c].indices.tolist())
        for u in range(12):
            expected = 0.0
            for w in plays[u].indices:
                others = set(plays[:, w].nonzero()[0].tolist())
                expected += len(own & others) / np.sqrt(len(own) * len(others))
            assert found[c, u] == pytest.approx(expected, rel=1e-5)


def test_content_below_so_many_plays_and_behaviour_from_there_on() -> None:
    of_prior = {warm_up.NEVER: [0.0] * 6, warm_up.AT_ONCE: [1.0] * 6}
    assert warm_up.switched(of_prior, 5) == [0, 0, 0, 1, 1, 1]


def test_the_command(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(warm_up, "SHOWN", (0, 1, 3))
    monkeypatch.setattr(warm_up, "MINIMUM", 2)
    small = listed([*I2I, "trainer.epochs=2"])
    options = [f"data={dataset}", f"out={tmp_path}/warm.json", "seeds=2", "features=[content]", f"i2i={small}"]
    warm_up.main(load(ItemColdConfig, options))
    first, second = json.loads((tmp_path / "warm.json").read_text())["content"]
    rows = {row["method"]: row for row in first}
    assert list(rows) == [row["method"] for row in second] and len(rows) == 6
    assert rows["behaviour alone"]["0 plays"] is None and rows["fused"]["chosen"] in warm_up.PRIORS
    assert len({rows["content alone"][f"{n} plays"] for n in (0, 1, 3)}) == 1
    assert rows["fused"]["0 plays"] == rows["content alone"]["0 plays"] > 0
    assert "| fused, default prior (5) |" in capsys.readouterr().out
    with pytest.raises(UserError, match="no such folder or zip"):
        warm_up.main(load(ItemColdConfig, []))
