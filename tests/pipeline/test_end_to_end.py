"""Every command on a small world, one after another as in demo.sh: what comes out is sound, and good for something.

The thresholds hold on worlds 0 to 4 with room to spare, and fail where song vectors or recordings are exchanged.
"""

from __future__ import annotations

import json
import re
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from benchmarks import table
from data.catalogue import Catalogue
from evaluation.comparison import PARTS
from inference.vectors import boundary_vectors
from inference.zeroshot import label_vectors, run_of
from tests.commands import run
from tests.evaluation.report.report_tables import assert_tables_are, read_tables

SEED, BUDGETS = 0, (10, 20, 40)
CPU = ["trainer.accelerator=cpu", "trainer.progress=false"]
SMALL = ["model.hidden=64", "model.dim=32", "model.field_dim=16", "optim.lr=3e-3", *CPU]
AUDIENCES = {"i2i2u": ["mode=i2i2u"], "gated": ["mode=i2i2u", "gate=true"], "boundary": ["mode=boundary"]}


def find_users(at: Path, name: str, index_folder: Path, out: Path) -> None:
    options = [*AUDIENCES[name], f"index={index_folder}", "split=cold", f"targeting.budget={BUDGETS[-1]}"]
    model = [] if name == "i2i2u" else [f"boundary={at}/boundary"]
    run("audience", *options, *model, f"out={out}")


def measure(at: Path, out: Path, *options: str) -> dict[str, Any]:
    """Run `pipeline.evaluate` and read its metrics, strictly."""
    budgets, truth = f"budgets={list(reversed(BUDGETS))}", f"truth={at}/world/truth.parquet"
    run("evaluate", f"data={at}/catalogue", truth, budgets, f"out={out}", *options)
    return json.loads((out / "metrics.json").read_text("utf-8"), parse_constant=pytest.fail)


@pytest.fixture(scope="module")
def road(tmp_path_factory: pytest.TempPathFactory) -> Path:
    at = tmp_path_factory.mktemp("road")
    size = ["songs=500", "users=500", "seconds=2", "truth_users=250", "workers=1"]
    run("world", f"out={at}/world", f"seed={SEED}", *size)
    options = [f"source={at}/world", "split.cutoff=2026-05-01", "workers=0"]
    run("prepare", f"out={at}/catalogue", *options)
    data, off = [f"data={at}/catalogue", f"features={at}/features"], "logger.wandb=off"
    options = ["model.dim=32", "model.width=48", "model.layers=1", "model.crop_seconds=1.5", "model.crops=1"]
    options += ["text.max_tokens=32", "trainer.epochs=25", "batch_size=32", "optim.lr=3e-3", off, *CPU]
    run("clip", data[0], f"out={at}/clip", *options)
    run("embed", data[0], f"clip={at}/clip", "accelerator=cpu", f"out={at}/features")
    for name, weight in (("i2i", 0.1), ("cb2cf", 0)):
        options = [f"objective.bcl_weight={weight}", "trainer.epochs=6", "bcl_batch_size=64", off, *SMALL]
        run("i2i", *data, f"out={at}/{name}", *options)
        run("index", f"run={at}/{name}", f"out={at}/{name}_index")
    options = ["trainer.epochs=3", "model.history=20", off, *SMALL]
    run("boundary", *data, f"out={at}/boundary", *options)
    run("rank", data[0], f"i2i={at}/i2i", f"boundary={at}/boundary", f"out={at}/rank", "depth=50")
    for name in AUDIENCES:
        find_users(at, name, at / "i2i_index", at / f"audience_{name}")
    for name in ("i2i", "boundary", "clip"):
        run("export", f"run={at}/{name}", f"out={at}/export/{name}")
    return at


@pytest.fixture(scope="module")
def metrics(road: Path) -> dict[str, Any]:
    models = [f"index={road}/i2i_index", f"cb2cf={road}/cb2cf_index", f"boundary={road}/boundary"]
    models += [f"rank={road}/rank"]
    return measure(road, road / "evaluation", f"features={road}/features", *models)


@pytest.fixture(scope="module")
def exchanged(road: Path) -> dict[str, Any]:
    """The same figures after the new songs' vectors and all recordings were dealt to other songs."""
    rng, catalogue = np.random.default_rng(1), Catalogue.read(road / "catalogue")
    bad = road / "exchanged"
    run("index", f"run={road}/i2i", f"out={bad}/index")
    run("embed", f"data={road}/catalogue", f"clip={road}/clip", f"out={bad}/features")
    vectors, audio = np.load(bad / "index" / "vectors.npy"), np.load(bad / "features" / "clip_audio.npy")
    new = catalogue.rows("cold")
    vectors[new] = vectors[rng.choice(catalogue.n_songs, len(new), replace=False)]
    np.save(bad / "index" / "vectors.npy", vectors)
    np.save(bad / "features" / "clip_audio.npy", audio[rng.permutation(len(audio))])
    return measure(road, bad / "evaluation", f"features={bad}/features", f"index={bad}/index")


def by(column: str, rows: list[dict[str, Any]], key: str) -> dict[str, Any]:
    return {row[column]: row[key] for row in rows if key in row}


def found_by_chance(road: Path) -> float:
    """Target users that uniformly drawn audiences of the largest budget hold on average."""
    catalogue = Catalogue.read(road / "catalogue")
    plays = catalogue.cold_plays.filter((pl.col("strength") > 0) & pl.col("song").is_in(catalogue.rows("cold_test")))
    return plays.select("song", "user").n_unique() * BUDGETS[-1] / catalogue.n_users


def test_similar_songs_find_more_target_users_than_chance_and_than_active_users(
    road: Path, metrics: dict[str, Any], exchanged: dict[str, Any]
) -> None:
    found = by("method", metrics["audience"], f"target_users_found@{BUDGETS[-1]}")
    chance, ours = found_by_chance(road), found["FirstPlay I2I2U"]
    assert ours > 1.6 * chance and ours > 1.4 * found["random"]
    assert ours > 1.05 * found["most active users"]
    assert 0.6 * chance < found["random"] < 1.5 * chance
    wrong = by("method", exchanged["audience"], f"target_users_found@{BUDGETS[-1]}")
    assert ours > 1.15 * wrong["FirstPlay I2I2U"], "song vectors of other songs are as good"
    assert wrong["most active users"] == found["most active users"] and wrong["random"] == found["random"]


def test_reached_users_like_the_songs_better_than_everybody_would(
    metrics: dict[str, Any], exchanged: dict[str, Any]
) -> None:
    assert metrics["outcomes"]["source"] == "truth"
    completed, wrong = (by("method", one["outcomes"]["rows"], "completion_rate") for one in (metrics, exchanged))
    assert completed["FirstPlay I2I2U"] > completed["everybody"] + 0.1
    assert completed["FirstPlay I2I2U"] > wrong["FirstPlay I2I2U"] + 0.04
    assert completed["FirstPlay U2I boundary"] > completed["everybody"] + 0.05


def test_text_finds_its_recording_and_the_other_way_round(metrics: dict[str, Any], exchanged: dict[str, Any]) -> None:
    def lift(one: dict[str, Any]) -> list[float]:
        rows = [row for row in one["retrieval"] if row["pool"] == "all new songs"]
        assert [row["direction"] for row in rows] == ["text→audio", "audio→text"]
        assert all(row["chance_recall@10"] == 10 / row["pool_size"] and row["pool_size"] > 40 for row in rows)
        return [row["recall@10"] / row["chance_recall@10"] for row in rows]

    assert min(lift(metrics)) > 1.4 and sum(lift(metrics)) > 3.4
    assert sum(lift(exchanged)) < 3.1 and sum(lift(exchanged)) < 0.8 * sum(lift(metrics)), "the measure knows chance"


def test_audio_alone_tells_genres(road: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By words that the encoder never saw as labels, and by a linear probe on artists that it did not see."""
    data, features = f"data={road}/catalogue", f"features={road}/features"
    run("zeroshot", data, features, "column=genres", "top=3", f"out={tmp_path}/tags")
    right, constant, chance = (float(one) for one in re.findall(r"(0\.\d{3})", capsys.readouterr().out))
    assert right > 1.3 * max(constant, chance), (right, constant, chance)
    tags = pl.read_parquet(tmp_path / "tags" / "tags.parquet")
    catalogue = Catalogue.read(road / "catalogue")
    heard = catalogue.songs.filter(pl.col("audio_length") > 0)
    assert set(tags["song_id"]) == set(heard["song_id"]) and tags.height == 3 * heard.height
    assert tags["rank"].to_list() == [1, 2, 3] * heard.height
    assert (tags["score"].diff().fill_null(0.0).to_numpy()[tags["rank"].to_numpy() > 1] <= 0).all()
    run("probe", data, features, "use=[clip_audio]", "folds=3", f"out={tmp_path}/probe.json")
    rows = {row["space"]: row["accuracy"] for row in json.loads((tmp_path / "probe.json").read_text())["rows"]}
    assert rows["clip_audio"] > 2 * rows["most frequent label"]


def test_tags_of_given_labels_and_prompts(road: Path, tmp_path: Path) -> None:
    """A label's vector is the mean over its prompts; one prompt twice is that prompt; scores are cosines."""
    made = run_of(str(road / "features"))
    one, two, both = (
        label_vectors(made, ["rain", "night"], prompts, tmp_path)
        for prompts in (["{}"], ["{} song"], ["{}", "{} song"])
    )
    mean = one + two
    np.testing.assert_allclose(both, mean / np.linalg.norm(mean, axis=1, keepdims=True), atol=1e-5)


def test_song_vectors_gather_genres(metrics: dict[str, Any], exchanged: dict[str, Any]) -> None:
    share, wrong = ({row["space"]: row["knn_genre_accuracy"] for row in one["genres"]} for one in (metrics, exchanged))
    assert share["FirstPlay"] > max(0.35, 2 * share["most frequent genre"], 2 * wrong["FirstPlay"])


@pytest.mark.parametrize("name", AUDIENCES)
def test_audiences_are_ranked_lists_of_known_users_for_new_songs(road: Path, name: str) -> None:
    rows = pl.read_parquet(road / f"audience_{name}" / "audience.parquet")
    songs, users = (pl.read_parquet(road / "catalogue" / f"{one}.parquet") for one in ("songs", "users"))
    assert rows.columns == ["song_id", "user_id", "rank", "score", "margin", "because"]
    assert not rows.select("song_id", "user_id").is_duplicated().any()
    assert set(rows["user_id"]) <= set(users["user_id"])
    cold = songs.filter(pl.col("split") != "warm")["song_id"]
    assert set(rows["song_id"]) <= set(cold)
    if name == "i2i2u":
        assert set(rows["song_id"]) == set(cold) and rows["margin"].is_null().all()
        assert (rows.group_by("song_id").len()["len"] == BUDGETS[-1]).all()
    else:
        assert (rows["margin"] > 0).all()
    for (_,), one in rows.group_by("song_id"):
        one = one.sort("rank")
        assert one.height <= BUDGETS[-1] and one["rank"].to_list() == list(range(1, one.height + 1))
        assert one["score"].is_sorted(descending=True) and one["score"].is_finite().all()


def test_reasons_are_similar_songs_that_the_user_listened_to(road: Path) -> None:
    catalogue = Catalogue.read(road / "catalogue")
    plays = catalogue.plays.filter(pl.col("strength") > 0)
    user, song = catalogue.users["user_id"].gather(plays["user"]), catalogue.songs["song_id"].gather(plays["song"])
    heard = set(zip(user, song, strict=True))
    for name in AUDIENCES:
        rows = pl.read_parquet(road / f"audience_{name}" / "audience.parquet")
        similar = pl.read_parquet(road / f"audience_{name}" / "similar.parquet")
        near = set(similar.select("song_id", "similar_song_id").iter_rows())
        if name != "boundary":  # a boundary audience may hold users who have listened to nothing
            assert (rows["because"].list.len() >= 1).all(), "nobody is reached through nothing"
        why = rows.explode("because").drop_nulls("because")
        assert rows["because"].list.len().max() <= 3
        assert set(why.select("user_id", "because").iter_rows()) <= heard
        if name != "boundary":  # who is above their boundary may know no similar song: then their own nearest are named
            assert set(why.select("song_id", "because").iter_rows()) <= near
        assert (rows["because"].list.n_unique() == rows["because"].list.len()).all()


def test_the_gate_lets_through_exactly_who_is_above_their_boundary(road: Path) -> None:
    """And margins are those of the model: recomputed here for every (new song, user)."""
    catalogue = Catalogue.read(road / "catalogue")
    new = catalogue.rows("cold")
    model = boundary_vectors(road / "boundary", new)
    margin_CU = np.stack([model.user_UD @ item_D - model.boundary_U for item_D in model.item_CD])
    at = {song: row for row, song in enumerate(catalogue.songs["song_id"].gather(new))}
    number = {user: row for row, user in enumerate(catalogue.users["user_id"])}
    tables = {name: pl.read_parquet(road / f"audience_{name}" / "audience.parquet") for name in AUDIENCES}
    for name in ("gated", "boundary"):
        rows = tables[name].select("song_id", "user_id", "margin").iter_rows()
        assert all(margin == pytest.approx(margin_CU[at[song], number[user]], abs=1e-3) for song, user, margin in rows)
    for (song,), one in tables["boundary"].group_by("song_id"):
        assert one.height == min(BUDGETS[-1], int((margin_CU[at[song]] > 0).sum()))
    of_users = pl.read_parquet(road / "audience_boundary" / "recommendations.parquet")
    assert of_users.columns == ["user_id", "song_id", "rank", "margin"] and of_users.height > 100
    for (user,), one in of_users.group_by("user_id"):
        above = margin_CU[:, number[user]]
        assert one.height == min(20, int((above > 0).sum())) and one["rank"].to_list() == list(range(1, one.height + 1))
        np.testing.assert_allclose(one["margin"], np.sort(above)[::-1][: one.height], atol=1e-3)
    assert set(of_users["user_id"]) == {user for user, at_u in number.items() if (margin_CU[:, at_u] > 0).any()}
    gated = {song: set(one["user_id"]) for (song,), one in tables["gated"].group_by("song_id")}
    for song, user in tables["i2i2u"].select("song_id", "user_id").iter_rows():
        if abs(margin_CU[at[song], number[user]]) > 1e-4:
            assert (user in gated.get(song, set())) == (margin_CU[at[song], number[user]] > 0)
    both = tables["gated"].join(tables["i2i2u"], on=["song_id", "user_id"], suffix="_free")
    assert both.height > 100 and (both["score"] == both["score_free"]).all(), "the gate changes no score"


def test_the_report_s_tables_are_the_metrics(road: Path, metrics: dict[str, Any]) -> None:
    nmi = by("space", metrics["genres"], "genre_nmi")
    source, maps = ((road / "evaluation" / name).read_text("utf-8") for name in ("report.html", "genre_maps.svg"))
    assert_tables_are(read_tables(source), metrics)
    assert f"FirstPlay, genre NMI {nmi['FirstPlay']:.3f}" in maps
    assert f'<dd class="figure">{metrics["new_songs"]}' in source
    assert len(metrics["parts"]) == len(metrics["outcomes"]["parts"]) == len(PARTS), "every part has both its methods"
    assert {row["by"] for row in metrics["buckets"]["rows"]} >= {"first genre of the song"}


def test_metrics_agree_with_the_audience_command(road: Path, metrics: dict[str, Any]) -> None:
    """Counted again, from the Parquet files alone, for the test songs."""
    catalogue = Catalogue.read(road / "catalogue")
    plays = catalogue.cold_plays.filter((pl.col("strength") > 0) & pl.col("song").is_in(catalogue.rows("cold_test")))
    user, song = catalogue.users["user_id"].gather(plays["user"]), catalogue.songs["song_id"].gather(plays["song"])
    target = set(zip(song, user, strict=True))
    assert [key for key in metrics["audience"][0] if "found" in key] == [f"target_users_found@{b}" for b in BUDGETS]
    methods = {"i2i2u": "FirstPlay I2I2U", "gated": "FirstPlay I2I2U, gated", "boundary": "FirstPlay U2I boundary"}
    for name, budget in product(methods, BUDGETS):
        rows = pl.read_parquet(road / f"audience_{name}" / "audience.parquet").filter(pl.col("rank") <= budget)
        found = set(rows.select("song_id", "user_id").iter_rows()) & target
        assert by("method", metrics["audience"], f"target_users_found@{budget}")[methods[name]] == len(found)


def test_index_and_audiences_come_out_the_same_again(road: Path, tmp_path: Path) -> None:
    run("index", f"run={road}/i2i", f"out={tmp_path}/index")
    for file in ("vectors.npy", "index.faiss", "songs.parquet"):
        assert (tmp_path / "index" / file).read_bytes() == (road / "i2i_index" / file).read_bytes()
    for name in AUDIENCES:
        find_users(road, name, tmp_path / "index", tmp_path / name)
        for file in ("audience.parquet", "similar.parquet"):
            assert (tmp_path / name / file).read_bytes() == (road / f"audience_{name}" / file).read_bytes()


def test_the_benchmark_table_shows_the_metrics(
    road: Path, metrics: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    table.main([str(road / "evaluation" / "metrics.json")])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"1 run(s); {metrics['new_songs']} new songs")
    for row in metrics["audience"]:
        found = " | ".join(str(row[f"target_users_found@{budget}"]) for budget in BUDGETS)
        recall = " | ".join(f"{row[f'recall@{budget}']:.3f}" for budget in BUDGETS)
        assert f"| {row['method']} | {found} | {recall} |" in lines


def test_nothing_half_written_is_left(road: Path, metrics: dict[str, Any]) -> None:
    left = [path.name for path in road.iterdir() if path.name.startswith(".")]
    assert left == [] and not list(road.rglob("*.part"))
    for folder in ("world", "catalogue", "features", "i2i_index", "audience_i2i2u", "evaluation", "export/i2i"):
        assert "kind" in json.loads((road / folder / "manifest.json").read_text("utf-8"))
