"""The neural ranker: a rule that only histories tell, seeds, files, and `train.py rank model=network` to its lists."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from safetensors.torch import load as read_weights

from artifacts.runs import Run
from configs.errors import UserError
from configs.load import load
from configs.ranking import NetworkConfig, RankConfig
from data.catalogue import Catalogue
from data.fields import SongFields
from datamodules.rank_batches import RankBatches
from inference.rank_network import network, scores, song_keys
from inference.ranking import open_network, read_ranker
from inference.vectors import restore
from lightning_modules.rank import RankModule
from retrieval.rank_histories import Histories
from retrieval.ranking import Examples
from tests.commands import run
from training import ranking
from training.rank_network import fit_network
from training.rank_trees import Fitted, reached

KINDS, SONGS, NEW, USERS, HEARD = 6, 60, 48, 40, 5
OPTIONS = NetworkConfig(
    history=HEARD, field_dim=8, dim=16, heads=2, hidden=16, dropout=0.0, lr=0.02, weight_decay=0.0, batch_size=4,
    epochs=15, patience=15, parts=2,
)  # fmt: skip
TINY = ["depth=15", "network.epochs=2", "network.parts=2", "network.dim=8", "network.heads=2", "network.hidden=8",
        "network.history=6"]  # fmt: skip


def fields() -> SongFields:
    """Known songs and then new ones, of some kinds in turn, and a dense field that says nothing."""
    noise = np.random.default_rng(9).standard_normal((SONGS + NEW, 3)).astype(np.float32)
    kinds = np.arange(SONGS + NEW)[:, None] % KINDS + 2
    return SongFields({"noise": noise}, {"kind": kinds}, {"kind": [f"kind {k}" for k in range(KINDS)]})


def drawn(seed: int = 0) -> Examples:
    """A user plays a new song, most often, if they have favourited a song of its kind; no feature says so."""
    rng = np.random.default_rng(seed)
    song = np.repeat(np.arange(SONGS, SONGS + NEW), USERS)
    song_RT = np.array([rng.permutation(SONGS)[:HEARD] for _ in range(USERS)])
    signal_RT = rng.integers(1, 4, song_RT.shape)
    user = np.tile(np.arange(USERS), NEW)
    same = song_RT[user] % KINDS == song[:, None] % KINDS
    likes = (same & (signal_RT[user] == 3)).any(axis=1)
    played = rng.random(len(song)) < np.where(likes, 0.8, 0.02)
    nothing = np.zeros_like(played)
    label = np.stack([played, played, nothing, nothing, nothing], axis=1).astype(np.float32)
    feature = rng.standard_normal((len(song), 2)).astype(np.float32)
    histories = Histories(song_RT, signal_RT, user)
    return Examples(song, user, feature, ("a", "b"), (), label, int(played.sum()), histories)


def fit(examples: Examples, seed: int = 0, **changed: Any) -> Fitted:
    return fit_network(examples, fields(), np.arange(SONGS), {}, replace(OPTIONS, **changed), seed)


@pytest.fixture(scope="module")
def fitted() -> Fitted:
    return fit(drawn())


def test_a_rule_that_histories_alone_tell_is_learned(fitted: Fitted) -> None:
    examples, best = drawn(), 5
    assert examples.histories is not None
    chance = reached(examples, np.random.default_rng(1).random(len(examples)), best)["found"]
    assert reached(examples, fitted.apart_P, best)["found"] > 2 * chance
    others = replace(examples.histories, row_P=np.random.default_rng(2).permutation(examples.histories.row_P))
    blind = fit(replace(examples, histories=others), epochs=4)
    assert reached(examples, blind.apart_P, best)["found"] < 1.3 * chance


def test_the_seed_alone_decides(fitted: Fitted) -> None:
    short = {"epochs": 1}
    torch.manual_seed(5)
    first = fit(drawn(), **short)
    torch.manual_seed(6)
    again = fit(drawn(), **short)
    assert again.model == first.model
    np.testing.assert_array_equal(again.apart_P, first.apart_P)
    assert fit(drawn(), seed=1, **short).model != first.model


def test_a_songs_score_apart_does_not_hang_on_its_own_labels() -> None:
    examples, short = drawn(), {"epochs": 1}
    assert examples.label_PL is not None
    left = (np.random.default_rng(0).permutation(NEW) % 2 == 0)[examples.group_P]
    other = examples.label_PL.copy()
    other[left] = other[left][::-1]
    before, changed = fit(examples, **short).apart_P, fit(replace(examples, label_PL=other), **short).apart_P
    np.testing.assert_array_equal(changed[left], before[left])
    assert not np.allclose(changed[~left], before[~left])


def test_scores_of_the_file_are_those_of_the_network(fitted: Fitted) -> None:
    examples, hparams = drawn(), json.loads(json.dumps(fitted.about["network"]))
    model = restore(RankModule, Run(Path("run"), "rank", {}, hparams, read_weights(fitted.model), "")).model
    keys_SD = song_keys(model, fields(), SONGS + NEW, Path("run"))
    score, contributions, attention = network(model, fitted.names, keys_SD)
    together = score(examples)
    batches = RankBatches(examples, fitted.names, fields(), np.arange(NEW))  # by contents, not by keys
    np.testing.assert_allclose(scores(model, batches), together, rtol=1e-4, atol=1e-5)
    assert np.isfinite(together).all() and np.ptp(together) > 1
    some = np.flatnonzero(np.isin(examples.song_P, (SONGS + 3, SONGS + 30)) & (examples.user_P % 3 == 0))
    np.testing.assert_allclose(score(examples.take(some)), together[some], rtol=1e-4, atol=1e-5)
    assert len(score(examples.take(some[:0]))) == 0
    with pytest.raises(UserError, match="was fitted on songs with other fields"):
        song_keys(model, fields().only("kind"), SONGS + NEW, Path("run"))
    assert contributions(examples.take(some)).shape == (len(some), 2) and contributions(
        examples.take(some[:0])
    ).shape == (0, 2)
    share_PT, heard_PT = attention(examples), examples.histories.song_RT[examples.user_P]  # type: ignore[union-attr]
    same = heard_PT % KINDS == examples.song_P[:, None] % KINDS
    assert share_PT[same].mean() > 1.5 * share_PT[~same].mean(), "it looks at songs of the new one's kind"
    assert attention(examples.take(some[:0])).shape == (0, HEARD)


def test_it_stops_where_songs_left_out_no_longer_gain(monkeypatch: pytest.MonkeyPatch) -> None:
    """All parts count as many epochs as their best one has; the network of all songs is trained for the median."""
    from training import rank_network

    losses, calls, module = iter([3.0, 2.0, 2.5, 2.2, 9.0, 5.0, 4.0, 4.5, 4.4]), [], rank_network.RankModule

    class Known(module):  # type: ignore[misc, valid-type]
        def validation_step(self, batch: Any, batch_idx: int) -> None:
            if batch_idx == 0:
                calls.append(self.current_epoch)
                self.worse = next(losses)
            self.log("val/loss", self.worse)

    monkeypatch.setattr(rank_network, "RankModule", Known)
    found = fit(drawn(), patience=2)
    assert calls == [0, 1, 2, 3, 0, 1, 2, 3, 4] and found.rounds == 2, "best are the second and the third epoch"


# ------------------------------------------------------------------------------------------------ the command


def command(catalogue: Path, i2i: Path, boundary: Path, out: Path, *options: str) -> Path:
    given = [f"data={catalogue}", f"i2i={i2i}", f"boundary={boundary}", f"out={out}", "model=network", *TINY]
    ranking.train_rank(load(RankConfig, [*given, *options]))
    return out


@pytest.fixture(scope="module")
def ranker(catalogue_folder: Path, i2i_run: Path, boundary_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return command(catalogue_folder, i2i_run, boundary_run, tmp_path_factory.mktemp("rank") / "network")


def test_a_run_holds_weights_and_no_trees(ranker: Path, catalogue: Catalogue) -> None:
    about = read_ranker(ranker)
    assert about["model"] == "network" and about["history"] == 6 and about["network"]["dim"] == 8
    assert not (ranker / "model.txt").exists() and not list(ranker.rglob("*.ckpt"))
    assert all(value.isfinite().all() for value in read_weights((ranker / "weights.safetensors").read_bytes()).values())
    examples, _ = ranking.read_examples(ranker / "examples")
    assert examples.histories is not None
    released, heard = catalogue.songs["released_at"], examples.histories.song_RT[examples.histories.row_P]
    plays = catalogue.plays.sort("played_at")
    for at in range(0, len(examples), 97):  # strictly before the song's release
        of = plays.filter((pl.col("user") == examples.user_P[at]) & (pl.col("strength") > 0))
        if released[int(examples.song_P[at])] is not None:
            of = of.filter(pl.col("played_at") < released[int(examples.song_P[at])])
        newest = of["song"].reverse().unique(maintain_order=True).to_list()[:6]
        assert heard[at][heard[at] >= 0].tolist() == newest


def test_a_damaged_file_is_told(ranker: Path, tmp_path: Path) -> None:
    copied = shutil.copytree(ranker, tmp_path / "run")
    (copied / "weights.safetensors").write_bytes((ranker / "weights.safetensors").read_bytes()[:-9])
    with pytest.raises(UserError, match=r"weights\.safetensors: cannot be read .* run train\.py rank again"):
        open_network(copied)


def test_a_network_orders_audiences_and_is_evaluated(
    ranker: Path, catalogue_folder: Path, i2i_run: Path, boundary_run: Path, tmp_path: Path
) -> None:
    run("index", f"run={i2i_run}", f"out={tmp_path}/index")
    given = [f"index={tmp_path}/index", f"boundary={boundary_run}", f"rank={ranker}"]
    run("evaluate", f"data={catalogue_folder}", *given, "budgets=[10]", f"out={tmp_path}/evaluation")
    metrics = json.loads((tmp_path / "evaluation" / "metrics.json").read_text())
    found = {row["method"]: row["target_users_found@10"] for row in metrics["audience"]}
    run("audience", "mode=rank", *given, "targeting.budget=10", f"out={tmp_path}/audience")
    table, catalogue = pl.read_parquet(tmp_path / "audience" / "audience.parquet"), Catalogue.read(catalogue_folder)
    assert table["song_id"].n_unique() == len(catalogue.rows("cold_test")) and table["score"].is_finite().all()
    held_out = catalogue.cold_plays.filter(pl.col("strength") > 0).select(
        song_id=catalogue.songs["song_id"].gather(catalogue.cold_plays["song"]),
        user_id=catalogue.users["user_id"].gather(catalogue.cold_plays["user"]),
    )
    assert table.join(held_out.unique(), on=["song_id", "user_id"]).height == found["FirstPlay, ranked"]


def test_a_killed_fit_goes_on_with_its_examples(
    ranker: Path, catalogue_folder: Path, i2i_run: Path, boundary_run: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    given = catalogue_folder, i2i_run, boundary_run, tmp_path / "out"
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(ranking, "fit", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        command(*given)
    monkeypatch.setattr(ranking, "made_examples", lambda *_: pytest.fail("finished examples were made again"))
    out = command(*given)
    assert (out / "weights.safetensors").read_bytes() == (ranker / "weights.safetensors").read_bytes()


def test_folds_share_contents_and_not_vectors(
    catalogue_folder: Path, i2i_run: Path, boundary_run: Path, tmp_path: Path
) -> None:
    out = command(catalogue_folder, i2i_run, boundary_run, tmp_path / "out", "folds=2", "fold_share=0.15")
    parts = [ranking.read_examples(out / "folds" / str(k) / "examples")[0] for k in range(2)]
    both = ranking.joined(parts)
    assert both.histories is not None and parts[1].histories is not None
    second = both.histories.song_RT[both.histories.row_P[len(parts[0]) :]]
    np.testing.assert_array_equal(second, parts[1].histories.song_RT[parts[1].histories.row_P])
    for k, part in enumerate(parts):
        known = Catalogue.read(out / "folds" / str(k) / "catalogue").rows("warm")
        assert part.histories is not None and set(part.histories.song_RT.ravel().tolist()) <= {-1, *known.tolist()}
    assert read_ranker(out)["fitted_on"] == "folds"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("network.dim=10 network.heads=4", "network.dim=10 is not divisible by network.heads=4"),
        ("network.history=0", "network.history=0: must be at least 1"),
        ("network.parts=1", "network.parts=1: must be at least 2"),
        ("network.dropout=1", "network.dropout=1: must be at least 0 and below 1"),
        ("network.lr=0", "network.lr=0: must be above 0"),
        ("grades=[1,2]", r"grades=\[1.0, 2.0\]: three numbers above 0, ascending"),
    ],
)
def test_options_are_checked(given: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        load(RankConfig, ["data=d", "i2i=i", "out=o", *given.split()])
