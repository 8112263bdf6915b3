"""The figures of `pipeline.evaluate` against brute force on toy inputs, and what it refuses to measure."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import pytest
from scipy import sparse

from configs.errors import UserError
from configs.load import load
from configs.targeting import EvaluateConfig, IndexConfig, TargetingConfig
from data.catalogue import Catalogue, held_out_listeners
from data.fields import SongFields
from evaluation import baselines, outcomes
from evaluation import evaluation as evaluate
from evaluation.evaluation import find_all
from evaluation.outcomes import gate_figures, reach_figures
from inference.song_index import SongIndex
from inference.targeting import targeting_of
from inference.vectors import Boundary
from pipeline import index as index_command
from retrieval.audience import Audience
from retrieval.index import build_index
from retrieval.listening import Listening
from retrieval.songs import Similar, Songs


def test_held_out_listeners_are_of_the_asked_songs_each_once_and_no_dislikers() -> None:
    plays = [(0, 4, 1.0), (0, 4, 3.0), (1, 4, -1.0), (2, 4, -1.0), (2, 4, 1.0), (3, 1, 2.0), (0, 2, 1.0), (5, 1, 1.0)]
    frame = pl.DataFrame(plays, schema={"user": pl.Int32, "song": pl.Int32, "strength": pl.Float32}, orient="row")
    song, user = held_out_listeners(SimpleNamespace(cold_plays=frame), np.array([1, 4]))
    assert sorted(zip(song.tolist(), user.tolist(), strict=True)) == [(1, 3), (1, 5), (4, 0), (4, 2)]


# ------------------------------------------------------------------------------------------ outcomes.py


@pytest.mark.parametrize("source", ["truth", "logged plays"])
def test_outcome_rates_count_the_reached_pairs_alone(source: str) -> None:
    rng = np.random.default_rng(0)
    known = pl.DataFrame({"song": np.repeat(np.arange(6), 5), "user": np.tile(np.arange(5), 6)}).with_columns(
        completed=pl.Series([None if x < 0.2 else bool(x > 0.6) for x in rng.random(30)]),
        favourited=pl.Series([None if x < 0.2 else bool(x > 0.7) for x in rng.random(30)]),
        strength=pl.lit(1.0),
    )
    known = known.with_columns(pl.col("song", "user").cast(pl.UInt32 if source == "truth" else pl.Int32))
    new, audience = np.array([1, 4]), Audience(np.array([[0, 3, -1], [2, 7, 4]]), np.zeros((2, 3)))
    empty = Audience(np.full((2, 3), -1), np.zeros((2, 3)))
    table = known if source == "truth" else outcomes.logged(SimpleNamespace(cold_plays=known))
    result = outcomes.outcome_rates({"ours": audience, "none": empty}, table, source, new, seed=4)
    assert result["source"] == source and outcomes.outcome_rates({}, table, source, np.array([9])) == {}
    pairs = {
        "everybody": [(s, u) for s in (1, 4) for u in range(5)],
        "ours": [(1, 0), (1, 3), (4, 2), (4, 4)],
        "none": [],
    }
    for row in result["rows"]:
        wanted = [r for r in known.iter_rows(named=True) if (r["song"], r["user"]) in pairs[row["method"]]]
        if source != "truth":
            wanted = [r for r in wanted if r["completed"] is not None or r["favourited"] is not None]
        assert row["outcomes"] == len(wanted)
        for rate, column in (("favourite_rate", "favourited"), ("completion_rate", "completed")):
            values = [r[column] for r in wanted if r[column] is not None]
            share = float(np.mean(values)) if values else None
            assert row[rate] == (None if share is None else pytest.approx(share))
            low, high = row[f"{rate}_ci95"] or [None, None]
            assert (low, high) == (None, None) if share is None else low <= share <= high


def exposed(songs: int = 12, users: int = 30) -> tuple[pl.DataFrame, dict[str, Audience]]:
    """Outcomes of all users with all songs, some unknown; some songs are liked better; a method and one with a gate."""
    rng = np.random.default_rng(7)
    song, user = np.divmod(np.arange(songs * users), users)
    liked = rng.random(len(song)) < np.linspace(0.1, 0.7, songs)[song]
    favourited = pl.Series([None if x < 0.1 else bool(y) for x, y in zip(rng.random(len(song)), liked, strict=True)])
    columns = {"song": song + 3, "user": user, "completed": rng.random(len(song)) < 0.5, "favourited": favourited}
    users_CB = np.stack([rng.permutation(users)[:9] for _ in range(songs)])
    gated_CB = np.where(rng.random(users_CB.shape) < 0.3, -1, users_CB)
    gated_CB[4] = -1
    found = {"FirstPlay I2I2U": users_CB, "FirstPlay I2I2U, gated": gated_CB}
    return pl.DataFrame(columns), {name: Audience(one, np.zeros(one.shape)) for name, one in found.items()}


def test_intervals_of_rates_and_of_their_differences_are_over_songs_drawn_for_both() -> None:
    truth, found = exposed()
    result = outcomes.outcome_rates(found, truth, "truth", np.arange(3, 15), seed=2)
    met = {}
    for name, audience in found.items():
        met[name] = [
            truth.filter((pl.col("song") == c + 3) & pl.col("user").is_in(users[users >= 0].tolist()))["favourited"]
            .drop_nulls()
            .to_list()
            for c, users in enumerate(audience.users_CB)
        ]
    rng, drawn = np.random.default_rng(2), []
    for _ in range(2000):
        at = rng.integers(0, 12, 12)
        drawn.append([np.mean([liked for i in at for liked in one[i]]) for one in met.values()])
    for row, rates in zip(result["rows"][1:], np.array(drawn).T, strict=True):
        assert row["favourite_rate_ci95"] == pytest.approx(np.quantile(rates, (0.025, 0.975)))
    (part,) = result["parts"]
    assert (part["part"], part["method"], part["less"]) == ("gate on I2I2U", *list(found)[::-1])
    assert part["favourite_rate"] == pytest.approx(
        result["rows"][2]["favourite_rate"] - result["rows"][1]["favourite_rate"]
    )
    less = np.array(drawn) @ [-1, 1]
    assert part["favourite_rate_ci95"] == pytest.approx(np.quantile(less, (0.025, 0.975)))


def test_truth_is_read_by_id(tmp_path: Path) -> None:
    catalogue: Any = SimpleNamespace(
        songs=pl.DataFrame({"song_id": ["s0", "s1", "s2"]}), users=pl.DataFrame({"user_id": ["b", "a"]})
    )
    truth = {"song_id": ["s2", "s0", "s9", "s1"], "user_id": ["a", "b", "a", "x"]}
    flags = {"completed": [True, False, True, True], "favourited": [False, True, True, True]}
    pl.DataFrame(truth | flags).write_parquet(tmp_path / "truth.parquet")
    read = outcomes.read_truth(str(tmp_path / "truth.parquet"), catalogue)
    assert sorted(read.rows()) == [(0, 0, False, True), (2, 1, True, False)]


NEW = np.arange(5, 15)


def gate_world() -> tuple[Boundary, np.ndarray, pl.DataFrame]:
    """Ten new songs, 40 users, all pairs exposed; who clears the boundary by more likes it more often."""
    rng = np.random.default_rng(0)
    item, user, edge = rng.normal(size=(15, 3)), rng.normal(size=(40, 3)), rng.normal(size=40)
    boundary: Any = Boundary(None, item, user, edge)  # type: ignore[arg-type]
    song, who = (at.ravel() for at in np.meshgrid(NEW, np.arange(40), indexing="ij"))
    margin = (item[song] * user[who]).sum(axis=1) - edge[who]
    liked = rng.random(400) < 1 / (1 + np.exp(-(0.5 * margin - 1)))
    completed = liked & (rng.random(400) < 0.9)
    columns = {"song": song, "user": who, "completed": completed, "favourited": liked & ~completed}
    return boundary, margin, pl.DataFrame(columns)


def test_gate_figures_are_those_of_the_exposures() -> None:
    boundary, margin, truth = gate_world()
    found = gate_figures(boundary, NEW, NEW, truth.sample(fraction=1, shuffle=True, seed=2), "truth")
    liked = (truth["completed"] | truth["favourited"]).to_numpy()
    assert found["source"] == "truth" and found["exposures"] == 400
    row = found["curve"][10]
    passed = margin >= row["margin"] - 1e-9
    assert row["passed"] == pytest.approx(passed.mean()) and row["liked_rate"] == pytest.approx(liked[passed].mean())
    assert row["completion_rate"] == pytest.approx(truth["completed"].to_numpy()[passed].mean())
    assert found["at_the_boundary"]["precision"] == pytest.approx(liked[margin > 0].mean())
    higher = gate_figures(boundary, NEW, NEW, truth, "truth", 1.5)
    assert higher["margin"] == 1.5 and higher["curve"] == found["curve"] and found["margin"] == 0
    assert higher["at_the_boundary"]["precision"] == pytest.approx(liked[margin > 1.5].mean())
    assert higher["at_the_boundary"]["recall"] == pytest.approx(liked[margin > 1.5].sum() / liked.sum())
    assert found["calibration"]["slope"] == pytest.approx(0.5, abs=0.15)
    assert found["calibration_error"] < 0.6 * found["calibration_error_before"]
    assert gate_figures(boundary, NEW, NEW, truth.head(10), "truth") == {}, "too few"
    unknown = gate_figures(boundary, NEW, np.arange(5), truth, "truth")
    assert "calibration" not in unknown and unknown["exposures"] == 400, "nothing to fit a calibration to"


def test_reach_is_by_the_score_of_i2i2u() -> None:
    """Exposures are scored as an audience is: by similar songs that the user heard, less the more active they are."""
    boundary, margin, truth = gate_world()
    rng = np.random.default_rng(4)
    heard = rng.random((40, 15)) < 0.5
    heard[:, NEW] = False
    weights = sparse.csr_matrix(np.pad(rng.random((10, 5)), ((0, 0), (0, 10))))
    nothing = np.zeros((10, 0))
    asked = Songs(nothing, Similar(nothing, nothing, nothing, weights))
    for power in (0.0, 0.5):
        score = ((weights @ heard.T) * (heard.sum(axis=1) + 1.0) ** -power)[truth["song"] - 5, truth["user"]]
        mixed = truth.with_columns(score=pl.Series(score), margin=pl.Series(margin)).sample(fraction=1, shuffle=True)
        listening = Listening(sparse.csr_matrix(heard.astype(np.float32)))
        targeting = targeting_of(SongIndex({}, None, NEW, nothing), listening, TargetingConfig(activity_power=power))
        found = reach_figures(boundary, NEW, asked, mixed.drop("score", "margin"), targeting, 0.2)
        near = mixed.filter(pl.col("score") > 0)  # others are reached by nobody
        for way, passing in (("ungated", near), ("gated", near.filter(pl.col("margin") > 0.2))):
            best = passing.sort("score", descending=True).group_by("song").head(12)
            row = next(row for row in found[way] if row["reached"] == pytest.approx(best.height / 400))
            assert row["favourite_rate"] == pytest.approx(best["favourited"].mean())
            assert row["completion_rate"] == pytest.approx(best["completed"].mean())


# ----------------------------------------------------------------------------------------- baselines.py


def test_random_users_are_drawn_without_repetition_and_evenly() -> None:
    drawn = baselines.random_users(2000, 30, 12, seed=0).users_CB
    assert drawn.shape == (2000, 12) and all(len(set(row)) == 12 for row in drawn.tolist())
    expected, spread = 2000 * 12 / 30, np.sqrt(2000 * 0.4 * 0.6)
    assert (np.abs(np.bincount(drawn.ravel(), minlength=30) - expected) < 4.5 * spread).all()
    assert (drawn == baselines.random_users(2000, 30, 12, seed=0).users_CB).all()
    assert (drawn != baselines.random_users(2000, 30, 12, seed=1).users_CB).any()
    assert sorted(baselines.random_users(1, 5, 9, seed=0).users_CB[0]) == [-1] * 4 + [0, 1, 2, 3, 4], (
        "no more than there are"
    )


def test_most_active_users_are_the_same_for_every_song() -> None:
    found = baselines.most_active_users(np.array([1, 3, 0, 2]), 3, 3)
    assert found.users_CB.tolist() == [[1, 3, 0]] * 3 and found.scores_CB.tolist() == [[3, 2, 1]] * 3


@pytest.mark.parametrize("k", [4, 50])
def test_content_knn_sums_cosines_of_heard_neighbours(k: int) -> None:
    rng = np.random.default_rng(1)
    vectors = rng.standard_normal((25, 6)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    warm, new = np.arange(3, 25), np.arange(3)
    heard = rng.random((30, 25)) < 0.2
    heard[:, :3], heard[6] = False, False
    listening = sparse.csr_matrix(np.where(heard, rng.integers(1, 4, heard.shape), 0).astype(np.float32))
    index = SongIndex({}, build_index(vectors[warm]), warm, vectors)
    targeting = targeting_of(index, Listening(listening), TargetingConfig(activity_power=2.0))
    found = baselines.content_knn(index, targeting, new, 30, k)
    for row, song in enumerate(new):
        near = sorted(warm, key=lambda other: -vectors[song] @ vectors[other])[:k]
        score = [sum(max(0.0, vectors[song] @ vectors[o]) for o in near if heard[u, o]) for u in range(30)]
        expected = sorted((u for u in range(30) if score[u] > 1e-6), key=lambda u: -score[u])
        assert found.users_CB[row].tolist() == expected + [-1] * (30 - len(expected))
        np.testing.assert_allclose(found.scores_CB[row, : len(expected)], [score[u] for u in expected], rtol=1e-4)


def test_content_vectors_weigh_fields_alike_and_know_no_new_song() -> None:
    rng = np.random.default_rng(0)
    dense = rng.standard_normal((20, 5)).astype(np.float32) * 100 + 7
    dense[4] = np.nan
    codes = np.zeros((20, 8), dtype=np.int64)
    codes[:, 0] = rng.integers(0, 5, 20)
    codes[6, :3] = (2, 3, 4)
    fields, warm = SongFields({"audio": dense}, {"tags": codes}, {"tags": ["a", "b", "c"]}), np.arange(15)
    made = baselines.content_vectors(fields, warm)
    assert made.shape == (20, 5 + baselines.SKETCH) and made.dtype == np.float32
    audio = np.nan_to_num(dense - np.nanmean(dense[:15], axis=0))
    table = np.random.default_rng(0).standard_normal((5, baselines.SKETCH), dtype=np.float32)
    tags = np.stack([sum(table[code] for code in row if code >= 2) + 0 * table[0] for row in codes])
    for part, wanted in ((made[:, :5], audio), (made[:, 5:], tags)):  # a missing value is zero, all others are unit
        length = np.linalg.norm(wanted, axis=1, keepdims=True)
        np.testing.assert_allclose(part, wanted / np.where(length, length, 1), atol=1e-5)
    dense[15:] += 1000
    assert (baselines.content_vectors(fields, warm)[:15] == made[:15]).all(), "centred on known songs alone"


# -------------------------------------------------------------------------------------- the command itself


@pytest.fixture(scope="module")
def index_folder(i2i_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("evaluate") / "index"
    index_command.main(load(IndexConfig, [f"run={i2i_run}", f"out={out}"]))
    return out


def measure(catalogue: Path, index: Path, out: Path, *options: str) -> dict[str, Any]:
    evaluate.evaluate(load(EvaluateConfig, [f"data={catalogue}", f"index={index}", f"out={out}", *options]))
    return json.loads((out / "metrics.json").read_text("utf-8"), parse_constant=pytest.fail)


def test_each_method_is_measured_at_each_budget(index_folder: Path, catalogue_folder: Path, tmp_path: Path) -> None:
    row = measure(catalogue_folder, index_folder, tmp_path / "out", "budgets=[20,5,10,5]")["audience"][-1]
    assert list(row)[1:16:5] == [f"target_users_found@{budget}" for budget in (5, 10, 20)]
    songs = sum(bucket["songs"] * bucket["recall"] for bucket in row["by_listeners"])
    heard = sum(bucket["songs"] for bucket in row["by_listeners"])
    assert songs / heard == pytest.approx(row["recall@20"]), "buckets are those of the largest budget"


def test_rows_of_all_rivals_and_how_much_cat_has_in_common(
    index_folder: Path, catalogue_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A further model is targeted as FirstPlay is: here it is the same model, and finds the same."""
    drawn: dict[str, Audience] = {}
    monkeypatch.setattr(evaluate, "find_all", lambda *given: drawn.update(found := find_all(*given)) or found)
    result = measure(
        catalogue_folder, index_folder, tmp_path / "out", "budgets=[5,20]", f"compare={{the same: {index_folder}}}"
    )
    rows = {row["method"]: row for row in result["audience"]}
    assert list(rows) == [
        "random", "most active users", "content kNN", "ridge → EASE", "content kNN, our targeting", "the same",
        "FirstPlay I2I2U", "FirstPlay taste", "FirstPlay CAT", "FirstPlay I2I2U ∪ CAT",
        "FirstPlay I2I2U ∪ taste",
    ]  # fmt: skip
    assert {**rows["the same"], "method": ""} == {**rows["FirstPlay I2I2U"], "method": ""}
    assert result["ridge_to_ease"].keys() == {"ridge", "ease", "of", "power"}
    assert "taste in place of I2I2U" in [part["part"] for part in result["parts"]]
    for row in result["overlap"]:
        for budget in (5, 20):
            shares = []
            for lists in zip(drawn[row["method"]].users_CB, drawn[row["other"]].users_CB, strict=True):
                sets = [set(users[:budget].tolist()) - {-1} for users in lists]
                shares.append(len(sets[0] & sets[1]) / max(map(len, sets)))
            assert row[f"overlap@{budget}"] == pytest.approx(np.mean(shares))
    assert [row["other"] for row in result["overlap"]] == ["FirstPlay taste", "FirstPlay I2I2U"]


def test_ease_is_left_out_of_a_large_catalogue(
    index_folder: Path, catalogue_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = measure(catalogue_folder, index_folder, tmp_path / "out", "ease_songs=3")
    assert "ridge → EASE" not in [row["method"] for row in result["audience"]] and result["ridge_to_ease"] == {}
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "left out" in line]
    assert line.startswith("ridge → EASE is left out: ") and line.endswith("ease_songs=3")


@pytest.mark.parametrize(
    ("name", "says"), [("FirstPlay, other", "choose another name"), ("content kNN", "rows of that name already")]
)
def test_a_compared_model_has_a_name_of_its_own(
    name: str, says: str, index_folder: Path, catalogue_folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=says):
        measure(catalogue_folder, index_folder, tmp_path / "out", f"compare={{'{name}': {index_folder}}}")


@pytest.mark.parametrize("left", [pl.lit(False), pl.col("strength") < 0], ids=["no play", "dislikes"])
def test_without_a_held_out_listener_nothing_is_measured(
    left: pl.Expr, index_folder: Path, catalogue: Catalogue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    of_others = pl.col("song").is_in(catalogue.rows("cold_val"))
    monkeypatch.setattr(Catalogue, "cold_plays", catalogue.cold_plays.filter(left | of_others))
    with pytest.raises(UserError, match=r"no cold_test song has a held-out listener"):
        measure(catalogue.folder, index_folder, tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_validation_songs_and_a_budget_above_the_number_of_users(
    index_folder: Path, catalogue_folder: Path, catalogue: Catalogue, tmp_path: Path
) -> None:
    result = measure(catalogue_folder, index_folder, tmp_path / "out", "split=cold_val", "budgets=[500]")
    assert result["split"] == "cold_val" and result["new_songs"] == len(catalogue.rows("cold_val"))
    assert "flattered" in (tmp_path / "out" / "report.html").read_text("utf-8")
    random = next(row for row in result["audience"] if row["method"] == "random")
    assert random["reached@500"] == catalogue.n_users * result["new_songs"] and random["recall@500"] == 1.0


def test_the_screen_shows_listeners_found_and_the_favourite_rate() -> None:
    rows = [{"method": "random", "target_users_found@50": 1036, "recall@50": 0.25, "recall@50_ci95": [0.2, 0.3]},
            {"method": "cap 2", "target_users_found@50": 40, "recall@50": 0.5}]  # fmt: skip
    outcomes = {"rows": [{"method": "everybody", "favourite_rate": 0.1}, {"method": "random", "favourite_rate": 0.125}]}
    head, *shown = evaluate.table({"audience": rows, "outcomes": outcomes}).splitlines()
    assert head.split() == ["method", "found@50", "recall@50", "favourite", "rate"]
    assert [line.split() for line in shown] == [["random", "1,036", "0.2500", "0.1250"], ["cap", "2", "40", "0.5000"]]
    assert "favourite" not in evaluate.table({"audience": rows, "outcomes": None})
