"""What W&B is given, read from the files of offline runs: figures, pictures, tables, and what was made of what."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import wandb

from artifacts import tracking
from artifacts.folders import read_manifest
from artifacts.tracking import artifact
from data.catalogue import Catalogue
from tests.callbacks.test_resume import STOPPED, assert_same_run, states
from tests.commands import run
from tests.conftest import i2i_options
from tests.offline_wandb import OfflineRun, runs_in

ROOT = Path(__file__).parents[2]
ON = "logger.wandb=offline"
QUICK = ["trainer.accelerator=cpu", "trainer.progress=false", "trainer.epochs=2", "trainer.log_every=1"]
QUICK += ["batch_size=32"]
JOBS = ["prepare", "embed", "index", "audience", "evaluate", "export"]


@pytest.fixture(scope="module")
def road(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every command once, all of them tracked."""
    at = tmp_path_factory.mktemp("tracked")
    few = ["songs=90", "users=60", "seconds=1", "truth_users=60", "workers=1"]
    run("world", f"out={at}/world", *few)
    options = [f"source={at}/world", "split.cutoff=2026-05-01", "workers=0"]
    run("prepare", f"out={at}/catalogue", *options, ON)
    data, features = f"data={at}/catalogue", f"features={at}/features"
    options = ["model.dim=16", "model.width=16", "model.layers=1", "model.crop_seconds=0.5", "text.max_tokens=16"]
    run("clip", data, f"out={at}/clip", *options, *QUICK, ON)
    run("embed", data, f"clip={at}/clip", "accelerator=cpu", f"out={at}/features", ON)
    small = ["model.hidden=16", "model.dim=8", "model.field_dim=8", *QUICK, ON]
    run("i2i", data, features, f"out={at}/i2i", *small, "logger.upload=true")
    run("boundary", data, features, f"out={at}/boundary", *small)
    run("index", f"run={at}/i2i", f"out={at}/index", ON, "logger.upload=true")
    found = [f"index={at}/index", f"boundary={at}/boundary"]
    run("audience", *found, "targeting.budget=7", f"out={at}/audience", ON)
    run("evaluate", data, features, *found, f"out={at}/evaluation", ON)
    run("export", f"run={at}/i2i", f"out={at}/export", ON)
    wandb.teardown()  # its service has then written everything
    return at


@pytest.fixture(scope="module")
def runs(road: Path) -> dict[str, OfflineRun]:
    """The W&B runs by their folder's name; each command left one."""
    commands = {one.job: one for one in runs_in(road)}
    assert sorted(commands) == sorted(JOBS) and len(runs_in(road)) == len(JOBS)
    trained = {}
    for task in ("clip", "i2i", "boundary"):
        (trained[f"train {task}"],) = runs_in(road / task)
        assert trained[f"train {task}"].job == f"train {task}"
    return commands | trained


def test_what_is_read_is_the_very_version_that_was_written(road: Path, runs: dict[str, OfflineRun]) -> None:
    """data → clip → features → i2i → index → audience: by name, type and digest, which is what W&B links by."""
    at = road.name
    reads = {
        "prepare": ["world"], "train clip": ["catalogue"], "embed": ["clip", "catalogue"],
        "train i2i": ["catalogue", "features"], "train boundary": ["catalogue", "features"],
        "index": ["i2i", "catalogue", "features"], "audience": ["index", "boundary"],
        "evaluate": ["catalogue", "index", "features", "boundary"], "export": ["i2i"],
    }  # fmt: skip
    writes = dict(zip(reads, ["catalogue", "clip", "features", "i2i", "boundary", "index", "audience", "evaluation",
                              "export"], strict=True))  # fmt: skip
    assert {job: set(one.used) for job, one in runs.items()} == {
        job: {f"{at}-{name}" for name in names} for job, names in reads.items()
    }
    made = {}
    for job, one in runs.items():
        made |= one.made
        assert {name for name in one.made if not name.endswith("-files")} == {f"{at}-{writes[job]}"}
    for one in runs.values():
        for name, logged in one.used.items():
            if name != f"{at}-world":
                assert (logged["type"], logged["digest"]) == (made[name]["type"], made[name]["digest"])
    assert len({artifact["digest"] for artifact in made.values()}) == len(made)
    kinds = {made[f"{at}-{name}"]["type"] for name in writes.values()}
    assert {"catalogue", "clip-run", "features", "i2i-run", "index", "audience"} <= kinds


def test_an_artifact_holds_the_manifest_and_the_names_of_the_rest_or_with_upload_all(
    road: Path, runs: dict[str, OfflineRun]
) -> None:
    files = runs["embed"].made[f"{road.name}-features"]["files"]
    assert set(files) == {"manifest.json", "files.json"}
    assert Path(files["manifest.json"]).read_text() == (road / "features" / "manifest.json").read_text()
    sizes = json.loads(Path(files["files.json"]).read_text())
    assert sizes["clip_audio.npy"] == (road / "features" / "clip_audio.npy").stat().st_size
    assert not any("-files" in name for name in runs["embed"].made)
    index_files = runs["index"].made[f"{road.name}-index-files"]["files"]
    assert index_files == {path.name: str(path) for path in (road / "index").iterdir()}, "uploaded from where they lie"
    run_files = set(runs["train i2i"].made[f"{road.name}-i2i-files"]["files"])
    assert run_files == {"manifest.json", "config.yaml", "vocabulary.json", "checkpoints/best.ckpt"}


def test_made_anew_with_other_content_it_is_another_version(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "index"
    folder.mkdir(parents=True)
    digests = set()
    for n, size in ((0, 3), (1, 3), (1, 4)):
        (folder / "manifest.json").write_text(json.dumps({"kind": "index", "n": n}))
        (folder / "vectors.npy").write_bytes(b"x" * size)
        (folder / "half.part").write_bytes(os.urandom(9))
        digests.add(tracking.artifact(folder).digest)
    assert len(digests) == 3
    again = tmp_path / "b" / "index"
    folder.parent.rename(again.parent)
    assert tracking.artifact(again).digest in digests, "by what it holds, not by where it lies"


def test_figures_pictures_and_curves_of_a_training(road: Path, runs: dict[str, OfflineRun]) -> None:
    one = runs["train i2i"]
    assert one.config["objective"]["bcl_weight"] == 0.1 and one.config["data"] == f"{road}/catalogue"
    steps = states(road / "i2i")["global_step"]
    for key in ("train/loss", "train/bpr", "train/listening", "train/info_nce"):
        assert [step for step, _ in one.values(key)] == list(range(steps)), key
    for key in ("val/recall@20", "val/ndcg@20", "val/listeners_recall@50", "val/songs_recall@20", "val/audience"):
        assert [step for step, _ in one.values(key)] == [steps // 2 - 1, steps - 1], key
    drawn = one.values("features/correlation")
    assert [step for step, _ in drawn] == [0, steps // 2], "at the start of each epoch"
    assert len(one.values("songs/map")) == 1 and one.values("songs/map")[0][0] == steps
    for _, value in [*drawn, *one.values("songs/map")]:
        (name,) = value["filenames"]
        assert (one.folder / "files" / name).read_bytes().startswith(b"\x89PNG")
        assert min(value["width"], value["height"]) > 300
    for name, at_k in (("recall", 20), ("listeners_recall", 50), ("songs_recall", 20)):
        columns, rows = one.table(f"val/{name}_curve_table")
        assert columns == ["K", "recall"] and [row[0] for row in rows] == list(range(1, at_k + 1))
        assert rows[-1][1] == pytest.approx(one.values(f"val/{name}@{at_k}")[-1][1], rel=1e-5)
        assert (np.diff([row[1] for row in rows]) >= 0).all()
    clip, boundary = runs["train clip"], runs["train boundary"]
    assert not clip.values("features/correlation") and not boundary.values("features/correlation")
    assert len(clip.values("songs/map")) == len(boundary.values("songs/map")) == 1
    assert len(clip.table("val/reverse_recall_curve_table")[1]) == 10
    assert clip.values("train/temperature") and boundary.values("train/positives_above_boundary")


def test_the_examples_are_the_audience_in_words(road: Path, runs: dict[str, OfflineRun]) -> None:
    columns, rows = runs["audience"].table("examples")
    shown = pl.DataFrame(rows, schema=columns, orient="row", infer_schema_length=None)
    assert columns == ["song_id", "title", "genres", "similar", "rank", "user_id", "score", "margin", "because"]
    written = pl.read_parquet(road / "audience" / "audience.parquet")
    songs = Catalogue.read(road / "catalogue").songs
    title = dict(songs.select("song_id", "title").iter_rows())
    assert 2 <= shown["song_id"].n_unique() <= 20 and shown["rank"].max() == 5
    similar = pl.read_parquet(road / "audience" / "similar.parquet")
    for row in shown.iter_rows(named=True):
        (same,) = written.filter(song_id=row["song_id"], rank=row["rank"]).iter_rows(named=True)
        assert (row["user_id"], row["title"]) == (same["user_id"], title[row["song_id"]])
        assert (row["score"], row["margin"]) == pytest.approx((same["score"], same["margin"]))
        assert (row["because"] or "") == "; ".join(title[one] for one in same["because"])
        nearest = similar.filter(song_id=row["song_id"])["similar_song_id"].head(5)
        assert row["similar"] == "; ".join(title[one] for one in nearest)


def test_the_evaluation_brings_its_figures_and_its_report(road: Path, runs: dict[str, OfflineRun]) -> None:
    one, metrics = runs["evaluate"], json.loads((road / "evaluation" / "metrics.json").read_text())
    columns, rows = one.table("methods")
    assert [row[columns.index("method")] for row in rows] == [row["method"] for row in metrics["audience"]]
    for row in metrics["audience"]:
        assert one.summary[f"{row['method']}/recall@50"] == pytest.approx(row["recall@50"])
    (page,) = [name for name in one.media if name.endswith(".html")]
    assert (one.folder / "files" / page).read_text("utf-8") == (road / "evaluation" / "report.html").read_text("utf-8")


def test_manifests_do_not_hang_on_whether_anybody_watched(road: Path, tmp_path: Path) -> None:
    options = read_manifest(road / "catalogue", "catalogue", "prepare")["options"]
    assert "logger" not in options and options["split"]["cutoff"] == "2026-05-01"
    run("index", f"run={road}/i2i", f"out={tmp_path}/index")
    assert (tmp_path / "index" / "manifest.json").read_text() == (road / "index" / "manifest.json").read_text()
    assert [path.name for path in tmp_path.iterdir()] == ["index"], "off by default"


def test_stopped_and_resumed_it_is_one_run(
    i2i_run: Path, train_i2i: Callable[..., Path], catalogue_folder: Path, tmp_path: Path
) -> None:
    """SIGTERM in the middle of epoch 1: two folders of one run, whose steps follow each other."""
    out = tmp_path / "i2i"
    argv = [*i2i_options(catalogue_folder, out), ON]
    given = nobody(tmp_path) | {"PYTHONPATH": str(ROOT)}  # the option alone must keep W&B off the network
    stopped = subprocess.run(
        [sys.executable, "-c", STOPPED, str(int(signal.SIGTERM)), *argv], env=given, capture_output=True, text=True
    )
    assert stopped.returncode == 128 + signal.SIGTERM, stopped.stderr[-2000:]
    last = states(out)["global_step"] - 1
    train_i2i(out, ON)
    wandb.teardown()
    assert_same_run(out, i2i_run)
    before, after = runs_in(out)
    assert before.id == after.id and before.resumes and after.resumes
    steps = [[step for step, _ in one.values("train/loss")] for one in (before, after)]
    assert steps[0] == list(range(last)), "all but the step in which the signal came"
    assert steps[1] == list(range(last + 1, states(out)["global_step"]))
    assert not before.made and list(after.made) == [f"{tmp_path.name}-i2i"]
    assert len(list(out.glob("logs/metrics.1.csv"))) == 1


def test_without_wandb_it_is_not_even_imported(catalogue_folder: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from tests.commands import run; run('i2i', *sys.argv[1:]); run('index', 'run=i2i', 'out=index'); "
        "print('wandb' in sys.modules)"
    )
    argv = [*i2i_options(catalogue_folder, Path("i2i")), "trainer.epochs=1"]
    given = nobody(tmp_path) | {"PYTHONPATH": str(ROOT)}
    ended = subprocess.run([sys.executable, "-c", code, *argv], cwd=tmp_path, env=given, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr[-2000:]
    assert ended.stdout.splitlines()[-1] == "False"
    assert not list(tmp_path.rglob("wandb"))


def nobody(home: Path) -> dict[str, str]:
    """The environment of somebody without a W&B account, nor anything said about W&B."""
    return {name: value for name, value in os.environ.items() if not name.startswith("WANDB")} | {"HOME": str(home)}


@pytest.mark.parametrize("command", ["train", "index"])
def test_online_without_an_account_is_one_line_and_nothing_is_done(
    command: str, catalogue_folder: Path, i2i_run: Path, tmp_path: Path
) -> None:
    training = ["train.py", "i2i", *i2i_options(catalogue_folder, tmp_path / "out")]
    indexing = ["-m", "pipeline.index", f"run={i2i_run}", f"out={tmp_path}/out"]
    argv = [sys.executable, *(training if command == "train" else indexing), "logger.wandb=online"]
    quiet: dict[str, Any] = {"stdin": subprocess.DEVNULL, "capture_output": True, "text": True, "timeout": 120}
    ended = subprocess.run(argv, cwd=ROOT, env=nobody(tmp_path), **quiet)
    assert ended.returncode == 2 and not (tmp_path / "out").exists()
    (line,) = [one for one in ended.stderr.splitlines() if one.startswith("error:")]
    assert "wandb login" in line and "logger.wandb=offline" in line and "Traceback" not in ended.stderr


@pytest.mark.parametrize("manifest", ['{"name": 1}', "[1]", "no JSON", '{"kind": null}', '{"kind": "catalogue"}', None])
def test_any_folder_is_an_artifact(manifest: str | None, tmp_path: Path) -> None:
    names = []
    for called in ("music-é", "music-è", "曲目", "plain"):
        (tmp_path / called).mkdir()
        if manifest is not None:
            (tmp_path / called / "manifest.json").write_text(manifest)
        found = artifact(tmp_path / called)
        assert found.type == ("catalogue" if manifest and "catalogue" in manifest else "dataset")
        names.append(found.name)
    assert len(set(names)) == 4 and names[3].endswith("-plain")
