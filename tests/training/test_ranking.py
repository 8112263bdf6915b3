"""`train.py rank` on the tiny catalogue: what it finds, what it keeps, and the leaks that it refuses."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from artifacts.fingerprints import of_folder
from artifacts.runs import open_run
from configs.errors import UserError
from configs.load import load
from configs.ranking import RankConfig, TreesConfig
from configs.targeting import AudienceConfig, EvaluateConfig
from data.catalogue import Catalogue, held_out_listeners
from inference.ranking import labels, read_ranker
from retrieval.ranking import LABELS, Examples, grades
from tests.commands import run
from tests.conftest import as_before_prior_plays
from training import ranking
from training.rank_trees import fit_trees, informative, reached

SMALL = ["depth=15", "trees.min_leaf=5", "trees.rounds=40", "trees.parts=3", "trees.leaves=4"]
FOLDS = ["folds=2", "fold_share=0.15", "label_days=0"]


def fitted(catalogue: Path, i2i: Path, boundary: Path | None, out: Path, *options: str) -> Path:
    given = [f"data={catalogue}", f"i2i={i2i}", f"out={out}", *([f"boundary={boundary}"] if boundary else [])]
    ranking.train_rank(load(RankConfig, [*given, *SMALL, *options]))
    return out


@pytest.fixture(scope="module")
def cheap(catalogue_folder: Path, i2i_run: Path, boundary_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fitted(catalogue_folder, i2i_run, boundary_run, tmp_path_factory.mktemp("rank") / "cheap")


@pytest.fixture(scope="module")
def by_folds(
    catalogue_folder: Path, i2i_run: Path, boundary_run: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    return fitted(catalogue_folder, i2i_run, boundary_run, tmp_path_factory.mktemp("rank") / "folds", *FOLDS)


def stamps(folder: Path) -> dict[str, int]:
    """When each file was last written."""
    return {str(path): path.stat().st_mtime_ns for path in sorted(folder.rglob("*")) if path.is_file()}


def test_a_cheap_run_says_what_it_was_fitted_on(cheap: Path, catalogue: Catalogue, i2i_run: Path) -> None:
    about, manifest = read_ranker(cheap), json.loads((cheap / "manifest.json").read_text())
    assert about["fitted_on"] == manifest["fitted_on"] == "cold_val" and manifest["finished"]
    assert about["encoder"] == open_run(i2i_run, "i2i").fingerprint and about["depth"] == 15
    examples, kept = ranking.read_examples(cheap / "examples")
    assert set(examples.song_P) == set(catalogue.rows("cold_val"))
    assert kept["ceilings"]["all"]["15"] == examples.label_PL[:, 0].sum() / examples.listeners  # type: ignore[index]
    assert set(about["features"]) == set(informative(examples)) and "artist_share" not in about["features"]


def test_labels_are_those_of_the_held_out_plays(cheap: Path, catalogue: Catalogue) -> None:
    examples, _ = ranking.read_examples(cheap / "examples")
    plays = catalogue.cold_plays.group_by("song", "user").agg(pl.col("completed", "favourited").any(), "strength")
    told = {(row["song"], row["user"]): row for row in plays.iter_rows(named=True)}
    assert examples.label_PL is not None and set(np.unique(examples.label_PL[:, :4])) == {0.0, 1.0}
    assert np.isnan(examples.label_PL[examples.label_PL[:, 0] == 1, 4]).all(), "the data have no dislikes"
    for song, user, label in zip(examples.song_P, examples.user_P, examples.label_PL, strict=True):
        row, found = told.get((song, user)), dict(zip(LABELS, label, strict=True))
        if row is None:
            assert not label.any()
        else:
            skipped = not (row["completed"] or row["favourited"])
            wanted = {"played": 1.0, "completed": row["completed"], "favourited": row["favourited"], "skipped": skipped}
            assert {name: found[name] for name in wanted} == wanted


def test_what_a_play_does_not_tell_is_no_label() -> None:
    flags = {"completed": [None, True, None], "favourited": [None, None, True], "disliked": [None, None, False]}
    plays = pl.DataFrame({"song": [4, 4, 4], "user": [1, 2, 3], "strength": [1.0, 2.0, 3.0], **flags})
    found = labels(plays, np.array([4, 4, 4, 5]), np.array([1, 2, 3, 1]))
    nan = float("nan")
    expected = [[1, nan, nan, nan, nan], [1, 1, nan, 0, nan], [1, nan, 1, nan, 0], [0, 0, 0, 0, 0]]
    np.testing.assert_array_equal(found, expected)


def test_ranked_lists_beat_chance_on_new_songs(
    by_folds: Path, catalogue_folder: Path, i2i_run: Path, boundary_run: Path, tmp_path: Path
) -> None:
    run("index", f"run={i2i_run}", f"out={tmp_path}/index")
    given = [f"data={catalogue_folder}", f"index={tmp_path}/index", f"boundary={boundary_run}", "budgets=[10]"]
    run("evaluate", *given, f"rank={by_folds}", f"out={tmp_path}/evaluation")
    metrics = json.loads((tmp_path / "evaluation" / "metrics.json").read_text())
    found = {row["method"]: row["target_users_found@10"] for row in metrics["audience"]}
    assert found["FirstPlay, ranked"] > 1.3 * found["random"]
    assert 0 < metrics["candidates"]["i2i2u"]["15"] <= metrics["candidates"]["all"]["15"] <= 1
    assert any(part["method"] == "FirstPlay, ranked" for part in metrics["parts"])
    out, options = tmp_path / "audience", [f"index={tmp_path}/index", f"boundary={boundary_run}", f"rank={by_folds}"]
    run("audience", "mode=rank", *options, "targeting.budget=10", f"out={out}")
    table = pl.read_parquet(out / "audience.parquet")
    assert table["song_id"].n_unique() == len(Catalogue.read(catalogue_folder).rows("cold_test"))
    assert table["score"].is_finite().all() and table["because"].list.len().min() > 0  # type: ignore[operator]
    hits = table.join(held_out(catalogue_folder), on=["song_id", "user_id"]).height
    assert hits == found["FirstPlay, ranked"]


def held_out(folder: Path) -> pl.DataFrame:
    catalogue = Catalogue.read(folder)
    song, user = held_out_listeners(catalogue, catalogue.rows("cold_test"))
    return pl.DataFrame(
        {"song_id": catalogue.songs["song_id"].gather(song), "user_id": catalogue.users["user_id"].gather(user)}
    )


def test_songs_are_not_evaluated_by_a_ranker_that_was_fitted_on_them(
    cheap: Path, catalogue_folder: Path, i2i_run: Path, boundary_run: Path, tmp_path: Path
) -> None:
    run("index", f"run={i2i_run}", f"out={tmp_path}/index")
    given = [f"data={catalogue_folder}", f"index={tmp_path}/index", f"rank={cheap}", f"out={tmp_path}/e"]
    with pytest.raises(UserError, match=r"was fitted on the cold_val songs: it cannot be evaluated on them"):
        run("evaluate", *given, f"boundary={boundary_run}", "split=cold_val")
    with pytest.raises(UserError, match="was fitted with another boundary model, or with one: give boundary="):
        run("evaluate", *given)
    with pytest.raises(UserError, match=r"was fitted with targeting\.neighbours=100: give the same options"):
        run("evaluate", *given, f"boundary={boundary_run}", "targeting.neighbours=9")
    assert not (tmp_path / "e").exists()


def test_folds_shrink_few_plays_as_the_boundary_does(
    boundary_run: Path, by_folds: Path, catalogue: Catalogue, tmp_path: Path
) -> None:
    """A run of an earlier version, which does not name the option, did not."""
    assert open_run(by_folds / "folds" / "0" / "boundary", "boundary").hparams["prior_plays"] == 4
    before = open_run(as_before_prior_plays(boundary_run, tmp_path / "before"), "boundary")
    fold = ranking.trained_again(before, catalogue, tmp_path / "fold")
    assert fold.hparams["prior_plays"] == fold.config["model"]["prior_plays"] == 0


def test_folds_go_on_where_a_kill_left_them(
    by_folds: Path, catalogue_folder: Path, i2i_run: Path, boundary_run: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    """Killed after each piece of work in turn: what was finished is not made again, and the end is the same."""
    out, calls = tmp_path / "out", {"left": 0}

    def killed_after(name: str, module: Any) -> None:
        work = getattr(module, name)

        def wrapped(*given: Any, **named: Any) -> Any:
            if calls["left"] == 0:
                raise KeyboardInterrupt
            calls["left"] -= 1
            return work(*given, **named)

        monkeypatch.setattr(module, name, wrapped)

    for name in ("write_fold", "trained_again", "examples_in", "fit"):
        killed_after(name, ranking)
    pieces, earlier = 0, {}
    while True:
        calls["left"], pieces = pieces, pieces + 1
        try:
            fitted(catalogue_folder, i2i_run, boundary_run, out, *FOLDS)
            break
        except KeyboardInterrupt:
            assert pieces < 12
        now = stamps(out / "folds") if (out / "folds").exists() else {}
        assert {path: now.get(path) for path in earlier} == earlier, "a finished piece was made again"
        earlier = now
    assert pieces == 10, "two folds of four pieces, and the fit"
    assert (out / "model.txt").read_text() == (by_folds / "model.txt").read_text()
    before = stamps(out)
    calls["left"] = 0
    fitted(catalogue_folder, i2i_run, boundary_run, out, *FOLDS)
    assert stamps(out) == before, "a finished run does nothing"


def test_another_option_is_refused(by_folds: Path, catalogue_folder: Path, i2i_run: Path, boundary_run: Path) -> None:
    with pytest.raises(UserError, match="holds a run with other options"):
        fitted(catalogue_folder, i2i_run, boundary_run, by_folds, *FOLDS, "seed=1")


def test_an_encoder_that_knows_the_songs_is_refused(
    by_folds: Path, catalogue: Catalogue, i2i_run: Path, boundary_run: Path, tmp_path: Path
) -> None:
    fold = Catalogue.read(by_folds / "folds" / "0" / "catalogue")
    songs = fold.rows("cold_test")
    for folder, task in ((i2i_run, "i2i"), (boundary_run, "boundary")):  # they are trained on the songs' plays
        with pytest.raises(UserError, match="was trained on another catalogue"):
            ranking.check_unseen(open_run(folder, task), fold, songs)
    for task in ("i2i", "boundary"):
        ranking.check_unseen(open_run(by_folds / "folds" / "0" / task, task), fold, songs)
    copied = shutil.copytree(i2i_run, tmp_path / "i2i")  # says that it is the fold's, and is not
    manifest = json.loads((copied / "manifest.json").read_text())
    manifest["made_from"]["data"] = of_folder(fold.folder)
    (copied / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(UserError, match=f"has seen plays of {len(songs)} songs that are to be new"):
        ranking.check_unseen(open_run(copied, "i2i"), fold, songs)


def test_a_leak_in_a_fold_stops_the_command(
    by_folds: Path, catalogue_folder: Path, i2i_run: Path, boundary_run: Path
) -> None:
    made = Catalogue.read(by_folds / "folds" / "1" / "catalogue")
    changed = [by_folds / "manifest.json", made.folder / "plays.parquet"]
    before = [path.read_bytes() for path in changed]
    changed[0].write_text(json.dumps(json.loads(before[0]) | {"finished": False}))
    stolen = made.cold_plays.head(1).select(made.plays.columns).cast(made.plays.schema)  # type: ignore[arg-type]
    pl.concat([made.plays, stolen]).write_parquet(changed[1])
    with pytest.raises(UserError, match="rows name a held-out song"):
        fitted(catalogue_folder, i2i_run, boundary_run, by_folds, *FOLDS)
    assert (by_folds / "folds" / "1" / "i2i" / "checkpoints" / "best.ckpt").exists(), "what was trained is kept"
    for path, content in zip(changed, before, strict=True):
        path.write_bytes(content)


def test_without_dates_profiles_and_boundary(
    prepare: Callable[..., Path], dataset: Path, train_i2i: Callable[..., Path], tmp_path: Path
) -> None:
    source = tmp_path / "dataset"
    source.mkdir()
    songs = pl.read_parquet(dataset / "songs.parquet").select("song_id", "feature_content")
    songs.write_parquet(source / "songs.parquet")
    pl.read_parquet(dataset / "plays.parquet").select("user_id", "song_id").write_parquet(source / "plays.parquet")
    data = prepare(source, tmp_path / "catalogue")
    i2i = train_i2i(tmp_path / "i2i", f"data={data}", "trainer.epochs=1")
    out = fitted(data, i2i, None, tmp_path / "out", "folds=2")
    names, about = read_ranker(out)["features"], read_ranker(out)
    assert about["boundary"] is None and {"i2i2u_score", "cosine_mean", "activity", "popularity"} <= set(names)
    absent = {"margin", "recency", "tenure", "openness", "artist_share", "genres_share", "favourited_share"}
    assert not absent & set(names) and not any(name.startswith("profile_") for name in names)


# ------------------------------------------------------------------------------------------------------------- trees


def drawn(seed: int = 0, songs: int = 40, users: int = 60) -> Examples:
    """Pairs whose first feature says who listens and whose second who favourites; the third is the same everywhere."""
    rng = np.random.default_rng(seed)
    song = np.repeat(np.arange(songs), users)
    value = rng.standard_normal((len(song), 2))
    played = rng.random(len(song)) < 1 / (1 + np.exp(3 - 2 * value[:, 0]))
    favourited = played & (rng.random(len(song)) < 1 / (1 + np.exp(1 - 2 * value[:, 1])))
    label = np.stack([played, played, favourited, np.zeros_like(played), np.zeros_like(played)], axis=1)
    feature = np.c_[value, np.full(len(song), 7.0)].astype(np.float32)
    user = np.tile(np.arange(users), songs)
    return Examples(song, user, feature, ("a", "b", "c"), (), label.astype(np.float32), int(played.sum()))


@pytest.mark.parametrize("objective", ["cross_entropy", "lambdarank"])
def test_trees_rank_songs_that_they_did_not_see_above_chance(objective: Any) -> None:
    examples = drawn()
    found = fit_trees(examples, TreesConfig(objective=objective, min_leaf=20), 0)
    chance = reached(examples, np.random.default_rng(1).random(len(examples)), 10)["found"]
    assert found.names == ("a", "b") and reached(examples, found.apart_P, 10)["found"] > 2 * chance


@pytest.mark.parametrize("objective", ["cross_entropy", "lambdarank"])
def test_grades_decide_between_listeners_and_favourites(objective: Any) -> None:
    examples = drawn()
    options = TreesConfig(objective=objective, min_leaf=20)
    low, high = (reached(examples, fit_trees(examples, options, 0, of).apart_P, 10) for of in ((1, 1, 1), (1, 1, 50)))
    assert high["favourite_rate"] > 1.05 * low["favourite_rate"] and high["found"] < low["found"]


def test_a_songs_score_apart_does_not_hang_on_its_own_labels() -> None:
    examples, options = drawn(), TreesConfig(min_leaf=20, rounds=1, parts=2)
    assert examples.label_PL is not None
    before = fit_trees(examples, options, 0).apart_P
    left = (np.random.default_rng(0).permutation(40) % 2 == 0)[examples.group_P]
    other = examples.label_PL.copy()
    other[left] = other[left][::-1]
    changed = fit_trees(replace(examples, label_PL=other), options, 0).apart_P
    np.testing.assert_array_equal(changed[left], before[left])
    assert not np.allclose(changed[~left], before[~left])


def test_columns_may_have_any_name() -> None:
    examples, odd = drawn(), ('profile_{"a, b": [c]}', "profile_a b", "profile_a_b")
    plain = fit_trees(replace(examples, codes=("b",)), TreesConfig(min_leaf=20), 0)
    found = fit_trees(replace(examples, names=odd, codes=odd[1:2]), TreesConfig(min_leaf=20), 0)
    assert found.names == odd[:2] and found.model == plain.model


def test_trees_that_split_nowhere_are_refused() -> None:
    with pytest.raises(UserError, match=r"min_leaf=200: by 240 candidates, .* no feature tells who listens"):
        fit_trees(drawn(songs=4), TreesConfig(), 0)


def test_a_missing_lightgbm_is_told_before_any_work(
    catalogue_folder: Path, i2i_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "lightgbm", None)
    monkeypatch.setattr(ranking, "parts_of", lambda *_: pytest.fail("work began"))
    with pytest.raises(UserError, match="needs LightGBM"):
        fitted(catalogue_folder, i2i_run, None, tmp_path / "rank")
    assert not (tmp_path / "rank").exists()


def test_found_and_rates_against_a_loop() -> None:
    examples = drawn(songs=6)
    assert examples.label_PL is not None
    score = np.random.default_rng(3).random(len(examples))
    score[::7] = np.nan
    found = reached(examples, score, 5)
    top = []
    for song in range(6):
        at = np.flatnonzero((examples.song_P == song) & np.isfinite(score))
        top += at[np.argsort(-score[at])][:5].tolist()
    played = [row for row in examples.label_PL[top] if row[0] == 1]
    assert found["found"] == len(played) and found["favourite_rate"] == pytest.approx(np.mean(played, axis=0)[2])


def test_grades_go_by_the_strongest_signal() -> None:
    nan = float("nan")
    label = np.array(
        [[0, 0, 0, 0, 0], [1, 0, 0, 1, 0], [1, 1, 0, 0, 0], [1, nan, 1, 0, 0], [1, 1, 1, 0, 1], [1, nan, nan, nan, nan]]
    )
    of = replace(drawn(), label_PL=label.astype(np.float32))
    assert grades(of).tolist() == [0, 1, 2, 3, 0, 1]


@pytest.mark.parametrize(
    ("schema", "given", "said"),
    [
        (RankConfig, "data=d i2i=i out=o folds=1", "folds=1 leaves no other fold"),
        (RankConfig, "data=d i2i=i out=o depth=0", "depth=0: must be at least 1"),
        (RankConfig, "data=d i2i=i out=o fold_share=0.5", "fold_share=0.5: must be above 0 and below 0.5"),
        (RankConfig, "data=d i2i=i out=o trees.leaves=200000", "trees.leaves=200000: at most 131072"),
        (RankConfig, "data=d i2i=i out=o depth=3400 trees.objective=lambdarank", "give depth=3333 at most"),
        (RankConfig, "data=d i2i=i out=o trees.columns=0", "trees.columns=0 must be above 0 and at most 1"),
        (RankConfig, "data=d i2i=i out=o grades=[3,2,1]", "three numbers above 0, ascending"),
        (AudienceConfig, "index=i out=o mode=rank", "missing option: rank="),
    ],
)
def test_options_are_checked(schema: Any, given: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        load(schema, given.split())
    assert load(EvaluateConfig, ["data=d", "index=i", "out=o", "rank=r"]).rank == "r"
