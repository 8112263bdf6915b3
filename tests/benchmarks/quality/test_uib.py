"""The interest-boundary protocol: who is held out, ranks and losses against loops, and the command on planted taste."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from benchmarks.quality.uib import __main__ as uib
from benchmarks.quality.uib.factorisation import MatrixFactorisation, Settings, loss_of, train
from benchmarks.quality.uib.protocol import AGAINST, Plays, Split, deal, f1, figures, judged, read_plays
from configs.errors import UserError
from configs.load import load
from data.adapters import read_hetrec

USERS, ARTISTS, TASTES, TIERS = 120, 240, 4, 12


@pytest.fixture(scope="module")
def hetrec(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Everybody listens within one taste, to hits the most; tags tell an artist's taste. Ids are no row numbers."""
    folder, rng = tmp_path_factory.mktemp("hetrec"), np.random.default_rng(0)
    user_taste, artist_taste = np.arange(USERS) % TASTES, np.arange(ARTISTS) % TASTES
    weight = np.where(user_taste[:, None] == artist_taste, 1.0, 0.03) / (1 + np.arange(ARTISTS) // TASTES) ** 0.5
    listens, tagged = [], []
    for user in range(USERS):
        heard = rng.choice(ARTISTS, 4 if user < 3 else 18, replace=False, p=weight[user] / weight[user].sum())
        listens += [f"{user + 100}\t{artist + 7}\t{rng.integers(1, 99)}" for artist in heard]
        for tag in (artist_taste[heard], TASTES + heard * TIERS // ARTISTS):  # what they play, and how well known it is
            tagged += [f"{user + 100}\t{a + 7}\t{one}\t1\t1\t2009" for a, one in zip(heard, tag, strict=True)]
        if user < 9:  # a word of their own
            tagged += [f"{user + 100}\t{a + 7}\t{50 + user}\t1\t1\t2009" for a in heard]
    tables = {
        "artists.dat": [
            "id\tname\turl\tpictureURL",
            *(f"{artist + 7}\tname {artist}\t\t" for artist in range(ARTISTS + 4)),  # four that nobody plays
        ],
        "user_artists.dat": ["userID\tartistID\tweight", *listens],
        "user_taggedartists.dat": ["userID\tartistID\ttagID\tday\tmonth\tyear", *tagged],
        "tags.dat": ["tagID\ttagValue", *(f"{tag}\ttag {tag}" for tag in range(60))],
    }
    for name, lines in tables.items():
        (folder / name).write_text("\n".join(lines) + "\n")
    return folder


def test_two_artists_of_each_user_are_held_out(hetrec: Path) -> None:
    plays = read_plays(read_hetrec(hetrec))
    assert len(plays.users) == USERS - 3 and plays.users == sorted(plays.users, key=int)
    assert plays.users[0] == "103" and len(plays.pairs) == 18 * (USERS - 3)
    everything = {tuple(pair) for pair in plays.pairs.tolist()}
    split = deal(plays, 0)
    held = {(u, int(a)) for one in (split.val, split.test) for u, a in enumerate(one)}
    assert len(held) == 2 * len(plays.users) and held < everything
    assert {tuple(pair) for pair in split.train.tolist()} == everything - held
    for against in (split.val_against, split.test_against):
        assert against.shape == (len(plays.users), AGAINST)
        for user, row in enumerate(against):
            assert len(set(row)) == AGAINST and not {(user, int(a)) for a in row} & everything
    assert not np.array_equal(split.val_against, split.test_against)
    same, other = deal(plays, 0), deal(plays, 1)
    assert np.array_equal(same.test, split.test) and np.array_equal(same.test_against, split.test_against)
    assert not np.array_equal(other.test, split.test)


def test_any_unheard_artist_is_drawn_alike() -> None:
    plays = Plays(np.array([[0, 0], [0, 1], [0, 2], [1, 5], [1, 6], [1, 7]]), ["0", "1"], [str(a) for a in range(150)])
    drawn = np.zeros((2, 150))
    for seed in range(200):
        for user, row in enumerate(deal(plays, seed).test_against):
            drawn[user, row] += 1
    expected = 200 * AGAINST / 147
    for user, own in ((0, [0, 1, 2]), (1, [5, 6, 7])):
        assert (drawn[user, own] == 0).all()
        others = np.delete(drawn[user], own)
        assert np.abs(others - expected).max() < 6 * math.sqrt(expected * (1 - AGAINST / 147))


def test_figures_against_a_loop() -> None:
    rng = np.random.default_rng(1)
    positive, negative = rng.integers(0, 40, 300).astype(np.float32), rng.integers(0, 30, (300, 100)).astype(np.float32)
    ranks = [1 + sum(other >= own for other in row) for own, row in zip(positive, negative, strict=True)]
    found = figures(positive, negative)
    assert found["HIT@1"] == pytest.approx(np.mean([rank == 1 for rank in ranks])) and 0.1 < found["HIT@1"] < 0.9
    assert found["HIT@10"] == pytest.approx(np.mean([rank <= 10 for rank in ranks]))
    assert found["MRR@10"] == pytest.approx(np.mean([1 / rank if rank <= 10 else 0 for rank in ranks]))
    ndcg = np.mean([1 / math.log2(1 + rank) if rank <= 10 else 0 for rank in ranks])
    assert found["NDCG@10"] == pytest.approx(ndcg)
    assert figures(np.zeros(3), np.zeros((3, 100)))["HIT@10"] == 0  # ties are lost
    right, wrong, missed = (positive > 25).sum(), (negative > 25).sum(), (positive <= 25).sum()
    assert f1(positive, negative, 25) == pytest.approx(2 * right / (2 * right + wrong + missed))


def test_a_margin_is_chosen_on_validation_alone() -> None:
    """Scores are one number an artist here, so that everything is known; the boundary lets all pass."""
    item = np.linspace(0, 1, 300, dtype=np.float32)[:, None]
    user, boundary = np.ones((50, 1), np.float32), np.full(50, -50, dtype=np.float32)
    rng = np.random.default_rng(2)
    high, low = (lambda *shape: rng.integers(200, 300, shape)), (lambda *shape: rng.integers(0, 210, shape))
    split = Split(np.zeros((0, 2), dtype=int), high(50), high(50), low(50, AGAINST), low(50, AGAINST))
    value, found = judged(split, item, user, boundary)
    assert value == figures(item[split.val, 0], item[split.val_against, 0])["NDCG@10"]
    assert found["NDCG@10"] == figures(item[split.test, 0], item[split.test_against, 0])["NDCG@10"]
    assert found["F1"] == pytest.approx(2 * 50 / (50 + 50 + 50 * AGAINST))
    assert found["F1, margin chosen"] > 0.6
    worse = Split(split.train, split.val, low(50), split.val_against, high(50, AGAINST))
    assert judged(worse, item, user, boundary)[0] == value  # the test part has no say
    assert judged(worse, item, user, boundary)[1]["F1, margin chosen"] < 0.05
    assert set(judged(split, item, user, np.zeros(50))[1]) == {"HIT@1", "HIT@10", "NDCG@10", "MRR@10"}


@pytest.mark.parametrize("loss", ["bpr", "boundary", "bce"])
def test_losses_against_a_loop(loss: str) -> None:
    rng = torch.Generator().manual_seed(0)
    score, boundary = torch.randn(6, 4, generator=rng), torch.randn(6, 1, generator=rng)
    expected = 0.0
    for b in range(6):
        own, at = float(score[b, 0]), float(boundary[b]) if loss == "boundary" else 0.0
        others = [float(one) for one in score[b, 1:]]
        if loss == "bpr":
            expected -= sum(math.log(1 / (1 + math.exp(other - own))) for other in others) / 3
        else:
            expected -= math.log(1 / (1 + math.exp(at - own)))
            expected -= 3.0 * sum(math.log(1 / (1 + math.exp(other - at))) for other in others) / 3
    assert float(loss_of(loss, 3.0, score, boundary)) == pytest.approx(expected, rel=1e-4)  # type: ignore[arg-type]


def test_scores_and_squared_lengths_against_a_loop() -> None:
    torch.manual_seed(0)
    model = MatrixFactorisation(5, 9, 3, 0.5).eval()
    torch.nn.init.normal_(model.boundary.weight)
    user, item = torch.tensor([2, 4]), torch.tensor([[0, 1, 1], [8, 3, 5]])
    score, boundary, length = model(user, item)
    p, q, w = (one.detach() for one in (model.user.weight, model.item.weight, model.boundary.weight[0]))
    total = 0.0
    for b in range(2):
        assert boundary[b].item() == pytest.approx(float(w @ p[user[b]]), rel=1e-4)
        total += float(p[user[b]] @ p[user[b]]) + float(q[item[b, 0]] @ q[item[b, 0]])
        total += sum(float(q[i] @ q[i]) for i in item[b, 1:]) / 2
        for m in range(3):
            assert score[b, m].item() == pytest.approx(float(p[user[b]] @ q[item[b, m]]), rel=1e-4)
    assert length.item() == pytest.approx(total, rel=1e-4)
    model.train()
    assert not torch.equal(model(user, item)[0], model(user, item)[0])  # dropout


def test_the_best_epoch_is_kept() -> None:
    values = iter([0.1, 0.5, 0.3, 0.2, 0.9])
    seen: list[float] = []

    def judge(*vectors: np.ndarray) -> tuple[float, int]:
        assert [one.shape for one in vectors] == [(9, 32), (5, 32), (5,)]
        seen.append(next(values))
        return seen[-1], len(seen)

    rows = np.random.default_rng(0).integers(0, 5, (40, 2))
    assert train(rows, 5, 9, Settings("bpr", every=1, patience=2), judge, 0) == 2
    assert seen == [0.1, 0.5, 0.3, 0.2]


def test_fused_scores_are_margins_plus_weighted_scores_of_the_best_weight() -> None:
    rng = np.random.default_rng(0)
    towers = rng.random((7, 3)), rng.random((5, 3)), rng.random(5)
    factors = rng.random((7, 2)), rng.random((5, 2))
    margin = towers[1] @ towers[0].T - towers[2][:, None]
    for best in (0.0, 4.0, 32.0):
        wanted = margin + best * factors[1] @ factors[0].T

        def judge(item: np.ndarray, user: np.ndarray, boundary: np.ndarray, wanted=wanted) -> tuple[float, float]:
            off = float(np.abs(user @ item.T - boundary[:, None] - wanted).max())
            return -off, off

        assert uib.fused(towers, factors, judge) < 1e-9  # type: ignore[arg-type, operator]


@pytest.mark.slow
def test_the_command(
    hetrec: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    small = ["batch_size=128", "fields.min_count=1", "objective.sampling=batch", "objective.negatives=32",
             "model.hidden=16", "model.field_dim=8", "optim.lr=1e-2", "trainer.epochs=12"]  # fmt: skip
    options = [f"data={hetrec}", f"out={tmp_path}/uib.json", "seeds=1", f"boundary={json.dumps(small)}"]
    uib.main(load(uib.UibConfig, options))
    (rows,) = json.loads((tmp_path / "uib.json").read_text())
    found = {row["method"]: row for row in rows}
    assert list(found) == list(uib.METHODS)
    table = capsys.readouterr().out
    assert f"{USERS - 3} users" in table and all(f"| {method} |" in table for method in uib.METHODS)
    for method in ("iALS", "BPR-MF, L2", "BPR-MF + boundary, L2", *uib.OURS):
        assert found[method]["NDCG@10"] > found["popularity"]["NDCG@10"] + 0.1, method
    assert found["our towers"]["F1, margin chosen"] > 0.1 and "F1" not in found["BPR-MF, L2"]

    catalogue = pl.read_parquet(next((tmp_path / "uib" / "seed0").glob("*/dataset/songs.parquet")))
    plays = read_plays(read_hetrec(hetrec))
    assert set(catalogue.filter(pl.col("split") == "warm")["song_id"]) == set(plays.artists)
    split = deal(plays, 0)
    held = {(plays.users[u], plays.artists[a]) for one in (split.val, split.test) for u, a in enumerate(one)}
    given: dict[str, set[str]] = {}
    for user, artist, tag in read_hetrec(hetrec).tag_assignments.iter_rows():  # type: ignore[union-attr]
        if (user, artist) not in held:
            given.setdefault(artist, set()).add(tag)
    for row in catalogue.to_dicts():
        assert set(row["tags"] or []) == given.get(row["song_id"], set())
    said = {row["song_id"]: row["tags"] for row in catalogue.to_dicts()}
    for user, artist in held:
        assert f"tag {int(user) - 50}" not in (said[artist] or [])
    assert sum("tag 55" in (tags or []) for tags in said.values()) == 18 - 2
    monkeypatch.setattr(uib, "measure", lambda *given: {"HIT@1": 0.5})  # only what has changed is measured again
    uib.main(load(uib.UibConfig, [*options[:-1], f"boundary={json.dumps([*small, 'seed=0'])}"]))
    (again,) = json.loads((tmp_path / "uib.json").read_text())
    assert [row for row in again if row["method"] not in uib.OURS] == rows[: -len(uib.OURS)]
    assert [row["HIT@1"] for row in again if row["method"] in uib.OURS] == [0.5] * len(uib.OURS)
    (tmp_path / "folder").mkdir()
    with pytest.raises(UserError, match="must be a file"):
        uib.main(load(uib.UibConfig, [options[0], f"out={tmp_path}/folder"]))
    with pytest.raises(UserError, match="choose from popularity, iALS"):
        uib.main(load(uib.UibConfig, [*options, "methods=[lightgcn]"]))
