"""Time and memory of audiences on Spark beside the local engine, on synthetic power-law listening.

    OMP_NUM_THREADS=1 python -m benchmarks.speed.audience_spark users=1000000 plays=50000000 out=runs/spark.json

The listening is that of `benchmarks.speed.audience_scale`, as a Parquet file. Every engine is a process of its own,
Spark's once for each of `partitions`; each reads the plays and looks for the users of all new songs. Spark is this
machine (`cores`), or with `master=spark://…` a cluster whose workers run on this machine, which are measured too.

Written: seconds of each stage and processor seconds of all its processes, which other work on the machine does not
lengthen as much; peak memory of each process (Python, Spark's largest Java, its largest Python worker) and of all
together; and whether all found the same: the same scores, the same users but where scores are equal to the sixth digit.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from benchmarks.measure import memory, tell, timed
from benchmarks.speed.audience_scale import ScaleConfig
from benchmarks.speed.audience_scale import world as made_world
from benchmarks.speed.serve_process import children, cpu_seconds
from configs.errors import UserError
from configs.load import as_dict, command
from configs.options import at_least, opt
from configs.targeting import AudienceSparkConfig, TargetingConfig
from data.catalogue import Catalogue
from data.item_pairs.verification import listening_matrix
from inference.song_index import SongIndex
from inference.spark_audience import listening_in_spark, read_plays, targeting_in_spark
from inference.targeting import targeting_of
from retrieval.audience import Audience
from retrieval.index import build_index
from retrieval.listening import Listening
from retrieval.targeting import Mode, Targeting

EVERY = 0.5  # seconds between two looks at the memory of all processes
CLOSE = 1e-6  # of scores: products of matrices of another shape are summed in another order


@dataclass
class AudienceSparkSpeedConfig:
    """Options of this benchmark."""

    users: int = opt(50_000, "listeners")
    plays: int = opt(1_000_000, "plays, repeated ones included")
    songs: int = opt(100_000, "known songs")
    new: int = opt(1000, "new songs")
    dim: int = opt(64, "size of a song vector")
    modes: list[str] = opt(["i2i2u", "taste"], "of pipeline.audience: i2i2u, taste, cat, union")
    partitions: list[int] = opt([2, 8, 32], "parts of the users, each number in turn")
    cores: int = opt(2, "of Spark on this machine: local[cores]")
    master: str | None = opt(None, "spark://… of a cluster on this machine, instead of local[cores]")
    driver_memory: str = opt("3g", "heap of Spark's Java process, which is driver and without master= executor too")
    executor_memory: str = opt("1g", "master=: heap of each executor")
    work: str = opt("runs/audience_spark", "folder for plays and lists, emptied at the end")
    seed: int = opt(0, "seed of the listening")
    out: str | None = opt(None, "JSON file to write")
    stage: str | None = opt(None, "one stage alone, in this process (what the benchmark calls itself with)")
    targeting: TargetingConfig = field(default_factory=TargetingConfig)


def main(config: AudienceSparkSpeedConfig) -> None:
    """Run the command (see the module's docstring)."""
    at_least(config, 1, "users", "plays", "songs", "new", "dim", "cores")
    if not config.partitions or min(config.partitions) < 1 or not config.modes:
        raise UserError("partitions and modes: one or more, partitions from 1 on")
    work = Path(config.work)
    for mode in config.modes:
        as_mode(mode)
    if config.stage:
        print(json.dumps(STAGES[config.stage](config, work)))
        return
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    try:
        about = alone("world", config)
        local = alone("local", config)
        spark = {str(parts): alone("spark", config, parts) for parts in config.partitions}
        same = {
            parts: {mode: compared(work, f"local-{mode}", f"spark-{parts}-{mode}") for mode in config.modes}
            for parts in spark
        }
    finally:
        shutil.rmtree(work)
    tell(config, about | {"local": local, "spark": spark, "lists": same})
    if any(lists["largest_score_difference"] > CLOSE for modes in same.values() for lists in modes.values()):
        raise UserError("the engines did not find the same lists")


def alone(stage: str, config: AudienceSparkSpeedConfig, parts: int | None = None) -> dict[str, Any]:
    """A stage in a process of its own: what it prints last."""
    options = as_dict(config) | {"stage": stage, "out": None}
    options |= {"partitions": [parts]} if parts else {}
    targeting = {f"targeting.{name}": value for name, value in options.pop("targeting").items()}
    given = [f"{key}={json.dumps(value) if isinstance(value, list) else value}" for key, value in options.items()]
    given = [one for one in given if not one.endswith("=None")] + [f"{key}={value}" for key, value in targeting.items()]
    memories = f"--driver-memory {config.driver_memory} --executor-memory {config.executor_memory}"
    environment = {**os.environ, "PYSPARK_SUBMIT_ARGS": f"{memories} pyspark-shell"}
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.speed.audience_spark", *given],
        capture_output=True, text=True, env=environment,
    )  # fmt: skip
    if done.returncode:
        raise UserError(f"stage '{stage}' failed: {done.stderr.strip().splitlines()[-1]}")
    return dict(json.loads(done.stdout.splitlines()[-1]))


def compared(work: Path, one: str, other: str) -> dict[str, Any]:
    """How many places of two lists name another user, and by how much scores differ at most."""
    (users, scores), (others, beside) = (np.load(work / f"{name}.npz").values() for name in (one, other))
    both = (scores > -np.inf) & (beside > -np.inf)
    same = bool(((scores > -np.inf) == (beside > -np.inf)).all())
    furthest = float(np.abs(scores[both] - beside[both]).max(initial=0.0) / max(1e-9, np.abs(scores[both]).max()))
    return {
        "places": int(both.sum()),
        "other_users": int((users != others).sum()),
        "largest_score_difference": furthest if same else float("inf"),
    }


# ------------------------------------------------------------------------------------------------------- stages


def world(config: AudienceSparkSpeedConfig, work: Path) -> dict[str, Any]:
    """Vectors and plays, one row for each user and song, as files."""
    sizes = {name: getattr(config, name) for name in ("users", "plays", "songs", "new", "dim", "seed")}
    index, listening = made_world(ScaleConfig(**sizes))
    np.save(work / "vectors.npy", index.vectors)
    user = np.repeat(np.arange(config.users, dtype=np.int32), np.diff(listening.indptr))
    columns = {"user": user, "song": listening.indices.astype(np.int32), "strength": listening.data}
    pl.DataFrame(columns).write_parquet(work / "plays.parquet")
    return {"distinct_plays": listening.nnz, "plays_mb": round((work / "plays.parquet").stat().st_size / 1e6)}


def local(config: AudienceSparkSpeedConfig, work: Path) -> dict[str, Any]:
    """All lists by the local engine."""
    with watched(took := Took()):
        with took.stage("plays"):
            catalogue, index = opened(config, work)
            heard = listening_matrix(catalogue.plays, catalogue.n_users, catalogue.n_songs)
            targeting = targeting_of(index, Listening(heard), config.targeting)
        search(config, targeting, took, work, "local")
    return took.told()


def spark(config: AudienceSparkSpeedConfig, work: Path) -> dict[str, Any]:
    """The same by Spark."""
    parts = config.partitions[0]
    with watched(took := Took()):
        catalogue, index = opened(config, work)
        options = AudienceSparkConfig(master=config.master or f"local[{config.cores}]", partitions=parts)
        with took.stage("Spark starts"):
            plays, _ = read_plays(options, catalogue)
        took.app = plays.sparkSession.sparkContext.applicationId
        with took.stage("plays"):
            listening = listening_in_spark(plays, parts, catalogue)
        targeting = targeting_in_spark(index, listening, config.targeting, None, work)
        search(config, targeting, took, work, f"spark-{parts}")
    listening.spark.stop()
    return took.told()


STAGES: dict[str, Callable[[AudienceSparkSpeedConfig, Path], dict[str, Any]]] = {
    "world": world,
    "local": local,
    "spark": spark,
}


def opened(config: AudienceSparkSpeedConfig, work: Path) -> tuple[Catalogue, SongIndex]:
    """The world as a catalogue and an index."""
    vectors, known = np.load(work / "vectors.npy"), np.arange(config.songs)
    catalogue = Catalogue(work, {})
    catalogue.songs = pl.DataFrame({"split": ["warm"] * config.songs + ["cold_test"] * config.new})
    catalogue.users = pl.select(user_id=pl.int_range(config.users))
    return catalogue, SongIndex({}, build_index(vectors[known]), known, vectors)


def search(config: AudienceSparkSpeedConfig, targeting: Targeting, took: Took, work: Path, name: str) -> None:
    """The lists of all modes, timed, into files."""
    new = np.arange(config.songs, config.songs + config.new)
    songs = targeting.songs(targeting.song_SD[new], new)
    for mode in config.modes:
        with took.stage(mode):
            found: Audience = targeting.audience(songs, as_mode(mode), config.targeting.budget)
        np.savez(work / f"{name}-{mode}.npz", users=found.users_CB, scores=found.scores_CB)


def as_mode(name: str) -> Mode:
    """A mode by its name.

    Raises:
        UserError: it needs a model.
    """
    modes: tuple[Mode, ...] = ("i2i2u", "taste", "cat", "union")
    if (found := next((mode for mode in modes if mode == name), None)) is None:
        raise UserError(f"modes={name}: there is no model here, choose from {', '.join(modes)}")
    return found


@dataclass
class Took:
    """What stages took: time, processor time of all processes, and peak memory (MB) by kind of process and of all.

    `app` names the application to a cluster, where there is one. What processes share counts once in `all`.
    """

    app: str = ""
    seconds: dict[str, float] = field(default_factory=dict)
    cpu: dict[str, float] = field(default_factory=dict)
    peak: dict[str, int] = field(default_factory=lambda: {"python": 0, "java": 0, "worker": 0, "all": 0})

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Measure the block."""
        before = self.spent()
        with timed(self.seconds, name):
            yield
        self.cpu[name] = self.spent() - before

    def processes(self) -> tuple[list[int], list[int]]:
        """Spark's: those of Java, and their Python workers."""
        java = [*children(os.getpid()), *(executors(self.app) if self.app else [])]
        return java, descendants(java)

    def spent(self) -> float:
        """Processor seconds so far, also those of workers that have ended."""
        java, workers = self.processes()
        return sum(cpu_seconds(one) for one in (os.getpid(), *java)) + sum(cpu_seconds(one, True) for one in workers)

    def look(self) -> None:
        """Look at the memory of all processes."""
        java, workers = self.processes()
        for kind, processes in (("python", [os.getpid()]), ("java", java), ("worker", workers)):
            self.peak[kind] = max(self.peak[kind], *(memory_of("VmHWM", one) for one in processes), 0)
        self.peak["all"] = max(self.peak["all"], sum(memory_of("Pss:", one) for one in (os.getpid(), *java, *workers)))

    def told(self) -> dict[str, Any]:
        """All of it, for the report."""
        return {"seconds": self.seconds, "cpu_seconds": self.cpu, "peak_memory_mb": self.peak}


@contextmanager
def watched(took: Took) -> Iterator[None]:
    """Look at the memory again and again until the end of the block; beside it what this process has before."""
    took.peak["before"] = memory("VmRSS")
    done = threading.Event()

    def look() -> None:
        while not done.wait(EVERY):
            took.look()

    watch = threading.Thread(target=look, daemon=True)
    watch.start()
    yield
    done.set()
    watch.join()


def executors(app: str) -> list[int]:
    """Java processes of an application's executors on this machine."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            words = path.read_bytes().decode(errors="replace").split("\0")
            if app in words and any(word.endswith("CoarseGrainedExecutorBackend") for word in words):
                found.append(int(path.parent.name))
    return found


def descendants(processes: list[int]) -> list[int]:
    """All processes that some processes have started, and those that these have."""
    below = [child for one in processes for child in children_of(one)]
    return below + descendants(below) if below else []


def children_of(process: int) -> list[int]:
    """Those of a process that may be gone."""
    try:
        return children(process)
    except OSError:
        return []


def memory_of(name: str, process: int) -> int:
    """A line of the memory account of a process, 0 once it is gone; "Pss:" shares what is shared."""
    try:
        if name != "Pss:":
            return memory(name, process)
        lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) // 1024 for line in lines if line.startswith(name)), 0)


if __name__ == "__main__":
    command(main, AudienceSparkSpeedConfig, __doc__)
