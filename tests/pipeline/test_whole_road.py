"""Every command on a tiny world, one after another as in demo.sh, with quality above baselines and chance."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

import train
from benchmarks import table
from configs import schema
from configs.errors import UserError
from configs.load import load
from pipeline import audience, embed, evaluate, export, index, prepare, world

ROOT = Path(__file__).parents[2]
QUIET = ["trainer.progress=false", "trainer.accelerator=cpu"]
SEED = 0  # the assertions were checked on worlds 0, 1 and 2
BUDGETS = "budgets=[10,30]"


@pytest.fixture(scope="module")
def road(tmp_path_factory: pytest.TempPathFactory) -> Path:
    at = tmp_path_factory.mktemp("road")
    run(
        world.main,
        schema.WorldConfig,
        f"out={at}/world",
        "songs=400",
        "users=300",
        "seconds=2",
        "workers=1",
        f"seed={SEED}",
    )
    run(
        prepare.main,
        schema.PrepareConfig,
        f"source={at}/world",
        f"out={at}/catalogue",
        "split.cutoff=2026-06-01",
        "workers=0",
    )
    data, features = f"data={at}/catalogue", f"features={at}/features"
    small = ["model.crop_seconds=1.5", "model.width=64", "model.layers=2", "batch_size=64", "trainer.epochs=25"]
    run(train.train_clip, schema.ClipConfig, data, f"out={at}/clip", *small, *QUIET, "logger.wandb=offline")
    run(embed.main, schema.EmbedConfig, data, f"clip={at}/clip", f"out={at}/features")
    for name, weight in (("i2i", "0.1"), ("cb2cf", "0")):
        weight = f"objective.bcl_weight={weight}"
        options = [data, features, f"out={at}/{name}", weight, "trainer.epochs=4", *QUIET, "logger.wandb=off"]
        run(train.train_i2i, schema.I2IConfig, *options)
        run(index.main, schema.IndexConfig, f"run={at}/{name}", f"out={at}/{name}_index")
    few = ["trainer.epochs=3", *QUIET, "logger.wandb=off"]
    run(train.train_boundary, schema.BoundaryConfig, data, features, f"out={at}/boundary", *few)
    for name, options in (("i2i2u", []), ("boundary", ["mode=boundary"]), ("gated", ["gate=true"])):
        options = [
            *options,
            f"boundary={at}/boundary",
            f"index={at}/i2i_index",
            f"out={at}/audience_{name}",
            "targeting.budget=30",
        ]
        run(audience.main, schema.AudienceConfig, *options)
    models = [f"index={at}/i2i_index", f"cb2cf={at}/cb2cf_index", features, f"boundary={at}/boundary"]
    truth = f"truth={at}/world/truth.parquet"
    run(evaluate.main, schema.EvaluateConfig, data, *models, truth, BUDGETS, f"out={at}/evaluation")
    for name in ("clip", "i2i", "boundary"):
        run(export.main, schema.ExportConfig, f"run={at}/{name}", f"out={at}/export_{name}")
    return at


def run(main: Any, of: type, *options: str) -> None:
    main(load(of, list(options)))


@pytest.fixture(scope="module")
def metrics(road: Path) -> dict[str, Any]:
    return json.loads((road / "evaluation" / "metrics.json").read_text(), parse_constant=pytest.fail)


def found(metrics: dict[str, Any], method: str) -> int:
    return next(row["target_users_found@30"] for row in metrics["audience"] if row["method"] == method)


def test_similar_songs_find_more_listeners_than_the_baselines(metrics: dict[str, Any]) -> None:
    ours = found(metrics, "FirstPlay I2I2U")
    assert ours > 1.5 * found(metrics, "random") and ours > found(metrics, "most active users")


def test_text_finds_its_recording_well_above_chance(metrics: dict[str, Any]) -> None:
    rows = [row for row in metrics["retrieval"] if row["pool"] == "all new songs"]
    assert len(rows) == 2
    for row in rows:
        assert row["recall@10"] > 1.5 * row["chance_recall@10"]


def test_reached_users_like_the_songs_more_than_everybody(metrics: dict[str, Any]) -> None:
    rate = {row["method"]: row["completion_rate"] for row in metrics["outcomes"]["rows"]}
    assert metrics["outcomes"]["source"] == "truth"
    assert rate["FirstPlay I2I2U"] > rate["everybody"] + 0.1
    assert rate["FirstPlay U2I boundary"] > rate["everybody"] + 0.05


@pytest.mark.parametrize("name", ["i2i2u", "boundary", "gated"])
def test_audience_rows_are_sound(road: Path, name: str) -> None:
    rows = pl.read_parquet(road / f"audience_{name}" / "audience.parquet")
    catalogue = road / "catalogue"
    users, songs = pl.read_parquet(catalogue / "users.parquet"), pl.read_parquet(catalogue / "songs.parquet")
    assert rows.height > 0 and rows.select("song_id", "user_id").is_duplicated().sum() == 0
    assert set(rows["user_id"]) <= set(users["user_id"])
    assert set(rows["song_id"]) <= set(songs.filter(pl.col("split") == "cold_test")["song_id"])
    for (_,), one in rows.group_by("song_id"):
        one = one.sort("rank")
        assert one["rank"].to_list() == list(range(1, one.height + 1)) and one["score"].is_sorted(descending=True)
    if name != "i2i2u":
        assert (rows["margin"] > 0).all()
    if name == "boundary":
        assert np.allclose(rows["margin"], rows["score"], atol=1e-4)


def test_because_names_similar_songs_that_the_user_listened_to(road: Path) -> None:
    rows = pl.read_parquet(road / "audience_i2i2u" / "audience.parquet").explode("because").drop_nulls("because")
    plays = pl.read_parquet(road / "catalogue" / "plays.parquet")
    users, songs = (pl.read_parquet(road / "catalogue" / f"{name}.parquet") for name in ("users", "songs"))
    heard = set(zip(users["user_id"].gather(plays["user"]), songs["song_id"].gather(plays["song"]), strict=True))
    similar = pl.read_parquet(road / "audience_i2i2u" / "similar.parquet")
    near = set(zip(similar["song_id"], similar["similar_song_id"], strict=True))
    assert rows.height > 100
    assert all(pair in heard for pair in rows.select("user_id", "because").iter_rows())
    assert all(pair in near for pair in rows.select("song_id", "because").iter_rows())


def test_index_and_audience_are_deterministic(road: Path, tmp_path: Path) -> None:
    run(index.main, schema.IndexConfig, f"run={road}/i2i", f"out={tmp_path}/index")
    options = [f"boundary={road}/boundary", f"index={tmp_path}/index", f"out={tmp_path}/i2i2u", "targeting.budget=30"]
    run(audience.main, schema.AudienceConfig, *options)
    again = pl.read_parquet(tmp_path / "i2i2u" / "audience.parquet")
    assert again.equals(pl.read_parquet(road / "audience_i2i2u" / "audience.parquet"))


def test_report_and_table_show_the_metrics(road: Path, metrics: dict[str, Any]) -> None:
    html = (road / "evaluation" / "report.html").read_text()
    shown = table.tables([metrics])
    for method in ("random", "content kNN", "FirstPlay I2I2U", "FirstPlay U2I boundary"):
        assert method in html and f"| {method} | " in shown
    assert f"| FirstPlay I2I2U | {found_text(metrics)}" in shown


def found_text(metrics: dict[str, Any]) -> str:
    row = next(row for row in metrics["audience"] if row["method"] == "FirstPlay I2I2U")
    return f"{row['target_users_found@10']} | {row['target_users_found@30']} |"


LOAD_WITHOUT_LIGHTNING = """
import sys
for name in ("lightning", "pytorch_lightning", "faiss", "wandb"):
    sys.modules[name] = None
import numpy as np, torch
from pipeline.export import load
model, config = load(sys.argv[1])
fields = {name: torch.from_numpy(array) for name, array in np.load(sys.argv[2]).items()}
np.save(sys.argv[3], model(fields).detach().numpy())
"""


def test_export_loads_without_lightning_and_gives_the_same_vectors(road: Path, tmp_path: Path) -> None:
    from datamodules.pairs import PairDataModule
    from pipeline.runs import open_run
    from pipeline.vectors import data_options

    data = PairDataModule(**data_options(open_run(road / "i2i", "i2i"), None, None))
    rows = np.arange(data.catalogue.n_songs)
    np.savez(tmp_path / "fields.npz", **{name: x.numpy() for name, x in data.fields.gather(rows).items()})
    line = [sys.executable, "-c", LOAD_WITHOUT_LIGHTNING, str(road / "export_i2i"), "fields.npz", "out.npy"]
    line[4] = str(tmp_path / "fields.npz")
    line[5] = str(tmp_path / "out.npy")
    subprocess.run(line, check=True, cwd=ROOT)
    assert np.allclose(np.load(tmp_path / "out.npy"), np.load(road / "i2i_index" / "vectors.npy"), atol=1e-5)


def test_every_export_has_a_card_and_safetensors(road: Path) -> None:
    for task in ("clip", "i2i", "boundary"):
        folder = road / f"export_{task}"
        model, config = export.load(folder)
        assert config["task"] == task and not model.training
        assert (folder / "model.safetensors").stat().st_size > 10_000
        assert f"FirstPlay {task} model" in (folder / "README.md").read_text()


@pytest.mark.parametrize(
    ("main", "of", "options", "words"),
    [
        (
            embed.main,
            schema.EmbedConfig,
            ["clip={at}/i2i", "data={at}/catalogue"],
            "is a i2i run folder, not a clip run",
        ),
        (index.main, schema.IndexConfig, ["run={at}/clip"], "is a clip run folder, not a i2i run"),
        (index.main, schema.IndexConfig, ["run={at}/world"], "is a dataset folder, not a i2i run"),
        (audience.main, schema.AudienceConfig, ["index={at}/features"], "is a features folder, not a index"),
        (audience.main, schema.AudienceConfig, ["index={at}/i2i_index", "mode=boundary"], "missing option: boundary"),
        (train.train_i2i, schema.I2IConfig, ["data={at}/world"], "is a dataset folder, not a catalogue"),
        (train.train_i2i, schema.I2IConfig, ["data={at}/catalogue", "features={at}/clip"], "not a features"),
        (train.train_i2i, schema.I2IConfig, ["data={at}/catalogue", "fields.use=[mood]"], "fields.use names"),
        (export.main, schema.ExportConfig, ["run={at}/catalogue"], "is not a run folder"),
        (prepare.main, schema.PrepareConfig, ["source={at}/clip"], "songs.parquet"),
    ],
)
def test_a_wrong_folder_is_one_line_and_leaves_nothing(
    road: Path, tmp_path: Path, main: Any, of: type, options: list[str], words: str
) -> None:
    with pytest.raises(UserError, match=words) as error:
        run(main, of, *(option.format(at=road) for option in options), f"out={tmp_path}/out")
    assert "\n" not in str(error.value) and list(tmp_path.iterdir()) == []


def test_an_index_of_another_encoder_is_refused(road: Path, tmp_path: Path) -> None:
    run(index.main, schema.IndexConfig, f"run={road}/i2i", f"out={tmp_path}/index")
    manifest = json.loads((tmp_path / "index" / "manifest.json").read_text())
    (tmp_path / "index" / "manifest.json").write_text(json.dumps(manifest | {"run": str(road / "cb2cf")}))
    with pytest.raises(UserError, match="built from another encoder"):
        run(audience.main, schema.AudienceConfig, f"index={tmp_path}/index", f"out={tmp_path}/out")
    (tmp_path / "index" / "index.faiss").write_bytes(b"not an index")
    (tmp_path / "index" / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(UserError, match="is damaged"):
        run(audience.main, schema.AudienceConfig, f"index={tmp_path}/index", f"out={tmp_path}/out")
    assert not (tmp_path / "out").exists()


def test_evaluating_without_listeners_or_budgets_is_refused(road: Path, tmp_path: Path) -> None:
    options = [f"data={tmp_path}/catalogue", f"index={road}/i2i_index", f"out={tmp_path}/out"]
    shutil.copytree(road / "catalogue", tmp_path / "catalogue")
    plays = pl.read_parquet(tmp_path / "catalogue" / "cold_plays.parquet")
    plays.clear().write_parquet(tmp_path / "catalogue" / "cold_plays.parquet")
    with pytest.raises(UserError, match="no cold_test song has a held-out listener"):
        run(evaluate.main, schema.EvaluateConfig, *options)
    with pytest.raises(UserError, match="positive numbers"):
        run(evaluate.main, schema.EvaluateConfig, *options, "budgets=[10,0]")
    assert not (tmp_path / "out").exists()
