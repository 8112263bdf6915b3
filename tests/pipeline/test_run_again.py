"""The same commands once more: the same data is the same source, and a demo killed in any stage ends as if it had not
been."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from artifacts.fingerprints import of_file, of_folder, of_table
from configs.load import load
from configs.training import CorpusConfig
from data.audio import cache
from tests.commands import call

ROOT = Path(__file__).parents[2]
SMALL = "songs=60 users=60 seconds=1.5 workers=1 truth_users=20"
CLIP = (
    "model.dim=16 model.width=16 model.layers=1 model.heads=2 model.crop_seconds=1 model.crops=1 batch_size=32 "
    "text.max_tokens=16 trainer.epochs=1 trainer.accelerator=cpu trainer.progress=false logger.wandb=off"
)


def prepared(source: Path, out: Path, options: str = "") -> str | None:
    call(f"prepare source={source} out={out} workers=0 {options}")
    return of_folder(out)


def test_a_table_has_the_fingerprint_of_its_rows(tmp_path: Path) -> None:
    table = pl.DataFrame({"id": ["a", "b", None], "tags": [["x"], None, ["x", "y"]], "n": [1.0, None, 2.0]})
    path = tmp_path / "t.parquet"

    def of(frame: pl.DataFrame, rows: int | None = None) -> str:
        frame.write_parquet(path, row_group_size=rows, compression="zstd" if rows else "lz4")
        return of_table(path, ("at",))

    same = {of(table), of(table, 1), of(table.with_columns(at=pl.int_range(3)))}
    others = {of(table[::-1]), of(table[:2]), of(table.rename({"n": "m"})), of(table.with_columns(n=pl.lit(1.0)))}
    assert len(same) == 1 and len(others) == 4 and not same & others


@pytest.mark.parametrize("store", ["logmel", "samples", "files"])
def test_the_same_data_prepared_again_has_the_same_fingerprint(
    store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "world"
    call(f"world {SMALL} out={source}")
    options = f"audio.store={store}"
    first = prepared(source, tmp_path / "catalogue", options)
    shards = sorted(os.listdir(tmp_path / "catalogue_audio")) if store != "files" else []
    call(f"world {SMALL} out={source}")  # all files are written anew
    assert prepared(source, tmp_path / "catalogue", options) == first
    assert not shards or sorted(os.listdir(tmp_path / "catalogue_audio")) == shards, "nothing is kept twice"
    monkeypatch.setattr(cache, "SHARD_BYTES", 100_000)
    moved = Path(shutil.copytree(source, tmp_path / "elsewhere" / "moved"))
    assert prepared(moved, tmp_path / "elsewhere" / "catalogue", options) == first, "other places, other shards"
    one, other = sorted((moved / "audio").iterdir())[:2]
    shutil.copy(one, other)
    assert prepared(moved, tmp_path / "elsewhere" / "catalogue", options) != first, "another recording"
    assert prepared(source, tmp_path / "shorter", f"{options} audio.max_seconds=1.2") != first
    call(f"world {SMALL} seed=1 out={source}")
    assert prepared(source, tmp_path / "catalogue", options) != first


def test_a_training_goes_on_when_its_data_was_prepared_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def again(world: str = "", split: str = "") -> None:
        call(f"world {SMALL} {world} out={tmp_path}/world")
        call(f"prepare source={tmp_path}/world workers=0 {split} out={tmp_path}/catalogue")

    def train() -> str:
        call(f"clip data={tmp_path}/catalogue out={tmp_path}/clip {CLIP}")
        return capsys.readouterr().out

    again()
    train()
    embed = f"embed clip={tmp_path}/clip data={tmp_path}/catalogue accelerator=cpu out={tmp_path}"
    call(f"{embed}/features")
    again()
    assert "already finished" in train()
    call(f"{embed}/others")
    assert of_folder(tmp_path / "features") == of_folder(tmp_path / "others")
    again(split="split.cold_share=0.15")
    with pytest.raises(SystemExit):
        train()
    assert "trained on an earlier state of" in capsys.readouterr().err
    call(f"{embed}/others")
    assert of_folder(tmp_path / "features") != of_folder(tmp_path / "others"), "made of another catalogue"


def test_a_corpus_is_known_by_its_text(tmp_path: Path) -> None:
    from artifacts.runs import sources
    from configs.load import as_dict

    path = tmp_path / "corpus.jsonl"
    config = as_dict(load(CorpusConfig, [f"corpus={path}", "out=run"]))
    found = []
    for text, at in (("one", 1), ("one", 2), ("two", 2)):
        path.write_text(text)
        os.utime(path, (at, at))
        found.append(sources(config))
    assert found[0] == found[1] != found[2]


STAGES = {  # folder that a line of demo.sh writes → what is there while it is written
    "world": ".world.part",
    "catalogue": ".catalogue.part",
    "clip": "clip/checkpoints/last.ckpt",
    "features": ".features.*",
    "boundary": "boundary/checkpoints/last.ckpt",
    "i2i": "i2i/checkpoints/last.ckpt",
    "cb2cf": "cb2cf/checkpoints/last.ckpt",
    "index": ".index.part",
    "cb2cf_index": ".cb2cf_index.part",
    "audience": ".audience.part",
    "rank": "rank/.examples.part",
    "audience_boundary": ".audience_boundary.part",
    "evaluation": ".evaluation.part",
    "export/i2i": "export/.i2i.part",
    "export/boundary": "export/.boundary.part",
    "export/clip": "export/.clip.part",
    "service": ".service.part",
}
TRAININGS = ("clip", "i2i", "cb2cf", "boundary")


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[Callable[..., int]]:
    """`demo(folder, stage)` runs a small demo.sh; with a stage, it gets `end` within it. Gives the exit status, when
    none of its processes is left."""
    training = "trainer.epochs=3 trainer.accelerator=cpu trainer.progress=false batch_size=32"
    given = os.environ | {"DEMO_WORLD": SMALL.replace("60", "90"), "DEMO_TRAINING": training, "OMP_NUM_THREADS": "1"}
    given |= {"DEMO_RANKER": "trees.min_leaf=5"}
    given["PATH"] = f"{Path(sys.executable).parent}:{given['PATH']}"
    started: list[subprocess.Popen[bytes]] = []

    def run(folder: Path, stage: str = "", end: signal.Signals = signal.SIGKILL) -> int:
        before = {path: path.stat().st_ctime_ns for path in folder.glob(STAGES[stage])} if stage else {}
        with (tmp_path / "log").open("wb") as log:
            argv = ["sh", "demo.sh", str(folder)]
            process = subprocess.Popen(argv, cwd=ROOT, env=given, stdout=log, stderr=log, start_new_session=True)
        started.append(process)
        while stage and process.poll() is None:
            there = {path: path.stat().st_ctime_ns for path in folder.glob(STAGES[stage]) if path.exists()}
            if there and there != before:
                os.killpg(process.pid, end)
                break
            time.sleep(0.002)
        status = process.wait()
        with pytest.raises(ProcessLookupError):
            for _ in range(600):
                os.killpg(process.pid, 0)
                time.sleep(0.1)
        return status

    yield run
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_demo_that_is_killed_in_every_stage_ends_as_one_that_was_not(
    demo: Callable[..., int], tmp_path: Path
) -> None:
    """It begins anew after each kill, so that each stage has also its earlier folder to replace."""
    assert demo(tmp_path / "whole") == 0, (tmp_path / "log").read_text()[-3000:]
    killed = tmp_path / "killed"
    finished: dict[str, tuple[str, int]] = {}
    for stage in STAGES:
        if stage in finished:
            continue  # it ended beside another line, before that was killed
        assert demo(killed, stage) == -signal.SIGKILL, (stage, (tmp_path / "log").read_text()[-3000:])
        for name, state in finished.items():
            best = killed / name / "checkpoints" / "best.ckpt"
            assert state == (of_file(best), best.stat().st_mtime_ns), f"{name} was trained again after {stage}"
        for name in TRAININGS:
            path = killed / name / "manifest.json"
            if path.exists() and json.loads(path.read_text())["finished"]:
                best = killed / name / "checkpoints" / "best.ckpt"
                finished[name] = of_file(best), best.stat().st_mtime_ns
    assert demo(killed) == 0, (tmp_path / "log").read_text()[-3000:]
    assert sorted(finished) == sorted(TRAININGS)
    assert not [path for path in killed.rglob("*") if path.name.endswith((".part", ".old", ".ranks"))]
    assert sorted(os.listdir(killed)) == sorted(os.listdir(tmp_path / "whole"))
    for name in ("catalogue", "features"):
        assert of_folder(killed / name) == of_folder(tmp_path / "whole" / name)
    for path in (tmp_path / "whole").rglob("*.npy"):
        if path.parent.parent.name == "catalogue_audio":
            continue  # named by where the recordings lie; the catalogue's features are made of it
        other = killed / path.relative_to(tmp_path / "whole")
        np.testing.assert_array_equal(np.load(path), np.load(other), err_msg=str(other))
    metrics = [json.loads((folder / "metrics.json").read_text()) for folder in (tmp_path / "whole", killed)]
    assert metrics[0] == metrics[1]


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_demo_that_is_interrupted_leaves_nothing_running(demo: Callable[..., int], tmp_path: Path) -> None:
    """Also not the line that runs beside the others, which a shell shields from interrupts."""
    assert demo(tmp_path / "demo", "boundary", signal.SIGINT) == 130, (tmp_path / "log").read_text()[-3000:]
    assert not json.loads((tmp_path / "demo" / "boundary" / "manifest.json").read_text())["finished"]


STUB = """#!/bin/sh
# stands for Python: training of the boundary goes on until it is told to end, which takes a while; that of i2i fails
case "$*" in
  *train.py\\ boundary*)
    trap 'sleep 0.5; echo ended > "$LOG"; exit 143' TERM
    echo began > "$LOG"
    for _ in $(seq 1000); do sleep 0.05; done ;;
  *train.py\\ i2i*)
    until [ -s "$LOG" ]; do sleep 0.05; done
    exit 7 ;;
esac
"""


@pytest.mark.parametrize("shell", ["sh", "bash"])
def test_a_demo_ends_after_the_line_that_ran_beside_the_one_that_failed(tmp_path: Path, shell: str) -> None:
    """Else a next run would find the folder while a process of this one still writes it."""
    stub, log = tmp_path / "bin" / "python", tmp_path / "log"
    stub.parent.mkdir()
    stub.write_text(STUB)
    stub.chmod(0o755)
    given = os.environ | {"PATH": f"{stub.parent}:{os.environ['PATH']}", "LOG": str(log)}
    found = subprocess.run([shell, "demo.sh", str(tmp_path / "a demo")], env=given, timeout=60)
    assert found.returncode == 7 and log.read_text() == "ended\n"
