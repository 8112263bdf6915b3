"""engine=spark on a standalone cluster, whose executors are processes of their own: the lists of the local engine, also
when a worker or the command itself is killed. Skipped where pyspark or Java is missing."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from polars.testing import assert_frame_equal

pytest.importorskip("pyspark", reason="pyspark is not installed")
if not (os.environ.get("JAVA_HOME") or shutil.which("java")):
    pytest.skip("there is no Java here", allow_module_level=True)

from configs.load import load
from configs.ranking import RankConfig
from inference import spark_audience, user_parts
from tests.commands import run
from tests.spark_cluster import HOME, SESSION, Cluster, cluster, until
from tests.spark_session import small_session
from training import ranking

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3000)]
ROOT = Path(__file__).parents[2]
NOWHERE = "spark://127.0.0.1:9"
TREES = ["model=trees", "depth=15", "trees.min_leaf=5", "trees.rounds=40", "trees.parts=3"]


@pytest.fixture(scope="module")
def index(i2i_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index of the tiny catalogue's known songs."""
    folder = tmp_path_factory.mktemp("index") / "index"
    run("index", f"run={i2i_run}", f"out={folder}")
    return folder


@pytest.fixture(scope="module")
def rank_run(
    catalogue_folder: Path, i2i_run: Path, boundary_run: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A trained ranker of trees."""
    folder = tmp_path_factory.mktemp("rank") / "rank"
    of = [f"data={catalogue_folder}", f"i2i={i2i_run}", f"boundary={boundary_run}", f"out={folder}"]
    ranking.train_rank(load(RankConfig, [*of, *TREES]))
    return folder


@pytest.fixture(scope="module")
def standing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster of two workers, of which tests may leave one."""
    with cluster(tmp_path_factory.mktemp("cluster")) as found:
        yield found


@pytest.fixture
def running(standing: Cluster, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """The same, and a session on it, which commands of this process find."""
    monkeypatch.setenv("PYSPARK_PYTHON", sys.executable)
    with small_session(standing.url, "OFF", SESSION):
        yield standing


def assert_same_audience(one: Path, other: Path) -> None:
    """The same users with the same scores, but for products of matrices of another shape."""
    found, expected = (pl.read_parquet(folder / "audience.parquet") for folder in (one, other))
    assert found.height > 20
    assert_frame_equal(found, expected, abs_tol=1e-5)


def test_commands_on_a_cluster(
    running: Cluster,
    index: Path,
    boundary_run: Path,
    rank_run: Path,
    catalogue_folder: Path,
    prepare: Callable[..., Path],
    dirty: Callable[..., Path],
    same_catalogue: Callable[..., dict[str, Any]],
    tmp_path: Path,
) -> None:
    """A catalogue of a dirty log, audiences of every mode, an evaluation."""
    source = dirty(tmp_path / "a b=c [1]")
    made = {engine: prepare(source, tmp_path / engine, f"engine={engine}") for engine in ("local", "spark")}
    same_catalogue(made["local"], made["spark"])
    pl.DataFrame({"user_id": ["u1", "u2"]}).write_parquet(tmp_path / "users.parquet")
    limits = [f"exclude={tmp_path / 'users.parquet'}", "targeting.per_user_cap=3", "targeting.exploration=0.2"]
    bounded = [f"boundary={boundary_run}", "gate=true", *limits]
    modes = {"i2i2u": [], "taste": ["long_tail=20"], "cat": [], "union": bounded, "boundary": bounded[:1]}
    modes |= {"rank": [f"rank={rank_run}", *bounded[:1], "targeting.budget=10"]}
    for mode, more in modes.items():
        for engine, of in (("local", []), ("spark", ["engine=spark", "spark.partitions=3"])):
            run("audience", f"mode={mode}", f"index={index}", *more, *of, f"out={tmp_path / f'{mode}-{engine}'}")
        assert_same_audience(tmp_path / f"{mode}-spark", tmp_path / f"{mode}-local")
    given = [f"data={catalogue_folder}", f"index={index}", f"boundary={boundary_run}", f"rank={rank_run}"]
    for engine in ("local", "spark"):
        options = [*given, "budgets=[5,20]", "ease_songs=1", f"engine={engine}", f"out={tmp_path / f'eval-{engine}'}"]
        run("evaluate", *options)
    of = [json.loads((tmp_path / f"eval-{engine}/metrics.json").read_text()) for engine in ("local", "spark")]
    assert of[0] == of[1]


def test_a_command_that_was_killed_is_run_again(standing: Cluster, index: Path, tmp_path: Path) -> None:
    """As docs/scaling.md has it, by spark-submit, from another folder; SIGKILL while workers look for users."""
    options = ["mode=union", f"index={index}"]
    run("audience", *options, f"out={tmp_path / 'local'}")
    memory = ["--driver-memory", "512m", "--executor-memory", "512m"]
    submit = [HOME / "bin/spark-submit", "--master", standing.url, *memory, ROOT / "pipeline/audience.py"]
    line = [*submit, "engine=spark", "spark.partitions=3", *options, f"out={tmp_path / 'spark'}"]
    given = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    with (tmp_path / "log").open("w") as log:
        first = subprocess.Popen(line, cwd=tmp_path, env=given, stdout=log, stderr=log, start_new_session=True)
        until((tmp_path / ".spark.scratch.part").exists, "workers that look for users")
        os.killpg(first.pid, signal.SIGKILL)
        first.wait()
        assert not (tmp_path / "spark").exists()
        subprocess.run(line, cwd=tmp_path, env=given, stdout=log, stderr=log, check=True)
    assert_same_audience(tmp_path / "spark", tmp_path / "local")
    assert {path.name for path in tmp_path.iterdir()} == {"local", "spark", "log"}


def test_what_is_wrong_with_a_cluster_is_said(standing: Cluster, tmp_path: Path) -> None:
    """One line where no master is; and a command that waits since no worker has the memory says so."""
    start = "from data.spark.plays import connect; from configs.load import command; from configs.data import "
    start += "PrepareConfig; command(lambda c: connect(c.spark.master).range(9).count(), PrepareConfig, '', "
    start += f"['source={tmp_path}', 'out={tmp_path}/catalogue', 'engine=spark', "
    asked = [f"{start}'spark.master={url}'])" for url in (standing.url, NOWHERE)]
    given = os.environ | {"PYSPARK_SUBMIT_ARGS": "--executor-memory 9g pyspark-shell"}
    with (tmp_path / "log").open("w") as log:
        waiting = subprocess.Popen([sys.executable, "-c", asked[0]], env=given, stderr=log)
        done = subprocess.run([sys.executable, "-c", asked[1]], env=given, capture_output=True, text=True)
        until(lambda: "has not accepted any resources" in (tmp_path / "log").read_text(), "that it waits")
        waiting.kill()
        waiting.wait()
    error = [one for one in done.stderr.splitlines() if one.startswith("error: ")]
    assert done.returncode == 2 and len(error) == 1 and "Spark does not start (" in error[0], done.stderr
    assert "Traceback" not in done.stderr


def test_a_worker_is_killed(
    running: Cluster, index: Path, boundary_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With SIGKILL, while both executors look for users: what it did, and the plays that it kept, are done again."""
    from pyspark import TaskContext, cloudpickle

    def waiting(batches: Any, shared: Any, searches: list[Any]) -> Iterator[Any]:
        """Finds its list, and in its first try then waits for the worker's end."""
        task: Any = TaskContext.get()
        found = list(user_parts.named_users(batches, shared, searches))
        if task.attemptNumber() == 0:
            (tmp_path / f"found-{task.partitionId()}").touch()
            until((tmp_path / "killed").exists, "the worker's end")
        yield from found

    def kill() -> None:
        until(lambda: len(list(tmp_path.glob("found-*"))) == 2, "two tasks at work")
        running.lose_a_worker()
        (tmp_path / "killed").touch()

    options = ["mode=union", f"index={index}", f"boundary={boundary_run}", "gate=true"]
    run("audience", *options, f"out={tmp_path / 'local'}")
    for name in (__name__, until.__module__):  # which executors do not have
        cloudpickle.register_pickle_by_value(sys.modules[name])
    monkeypatch.setattr(spark_audience, "named_users", waiting)
    killer = threading.Thread(target=kill)
    killer.start()
    run("audience", *options, f"out={tmp_path / 'spark'}", "engine=spark", "spark.partitions=3")
    killer.join()
    assert (tmp_path / "killed").exists() and len(running.workers) == 1
    assert_same_audience(tmp_path / "spark", tmp_path / "local")
