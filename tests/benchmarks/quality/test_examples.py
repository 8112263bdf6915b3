"""examples: marks, searches and intervals against loops, and the command on planted taste."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from sklearn.metrics import ndcg_score, roc_auc_score

from benchmarks.quality import examples
from benchmarks.quality.examples import CELLS, NDCG, WEIGHTS, ExamplesConfig, K, Listener
from benchmarks.quality.examples_table import table
from configs.errors import UserError
from configs.load import load
from tests.benchmarks.small import I2I, listed


def test_marks_are_net_and_plays_are_likes_where_nothing_is_disliked(tmp_path: Path) -> None:
    rows = [("a", "x", True, False), ("a", "x", False, True), ("a", "y", False, True), ("a", "z", None, None)]
    rows += [("b", "x", True, False), ("b", "x", True, False), ("b", "x", False, True)]
    names = ["user_id", "song_id", "favourited", "disliked"]
    plays = pl.DataFrame(rows, schema=names, orient="row")
    plays.write_parquet(tmp_path / "plays.parquet")
    assert examples.marks_of(tmp_path).rows() == [("a", "y", -1), ("b", "x", 1)]
    plays.drop("favourited", "disliked").write_parquet(tmp_path / "plays.parquet")
    marks = examples.marks_of(tmp_path)
    assert [row[:2] for row in marks.rows()] == [("a", "x"), ("a", "y"), ("a", "z"), ("b", "x")]
    people = examples.listeners_of(marks, ["b", "a", "nobody"], pl.Series(["z", "x", "y"]))
    assert [one.liked.tolist() for one in people] == [[1], [0, 1, 2]] and not any(len(one.disliked) for one in people)


def test_figures_against_sklearn() -> None:
    rng = np.random.default_rng(0)
    score, right = rng.normal(size=50).astype(np.float32), rng.random(50) < 0.3
    assert examples.ndcg(score, right) == pytest.approx(ndcg_score([right], [score], k=K))
    assert examples.ndcg(score[:5], np.arange(5) == 2) == pytest.approx(ndcg_score([np.arange(5) == 2], [score[:5]]))


def test_a_marked_search_ranks_the_other_marks() -> None:
    """Likes lie along the first axis, dislikes along the second, and what both share is larger than either."""
    vectors = np.repeat([[1.0, 0, 3], [0, 1, 3], [0, 0, 9]], 6, axis=0).astype(np.float32)
    vectors += np.random.default_rng(1).normal(0, 0.02, vectors.shape).astype(np.float32)
    one = Listener(np.arange(6), np.arange(6, 12))
    found = examples.searched(vectors, one, 2, 2, True, np.random.default_rng(2))
    rng = np.random.default_rng(2)
    liked, disliked = rng.choice(one.liked, 2, replace=False), rng.choice(one.disliked, 2, replace=False)
    rest = [song for song in range(12) if song not in {*liked, *disliked}]
    for at, weight in enumerate(WEIGHTS):
        query = vectors[liked].mean(axis=0) - weight * vectors[disliked].mean(axis=0)
        expected = roc_auc_score([song < 6 for song in rest], vectors[rest] @ query)
        assert found["AUC"][at] == pytest.approx(expected), weight
    assert found["AUC"][-1] == 1 and found[NDCG][-1] == 1


def test_what_is_shown_first_and_is_not_theirs_is_disliked() -> None:
    """Songs of another kind are nearest to the example; without dislikes the next of them stand before the right."""
    kind = np.array([0] * 4 + [1] * 8 + [2] * 8)
    vectors = np.array([[2.0, 0, 0], [2.1, 1, 0], [0, 2, 0]], dtype=np.float32)[kind]
    vectors[:, 2] += np.linspace(0, 0.01, 20)
    one = Listener(np.arange(4), np.array([], dtype=np.int64))
    found = examples.searched(vectors, one, 1, 2, False, np.random.default_rng(0))
    assert set(found) == {NDCG} and found[NDCG][0] < 0.5 and found[NDCG][-1] == 1
    few = Listener(np.arange(2), np.array([], dtype=np.int64))
    figures = examples.measured(vectors, [one, few], 2, 0)[NDCG]
    known = ~np.isnan(figures[:, :, 0])
    assert known.tolist() == [[liked < 4 for liked, _ in CELLS], [liked < 2 for liked, _ in CELLS]]


def test_one_half_chooses_and_the_other_reports() -> None:
    rng = np.random.default_rng(0)
    choose, report = (rng.normal(0.5, 0.1, (8, len(CELLS), len(WEIGHTS))).astype(np.float32) for _ in range(2))
    choose[:, :, 3] += 1
    report[:, :, 1] += 1
    choose[:, -1] = np.nan  # a cell that one half cannot tell of
    report[0, 1] = np.nan
    found = examples.summary([{"AUC": choose[:3]}, {"AUC": choose[3:]}], {"AUC": report})["AUC"]
    assert (
        found["chosen"] == WEIGHTS[3]
        and found["listeners"] == 8
        and [row["listeners"] for row in found["rows"]] == [8, 7, *[8] * 7]
    )
    more = found["rows"][0]["more"][1]
    difference = report[:, 0, 1] - report[:, 0, 0]
    half = 2.364624 * difference.std(ddof=1) / np.sqrt(8)
    assert more == pytest.approx((difference.mean(), half), rel=1e-4)
    with pytest.raises(UserError, match="too few listeners"):
        examples.summary([{"AUC": choose[:1]}], {"AUC": report})


@pytest.mark.slow
def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each listener likes one of two genres; dislikes say which."""
    rng = np.random.default_rng(0)
    genre = np.arange(80) % 2
    songs = {"song_id": [f"s{song:02}" for song in range(80)], "genres": [[("calm", "loud")[one]] for one in genre]}
    (tmp_path / "data").mkdir()
    features = np.stack([genre, rng.normal(size=80)], axis=1)
    pl.DataFrame(songs | {"feature_sound": features.tolist()}).write_parquet(tmp_path / "data" / "songs.parquet")
    rows = [
        (f"u{user}", f"s{song:02}", bool(genre[song] == user % 2), bool(genre[song] != user % 2))
        for user in range(48)
        for song in rng.choice(80, 20, replace=False)
    ]
    plays = pl.DataFrame(rows, schema=["user_id", "song_id", "favourited", "disliked"], orient="row")
    plays.write_parquet(tmp_path / "data" / "plays.parquet")
    quick = ["draws=2", "prepare=[pairs.posterior=none]", f"i2i={listed([*I2I, 'trainer.epochs=2'])}"]
    given = [f"data={tmp_path}/data", f"out={tmp_path}/examples.json", *quick]
    examples.main(load(ExamplesConfig, given))
    report = json.loads((tmp_path / "examples.json").read_text())
    everything = report["spaces"]["content"]["AUC"]["rows"][-1]
    assert (
        everything["listeners"] == report["spaces"]["content"]["AUC"]["listeners"] == 24 and everything["without"] > 0.8
    )
    trained = {name: set(pl.read_parquet(tmp_path / "examples" / name / "dataset" / "plays.parquet")["user_id"])
               for name in ("one", "other", "second")}  # fmt: skip
    assert trained["one"] | trained["other"] == trained["second"] and not trained["one"] & trained["other"]
    assert len(trained["second"]) == 24 and table(report, "encoder AUC") in capsys.readouterr().out
