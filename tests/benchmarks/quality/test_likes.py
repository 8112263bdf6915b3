"""likes: marks, rates and figures against loops, and the command on planted taste."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import soundfile

from benchmarks.quality import likes
from benchmarks.quality.likes import LikesConfig, Marks, figures, rate_of, read_marks
from configs.errors import UserError
from configs.load import load
from data.catalogue import Catalogue
from inference.embedding import write_features

SONGS, USERS, RATE = 60, 40, 16000
GENRES = ("calm", "loud")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, prepare: Any) -> dict[str, Path]:
    """Young listeners like loud songs, old ones calm songs; some listeners like everything, some nearly nothing."""
    at, rng = tmp_path_factory.mktemp("likes"), np.random.default_rng(0)
    (at / "data").mkdir()
    loud = rng.integers(0, 2, SONGS)
    for song in range(SONGS):
        wave = rng.normal(0, (0.02, 0.3)[loud[song]], int(1.2 * RATE))
        soundfile.write(at / "data" / f"{song}.wav", wave, RATE)
    songs = {"song_id": [f"s{song}" for song in range(SONGS)], "genres": [[GENRES[one]] for one in loud]}
    songs |= {"audio_path": [f"{song}.wav" for song in range(SONGS)]}
    pl.DataFrame(songs).write_parquet(at / "data" / "songs.parquet")
    age, mood = rng.integers(15, 70, USERS), rng.normal(0, 1.5, USERS)
    users = {"user_id": [f"u{user}" for user in range(USERS)], "age": age, "tongue": ["a", "b"] * (USERS // 2)}
    pl.DataFrame(users).write_parquet(at / "data" / "users.parquet")
    rows = []
    for user in range(USERS):
        for song in rng.choice(SONGS, 40, replace=False):
            fits = (age[user] < 40) == bool(loud[song])
            liked = rng.random() < 1 / (1 + np.exp(-(3 * fits - 1.5 + mood[user])))
            rows.append((f"u{user}", f"s{song}", bool(liked), not liked))
    rows += [("u0", "s0", True, False), ("u0", "s0", False, True), ("u1", "s1", False, False)]
    columns = ["user_id", "song_id", "favourited", "disliked"]
    pl.DataFrame(rows, schema=columns, orient="row").write_parquet(at / "data" / "plays.parquet")
    catalogue = prepare(at / "data", at / "catalogue", "split.by=random", "pairs.posterior=none")
    vectors = np.stack([loud, 1 - loud, rng.normal(size=SONGS)], axis=1).astype(np.float32)
    write_features(at / "features", {"clip_audio": vectors}, Catalogue.read(catalogue), {})
    return {"data": at / "data", "catalogue": catalogue, "features": at / "features"}


def test_marks_are_net(world: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    catalogue = Catalogue.read(world["catalogue"])
    marks = read_marks(world["data"], catalogue)
    net: dict[tuple[str, str], int] = {}
    for user, song, liked, disliked in pl.read_parquet(world["data"] / "plays.parquet").iter_rows():
        net[user, song] = net.get((user, song), 0) + int(liked) - int(disliked)
    ids = zip(catalogue.users["user_id"].gather(marks.user), catalogue.songs["song_id"].gather(marks.song), strict=True)
    found = dict(zip(ids, marks.liked.tolist(), strict=True))
    assert found == {pair: int(sign > 0) for pair, sign in net.items() if sign}
    assert f"{len(found):,} kept" in capsys.readouterr().out and len(found) == len(marks.user)


def test_rates_leave_the_mark_itself_out() -> None:
    rng = np.random.default_rng(0)
    marks = Marks(rng.integers(0, 5, 80), np.arange(80), rng.integers(0, 2, 80))
    of, kind = rng.integers(0, 3, 80), rng.integers(0, 2, 80)
    found = rate_of(marks, of, kind)
    for n in range(80):
        prior = np.mean([marks.liked[m] for m in range(80) if of[m] == 0 and kind[m] == kind[n]])
        same = [
            m for m in range(80)
            if of[m] == 0 and m != n and (marks.user[m], kind[m]) == (marks.user[n], kind[n])
        ]  # fmt: skip
        expected = (sum(marks.liked[m] for m in same) + 4 * prior) / (len(same) + 4)
        assert found[n] == pytest.approx(expected), n


def test_figures_choose_on_validation_and_measure_on_test() -> None:
    rng = np.random.default_rng(0)
    liked, of = rng.integers(0, 2, 600), rng.integers(0, 3, 600)
    score = liked + rng.normal(0, 0.5, 600)
    found = figures(score, liked, of)
    pairs = [(a, b) for a in score[(of == 2) & (liked == 1)] for b in score[(of == 2) & (liked == 0)]]
    assert found["AUC"] == pytest.approx(np.mean([a > b for a, b in pairs]))
    assert 0.78 < found["balanced accuracy"] < 0.92
    shifted = np.where(of == 2, score + 100, score)  # all of the test is above any threshold of validation
    assert figures(shifted, liked, of)["balanced accuracy"] == 0.5


@pytest.mark.slow
def test_the_command(
    world: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(likes, "FOLDS", 3)
    given = [f"{name}={path}" for name, path in world.items()]
    small = ["model.dim=8", "model.hidden=16", "model.field_dim=8", "optim.lr=5e-3", "batch_size=64"]
    options = [f"out={tmp_path}/likes.json", "seeds=1", "epochs=12", f"boundary={json.dumps(small)}"]
    likes.main(load(LikesConfig, [*given, *options]))
    runs = json.loads((tmp_path / "likes.json").read_text())
    assert len(runs) == likes.FOLDS
    mean = {name: np.mean([row["AUC"] for run in runs for row in run if row["method"] == name]) for name in
            {row["method"] for row in runs[0]}}  # fmt: skip
    boundary, threshold = mean["our towers: own boundary"], mean["our towers: one threshold"]
    assert boundary > 0.75 and boundary > threshold - 0.02, mean
    assert mean["logistic regression, clip + profile + genre + own rate"] > 0.6
    assert "| our towers, genre without audio: own boundary |" in capsys.readouterr().out
    with pytest.raises(UserError, match="has no clip_audio"):
        write_features(tmp_path / "bare", {"text": np.zeros((SONGS, 2))}, Catalogue.read(world["catalogue"]), {})
        likes.main(load(LikesConfig, [*given[:2], f"features={tmp_path}/bare"]))
