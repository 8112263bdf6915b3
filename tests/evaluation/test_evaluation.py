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
from data.catalogue import Catalogue
from data.fields import SongFields
from data.item_pairs.verification import listening_matrix
from evaluation import baselines, figures, outcomes
from evaluation import evaluation as evaluate
from evaluation.calibration import gate_figures, reach_figures
from inference.song_index import SongIndex
from inference.targeting import targeting_of
from inference.vectors import Boundary
from pipeline import index as index_command
from retrieval.audience import Audience
from retrieval.index import build_index
from retrieval.listening import Listening
from retrieval.targeting import Similar, Songs


def toy(songs: dict[str, Any], **tables: Any) -> Any:
    """A catalogue in memory."""
    n = len(next(iter(songs.values())))
    frame = pl.DataFrame({"song_id": [f"s{i}" for i in range(n)], **songs})
    split = frame["split"].to_numpy() if "split" in songs else np.full(n, "warm")
    return SimpleNamespace(songs=frame, n_songs=n, rows=lambda name: np.flatnonzero(split == name), **tables)


# ------------------------------------------------------------------------------------------ evaluate.py


def test_held_out_listeners_are_of_the_asked_songs_each_once_and_no_dislikers() -> None:
    plays = [(0, 4, 1.0), (0, 4, 3.0), (1, 4, -1.0), (2, 4, -1.0), (2, 4, 1.0), (3, 1, 2.0), (0, 2, 1.0), (5, 1, 1.0)]
    frame = pl.DataFrame(plays, schema={"user": pl.Int32, "song": pl.Int32, "strength": pl.Float32}, orient="row")
    row, user = evaluate.listeners_by_position(toy({"title": [""] * 6}, cold_plays=frame), np.array([1, 4]))
    assert sorted(zip(row.tolist(), user.tolist(), strict=True)) == [(0, 3), (0, 5), (1, 0), (1, 2)]


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
    nobody = Audience(np.full((2, 3), -1), np.zeros((2, 3)))
    truth, catalogue = (known if source == "truth" else None), toy({"title": [""] * 6}, cold_plays=known)
    told = outcomes.outcome_rates({"ours": audience, "none": nobody}, truth, catalogue, new, seed=4)
    assert told["source"] == source
    pairs = {
        "everybody": [(s, u) for s in (1, 4) for u in range(5)],
        "ours": [(1, 0), (1, 3), (4, 2), (4, 4)],
        "none": [],
    }
    for row in told["rows"]:
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
    told = outcomes.outcome_rates(found, truth, toy({"title": [""] * 15}), np.arange(3, 15), seed=2)
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
    for row, rates in zip(told["rows"][1:], np.array(drawn).T, strict=True):
        assert row["favourite_rate_ci95"] == pytest.approx(np.quantile(rates, (0.025, 0.975)))
    (part,) = told["parts"]
    assert (part["part"], part["method"], part["less"]) == ("gate on I2I2U", *list(found)[::-1])
    assert part["favourite_rate"] == pytest.approx(
        told["rows"][2]["favourite_rate"] - told["rows"][1]["favourite_rate"]
    )
    less = np.array(drawn) @ [-1, 1]
    assert part["favourite_rate_ci95"] == pytest.approx(np.quantile(less, (0.025, 0.975)))


def test_outcomes_of_other_songs_are_no_outcomes() -> None:
    plays = {"song": [0], "user": [0], "completed": [True], "favourited": [None]}
    plays = pl.DataFrame(plays, schema_overrides={"favourited": pl.Boolean})
    assert outcomes.outcome_rates({}, None, toy({"title": ["", ""]}, cold_plays=plays), np.array([1])) == {}


def test_truth_is_read_by_id(tmp_path: Path) -> None:
    catalogue = toy({"title": [""] * 3}, users=pl.DataFrame({"user_id": ["b", "a"]}))
    truth = {"song_id": ["s2", "s0", "s9", "s1"], "user_id": ["a", "b", "a", "x"]}
    flags = {"completed": [True, False, True, True], "favourited": [False, True, True, True]}
    pl.DataFrame(truth | flags).write_parquet(tmp_path / "truth.parquet")
    read = outcomes.read_truth(str(tmp_path / "truth.parquet"), catalogue)
    assert sorted(read.rows()) == [(0, 0, False, True), (2, 1, True, False)]


# ------------------------------------------------------------------------------------------- figures.py


def test_ranks_of_the_own_item_with_ties_last() -> None:
    query = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    item = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])  # 0 and 1 tie; 2 is alone; 3 is worst
    row = figures.ranks_summary(query, item, np.array(["folk", "rock", "rock", "folk"]))
    assert row["recall@1"] == 0.25, "songs 0, 1 share the first place with others: they do not have it"
    assert row["median_rank"] == 3.0 and row["pool_size"] == 4  # ranks 3, 3, 1, 4
    assert (row["recall@10"], row["chance_recall@10"]) == (1.0, 1.0)
    assert (
        row["recall@1_within_genre"] == 0.75 - 0.25
    )  # 0 ties with 3 (folk); 1 beats 2 (rock); 2 beats 1; 3 loses to 0
    assert row["chance_recall@1_within_genre"] == 0.5


def test_a_model_that_gives_all_songs_one_vector_finds_nothing() -> None:
    row = figures.ranks_summary(np.ones((50, 3)), np.ones((50, 3)), np.full(50, "folk"))
    assert (row["recall@1"], row["recall@10"], row["median_rank"]) == (0.0, 0.0, 50.0)
    assert (row["recall@1_within_genre"], row["chance_recall@10"]) == (0.0, 0.2)


@pytest.mark.parametrize("seed", range(3))
def test_ranks_against_sorting(seed: int) -> None:
    rng = np.random.default_rng(seed)
    query, item, genre = rng.standard_normal((40, 5)), rng.standard_normal((40, 5)), rng.integers(0, 4, 40).astype(str)
    score, ranks, within = query @ item.T, [], []
    for q in range(40):
        ranks.append(1 + np.argsort(-score[q]).tolist().index(q))
        mates = [i for i in np.argsort(-score[q]).tolist() if genre[i] == genre[q]]
        within.append(mates.index(q) == 0)
    row = figures.ranks_summary(query, item, genre)
    assert row["recall@1"] == np.mean([rank == 1 for rank in ranks])
    assert row["recall@10"] == np.mean([rank <= 10 for rank in ranks]) and row["median_rank"] == np.median(ranks)
    assert row["recall@1_within_genre"] == np.mean(within)


def test_genre_grouping_is_the_vote_of_the_ten_nearest_known_songs() -> None:
    rng = np.random.default_rng(0)
    genre = rng.choice(["folk", "rock", "techno"], 80, p=[0.5, 0.3, 0.2]).tolist()
    split = np.where(np.arange(80) < 60, "warm", "cold_test").tolist()
    vectors = np.array([{"folk": 0, "rock": 1, "techno": 2}[g] for g in genre])[:, None] == np.arange(3)
    vectors = (vectors + 0.6 * rng.standard_normal((80, 3))) * rng.uniform(0.1, 9, (80, 1))  # length must not matter
    genre[7] = genre[70] = None
    catalogue = toy({"split": split, "genres": [[g, "other"] if g else None for g in genre]})
    plain, ours = figures.genre_grouping({"ours": vectors}, catalogue, "cold_test")
    warm = [i for i in range(60) if genre[i]]
    new = [i for i in range(60, 80) if genre[i]]
    most = max(("folk", "rock", "techno"), key=[genre[i] for i in warm].count)
    assert plain["knn_genre_accuracy"] == pytest.approx(np.mean([genre[i] == most for i in new]))
    right = []
    for i in new:
        cosine = {j: vectors[i] @ vectors[j] / np.linalg.norm(vectors[i]) / np.linalg.norm(vectors[j]) for j in warm}
        near = [genre[j] for j in sorted(cosine, key=lambda j: -cosine[j])[:10]]
        right.append(min(("folk", "rock", "techno"), key=lambda g: (-near.count(g), g)) == genre[i])
    assert ours["knn_genre_accuracy"] == pytest.approx(np.mean(right)) and 0.5 < np.mean(right) < 1
    assert figures.genre_grouping({}, toy({"split": ["warm", "cold_test"], "genres": [None, ["a"]]}), "cold_test") == []


def test_boundary_summary_and_histogram_count_pairs() -> None:
    rng = np.random.default_rng(0)
    item, user, edge = rng.standard_normal((7, 3)), rng.standard_normal((9, 3)), rng.standard_normal(9)
    edge[4] = 99  # open to nothing
    plays = {"user": np.repeat(np.arange(9, dtype=np.int32), 2), "song": rng.integers(0, 6, 18).astype(np.int32)}
    catalogue = toy({"popularity": [1, 5, 9, 2, 7, 3]}, plays=pl.DataFrame(plays))
    boundary: Any = Boundary(None, item, user, edge)  # type: ignore[arg-type]
    open_CU = np.array([[item[c] @ user[u] > edge[u] for u in range(9)] for c in range(7)])
    shares = figures.open_shares(boundary)
    told = figures.boundary_summary(shares, catalogue)
    assert told["share_of_pairs_above_the_boundary"] == pytest.approx(open_CU.mean())
    assert told["share_of_users_with_no_new_song"] == pytest.approx((~open_CU.any(axis=0)).mean())
    taste = [
        np.mean([catalogue.songs["popularity"][int(s)] for s in plays["song"][plays["user"] == u]]) for u in range(9)
    ]
    ordered = sorted(range(9), key=lambda u: (taste[u], u))
    for place, share in enumerate(told["share_of_new_songs_by_taste"].values()):
        assert share == pytest.approx(open_CU[:, ordered[3 * place : 3 * place + 3]].mean())
    drawn = figures.boundary_histogram(boundary, shares)
    assert sum(drawn["open_count"]) == 9 and 55 <= sum(drawn["margin_count"]) <= 63
    margin = [[item[c] @ user[u] - edge[u] for u in range(9)] for c in range(7)]
    ends = {"bins": 60, "range": tuple(np.quantile(margin, [0.001, 0.999]))}
    np.testing.assert_allclose(drawn["margin_edge"], np.histogram(margin, **ends)[1])
    assert drawn["margin_count"] == np.histogram(margin, bins=drawn["margin_edge"])[0].tolist()
    little = 1e-6  # one song at a time
    assert figures.boundary_summary(figures.open_shares(boundary, little), catalogue) == told
    assert figures.boundary_histogram(boundary, shares, little) == drawn


def test_the_ends_of_a_large_histogram_are_a_sample_s(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    boundary: Any = Boundary(None, rng.normal(size=(80, 3)), rng.normal(size=(900, 3)), rng.normal(size=900))  # type: ignore[arg-type]
    shares = figures.open_shares(boundary)
    sampled = figures.boundary_histogram(boundary, shares)
    assert figures.SAMPLED_PAIRS < 80 * 900
    monkeypatch.setattr(figures, "SAMPLED_PAIRS", 80 * 900)
    whole = figures.boundary_histogram(boundary, shares)
    np.testing.assert_allclose(sampled["margin_edge"], whole["margin_edge"], atol=0.5)
    assert sampled["margin_edge"] != whole["margin_edge"] and sampled["open_count"] == whole["open_count"]
    assert abs(sum(sampled["margin_count"]) - sum(whole["margin_count"])) < 0.002 * 80 * 900


def gate_world(n: int = 400) -> tuple[Boundary, np.ndarray, pl.DataFrame]:
    """Ten songs, 40 users, all pairs exposed; who clears the boundary by more likes it more often."""
    rng = np.random.default_rng(0)
    item, user, edge = rng.normal(size=(10, 3)), rng.normal(size=(40, 3)), rng.normal(size=40)
    boundary: Any = Boundary(None, item, user, edge)  # type: ignore[arg-type]
    song, who = np.divmod(np.arange(n), 40)
    margin = (item[song] * user[who]).sum(axis=1) - edge[who]
    liked = rng.random(n) < 1 / (1 + np.exp(-(0.5 * margin - 1)))
    completed = liked & (rng.random(n) < 0.9)
    columns = {"song": song + 5, "user": who, "completed": completed, "favourited": liked & ~completed}
    return boundary, margin, pl.DataFrame(columns)


def test_gate_figures_are_those_of_the_exposures() -> None:
    boundary, margin, truth = gate_world()
    songs = np.arange(5, 15)
    plays = truth.sample(fraction=0.5, seed=1)
    catalogue = toy({"title": [""] * 15}, cold_plays=plays)
    found = gate_figures(boundary, songs, boundary, songs, truth.sample(fraction=1, shuffle=True, seed=2), catalogue)
    liked = (truth["completed"] | truth["favourited"]).to_numpy()
    assert found["source"] == "truth" and found["exposures"] == 400
    row = found["curve"][10]
    passed = margin >= row["margin"]
    assert row["passed"] == pytest.approx(passed.mean()) and row["liked_rate"] == pytest.approx(liked[passed].mean())
    assert row["completion_rate"] == pytest.approx(truth["completed"].to_numpy()[passed].mean())
    assert found["at_the_boundary"]["precision"] == pytest.approx(liked[margin > 0].mean())
    assert found["calibration"]["slope"] == pytest.approx(0.5, abs=0.15)
    assert found["calibration_error"] < 0.6 * found["calibration_error_before"]
    logged_ones = gate_figures(boundary, songs, boundary, songs, None, catalogue)
    assert logged_ones["source"] == "logged plays" and logged_ones["exposures"] == 200


def test_reach_is_by_the_score_of_i2i2u() -> None:
    """Exposures are scored as an audience is: by similar songs that the user heard, less the more active they are."""
    boundary, margin, truth = gate_world()
    songs, rng = np.arange(5, 15), np.random.default_rng(4)
    plays = pl.DataFrame({"user": rng.integers(0, 40, 150), "song": rng.integers(0, 5, 150)}).unique(
        maintain_order=True
    )
    plays = plays.with_columns(pl.lit(1.0, pl.Float32).alias("strength"))
    listening = listening_matrix(plays, 40, 15)
    weights = sparse.csr_matrix(np.pad(rng.random((10, 5)), ((0, 0), (0, 10))))
    nothing = np.zeros((10, 0))
    asked = Songs(nothing, Similar(nothing, nothing, nothing, weights))
    index = SongIndex({}, None, songs, nothing)
    heard = np.zeros((40, 15))
    heard[plays["user"], plays["song"]] = 1
    for power in (0.0, 0.5):
        score = ((weights @ heard.T) * (heard.sum(axis=1) + 1.0) ** -power)[truth["song"] - 5, truth["user"]]
        mixed = truth.with_columns(pl.Series("score", score), pl.Series("margin", margin)).sample(
            fraction=1, shuffle=True
        )
        targeting = targeting_of(index, Listening(listening), TargetingConfig(activity_power=power))
        found = reach_figures(boundary, songs, asked, mixed.drop("score", "margin"), targeting, 0.2)
        mixed = mixed.with_columns(pl.when(pl.col("score") > 0).then("score"))  # others are reached by nobody
        near = mixed.drop_nulls("score")
        for way, passing in (("ungated", near), ("gated", near.filter(pl.col("margin") > 0.2))):
            best = passing.sort("score", descending=True).group_by("song").head(12)
            row = next(row for row in found[way] if row["reached"] == pytest.approx(best.height / 400))
            assert row["favourite_rate"] == pytest.approx(best["favourited"].mean())
            assert row["completion_rate"] == pytest.approx(best["completed"].mean())
    assert reach_figures(boundary, songs, asked, None, targeting) == {}


def test_a_gate_of_which_too_little_is_known_is_left_out() -> None:
    boundary, _, truth = gate_world()
    songs = np.arange(5, 15)
    assert gate_figures(boundary, songs, boundary, songs, truth.head(10), toy({"title": [""] * 15})) == {}
    unknown = gate_figures(boundary, songs, boundary, np.arange(100, 110), truth, toy({"title": [""] * 15}))
    assert "calibration" not in unknown and unknown["exposures"] == 400, "nothing to fit a calibration to"


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
    listening = sparse.csr_matrix(np.array([[1, 0, 0], [3, 1, 1], [0, 0, 0], [0, 2, 2]], dtype=np.float32))
    found = baselines.most_active_users(listening, 3, 3)
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
    found = baselines.content_knn(SongIndex({}, build_index(vectors[warm]), warm, vectors), listening, new, 30, k)
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
    audio, tags = made[:, :5], made[:, 5:]
    assert made.shape == (20, 5 + baselines.SKETCH) and made.dtype == np.float32
    mean = dense[[i for i in range(15) if i != 4]].mean(axis=0)
    known = np.arange(20) != 4
    np.testing.assert_allclose(
        audio[known] * np.linalg.norm(dense - mean, axis=1)[known, None], (dense - mean)[known], rtol=1e-3, atol=1e-3
    )
    assert (audio[4] == 0).all(), "missing is zero"
    has = codes[:, 0] >= 2
    np.testing.assert_allclose(np.linalg.norm(tags, axis=1), has.astype(float), atol=1e-5)
    one = {
        int(code): tags[codes[:, 0] == code][0] for code in (2, 3, 4) if (codes[:, 0] == code)[np.arange(20) != 6].any()
    }
    for i in np.flatnonzero(has & (np.arange(20) != 6)):
        assert (
            tags[i] @ tags[codes[:, 0] == codes[i, 0]][-1] == pytest.approx(1, abs=1e-4) or codes[i, 0] == codes[6, 0]
        )
    assert all(tags[6] @ vector > 0.2 for code, vector in one.items()), "a sum of its values"
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


@pytest.fixture(scope="module")
def plain(index_folder: Path, catalogue_folder: Path) -> dict[str, Any]:
    return measure(catalogue_folder, index_folder, index_folder.parent / "plain", "budgets=[5,10,20]")


def test_budgets_are_a_sorted_set(index_folder: Path, catalogue_folder: Path, plain: dict[str, Any]) -> None:
    mixed = measure(catalogue_folder, index_folder, index_folder.parent / "mixed", "budgets=[20,5,10,5]")
    assert mixed == plain
    row = plain["audience"][-1]
    assert list(row)[1:16:5] == [f"target_users_found@{budget}" for budget in (5, 10, 20)]
    songs = sum(bucket["songs"] * bucket["recall"] for bucket in row["by_listeners"])
    heard = sum(bucket["songs"] for bucket in row["by_listeners"])
    assert songs / heard == pytest.approx(row["recall@20"]), "buckets are those of the largest budget"


def test_a_budget_above_the_number_of_users_reaches_them_all_once(
    index_folder: Path, catalogue_folder: Path, catalogue: Catalogue
) -> None:
    told = measure(catalogue_folder, index_folder, index_folder.parent / "all", "budgets=[500]")
    row = next(row for row in told["audience"] if row["method"] == "random")
    assert row["reached@500"] == catalogue.n_users * told["new_songs"] and row["recall@500"] == 1.0


@pytest.mark.parametrize("budgets", ["[]", "[0]", "[10,-1]"])
def test_budgets_of_nobody_are_refused(
    budgets: str, index_folder: Path, catalogue_folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="budgets="):
        measure(catalogue_folder, index_folder, tmp_path / "out", f"budgets={budgets}")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("left", ["no play", "dislikes", "plays of validation songs"])
def test_without_a_held_out_listener_nothing_is_measured(
    left: str, index_folder: Path, catalogue: Catalogue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plays = catalogue.cold_plays
    changed = {
        "no play": plays.clear(),
        "dislikes": plays.with_columns(strength=pl.lit(-1.0, dtype=pl.Float32)),
        "plays of validation songs": plays.filter(pl.col("song").is_in(catalogue.rows("cold_val"))),
    }[left]
    monkeypatch.setattr(Catalogue, "cold_plays", changed)
    with pytest.raises(UserError, match=r"no cold_test song has a held-out listener"):
        measure(catalogue.folder, index_folder, tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_validation_songs_can_be_evaluated_too(
    index_folder: Path, catalogue_folder: Path, catalogue: Catalogue, tmp_path: Path
) -> None:
    told = measure(catalogue_folder, index_folder, tmp_path / "out", "split=cold_val", "budgets=[10]")
    assert told["split"] == "cold_val" and told["new_songs"] == len(catalogue.rows("cold_val"))
    assert "flattered" in (tmp_path / "out" / "report.html").read_text("utf-8")
