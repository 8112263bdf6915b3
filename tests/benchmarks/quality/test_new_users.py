"""new_users: who is taken out, what is counted, and the command on a tiny world."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from sklearn.metrics import roc_auc_score

from benchmarks.quality import new_users
from configs.load import load
from data.world import generate


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    at = tmp_path_factory.mktemp("new_users") / "world"
    at.mkdir()
    generate(at, 80, 60, truth_users=0, audio=False)
    return at


def test_a_share_of_the_users_is_taken_out(world: Path) -> None:
    everybody = pl.read_parquet(world / "users.parquet")["user_id"]
    first, second = (set(new_users.drawn_users(world, 0.3, seed)) for seed in (0, 1))
    assert first != second and first | second <= set(everybody)
    assert all(30 < len(kept) < 54 for kept in (first, second))
    assert first == set(new_users.drawn_users(world, 0.3, 0))


def test_what_is_counted() -> None:
    tested = pl.DataFrame({"user_id": ["a", "b", "a", "c"], "song": [7, 9, 7, 4]})
    liked_NC = new_users.liked(tested, pl.Series(["b", "a"]), np.array([4, 7, 9]))
    assert liked_NC.tolist() == [[False, False, True], [False, True, False]]
    many_NC = np.zeros((2, 50), dtype=bool)
    many_NC[0, [3, 40]] = many_NC[1, 0] = True
    assert new_users.recall_of(-np.tile(np.arange(50.0), (2, 1)), many_NC) == 0.75


def test_margins_are_taken_apart() -> None:
    rng = np.random.default_rng(0)
    mean_C, own_NC = rng.normal(size=60), rng.normal(size=(9, 60))
    own_NC -= own_NC.mean(axis=0)
    boundary_N1, liked_NC = 5 * rng.normal(size=(9, 1)), rng.random((9, 60)) < 0.2
    boundary_N1 -= boundary_N1.mean()
    found = new_users.taken_apart(mean_C + own_NC - boundary_N1, liked_NC)
    assert found["spread_mean"] == pytest.approx(mean_C.std())
    assert found["spread_own"] == pytest.approx(np.mean([one.std() for one in own_NC]))
    each = [roc_auc_score(liked_C, mean_C + own_C) for liked_C, own_C in zip(liked_NC, own_NC, strict=True)]
    assert found["auc_within"] == pytest.approx(np.mean(each))
    assert found["auc_mean"] == pytest.approx(np.mean([roc_auc_score(liked_C, mean_C) for liked_C in liked_NC]))
    assert found["the mean of all margins"] == new_users.recall_of(np.tile(mean_C, (9, 1)), liked_NC)


@pytest.mark.slow
def test_the_command(world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    quick = ["seeds=1", "share=0.4", "i2i=[trainer.epochs=1,batch_size=256]", "boundary=[trainer.epochs=1]"]
    config = load(new_users.NewUsersConfig, [f"data={world}", f"out={tmp_path}/new_users.json", *quick])
    new_users.main(config)
    (found,) = json.loads((tmp_path / "new_users.json").read_text())
    assert found["users"] > 0 and len(found["recall@20"]) == 8 and len(found["AUC"]) == 2
    by_margin = found["recall@20"][2]
    assert all(0 <= by_margin[column] <= 1 for column in new_users.COLUMNS)
    assert "| new users, by taste | – |" in capsys.readouterr().out
