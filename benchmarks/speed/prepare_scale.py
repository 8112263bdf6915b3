"""Time and memory of preparation as the log grows: song pairs beside implicit's, whole prepare, and Spark's pairs.

    OMP_NUM_THREADS=1 python -m benchmarks.speed.prepare_scale plays=[1000000,5000000] out=runs/prepare_scale.json

Logs with long tails of users and of songs, a Parquet file a million plays. Every stage is a process of its own, so that
its peak memory is its own; those that are compared take turns `repeats` times, and their medians count. Written:
seconds, peak memory above what the imports and the matrix take, whether both found the same similarities, growth from
size to size, and with `spark=true` whether Spark found the same pairs.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from scipy import sparse

from benchmarks.measure import forget_peak, memory, tell, timed
from configs.data import PairsConfig, PrepareConfig
from configs.errors import UserError
from configs.load import as_dict, command
from configs.options import opt

CHUNK = 1_000_000
TOP_K = 30


@dataclass
class PrepareScaleConfig:
    """Options of this benchmark."""

    plays: list[int] = opt([1_000_000], "sizes of the log")
    users: int = opt(0, "listeners (0: 100,000, or a fiftieth of the plays where that is more)")
    songs: int = opt(0, "songs (0: half as many as users)")
    repeats: int = opt(3, "turns of what is compared")
    memory_gb: float = opt(0.5, "memory_gb of prepare; beside it prepare runs all at once")
    spark: bool = opt(False, "Spark mines the pairs of the smallest log too")
    work: str = opt("runs/prepare_scale", "folder for logs and catalogues, emptied at the end")
    seed: int = opt(0, "seed of the logs")
    out: str | None = opt(None, "JSON file to write")
    stage: str | None = opt(None, "one stage alone, in this process (what the benchmark calls itself with)")


def main(config: PrepareScaleConfig) -> None:
    """Run the command (see the module's docstring)."""
    if config.stage:
        print(json.dumps(STAGES[config.stage](config, Path(config.work))))
        return
    if min([*config.plays, config.repeats], default=0) < 1:
        raise UserError("plays and repeats must be at least 1")
    sizes = sorted(config.plays)
    found = [of_size(config, plays, config.spark and plays == sizes[0]) for plays in sizes]
    report = {f"{plays} plays": one for plays, one in zip(sizes, found, strict=True)}
    tell(config, report | {"growth": growth(found)})


def of_size(config: PrepareScaleConfig, plays: int, spark: bool) -> dict[str, Any]:
    """All stages on a log of one size."""
    work = Path(config.work) / str(plays)
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    try:
        found: dict[str, Any] = alone("log", config, plays, work)
        found["prepare"] = in_turns(("bounded", "at once"), config, plays, work)
        found["same_catalogue"] = same_tables(work / "bounded", work / "at once")
        found["pairs"] = in_turns(("ours", "implicit"), config, plays, work)
        ours, implicit = (found["pairs"][name]["seconds"] for name in ("ours", "implicit"))
        found["ours_over_implicit"] = ours / implicit
        ours_SK, implicit_SK = (np.load(work / f"{name}.npy") for name in ("ours", "implicit"))
        found["largest_difference"] = float(np.abs(ours_SK - implicit_SK).max())
        if spark:
            found["pairs"] |= {name: alone(name, config, plays, work) for name in ("local pairs", "spark pairs")}
            found["same_pairs_as_spark"] = same_tables(work / "local", work / "spark")
    finally:
        shutil.rmtree(work)
    return found


def in_turns(stages: tuple[str, ...], config: PrepareScaleConfig, plays: int, work: Path) -> dict[str, Any]:
    """Each stage `repeats` times, one after the other: medians."""
    runs = [{stage: alone(stage, config, plays, work) for stage in stages} for _ in range(config.repeats)]
    return {
        stage: {key: float(np.median([run[stage][key] for run in runs])) for key in runs[0][stage]} for stage in stages
    }


def alone(stage: str, config: PrepareScaleConfig, plays: int, work: Path) -> dict[str, Any]:
    """A stage in a process of its own: what it prints last."""
    options = as_dict(config) | {"plays": f"[{plays}]", "work": str(work), "stage": stage, "out": None}
    given = [f"{key}={value}" for key, value in options.items() if value is not None]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.speed.prepare_scale", *given], capture_output=True, text=True
    )
    if done.returncode:
        raise UserError(f"stage '{stage}' of {plays} plays failed: {done.stderr.strip().splitlines()[-1]}")
    return dict(json.loads(done.stdout.splitlines()[-1]))


# ------------------------------------------------------------------------------------------------------- stages


def write_log(config: PrepareScaleConfig, work: Path) -> dict[str, Any]:
    """A dataset folder: a song's share falls as the power 0.6 of its rank; users' activity has a Pareto tail of 1.5."""
    plays, rng = config.plays[0], np.random.default_rng(config.seed)
    users = config.users or max(100_000, plays // 50)
    songs = config.songs or users // 2
    activity_U = np.cumsum(rng.pareto(1.5, users) + 0.5)
    song_of_rank = rng.permutation(songs)
    (work / "log" / "plays").mkdir(parents=True)
    pl.DataFrame({"song_id": [f"song{n:07}" for n in range(songs)]}).write_parquet(work / "log" / "songs.parquet")
    for number, at in enumerate(range(0, plays, CHUNK)):
        n = min(CHUNK, plays - at)
        drawn = {
            "user": np.searchsorted(activity_U, rng.random(n) * activity_U[-1]),
            "song": song_of_rank[(rng.random(n) ** 2.5 * songs).astype(np.int64)],
            "hour": (at + np.arange(n)) * 24.0 * 365 / plays,
        }
        pl.DataFrame(drawn | {"completed": rng.random(n) < 0.6, "favourited": rng.random(n) < 0.1}).select(
            user_id=pl.format("user{}", pl.col("user").cast(pl.String).str.zfill(8)),
            song_id=pl.format("song{}", pl.col("song").cast(pl.String).str.zfill(7)),
            played_at=datetime(2026, 1, 1) + pl.col("hour") * timedelta(hours=1),
            completed="completed",
            favourited="favourited",
        ).write_parquet(work / "log" / "plays" / f"{number:05}.parquet")
    size = sum(path.stat().st_size for path in (work / "log" / "plays").iterdir())
    return {"users": users, "songs": songs, "log_mb": round(size / 1e6)}


def prepare(config: PrepareScaleConfig, work: Path, name: str, memory_gb: float) -> dict[str, Any]:
    """The whole command, without audio and text."""
    from data.preparation import prepare as run

    options = PrepareConfig(source=str(work / "log"), out=str(work / name), memory_gb=memory_gb)
    return measured(lambda: run(options))[0]


def mine(config: PrepareScaleConfig, work: Path, name: str) -> dict[str, Any]:
    """Cosine of all songs of one matrix, by our search or implicit's; the similarities found go into a file."""
    from data.item_pairs.neighbours import neighbours, threads
    from data.item_pairs.verification import listening_matrix

    plays = pl.scan_parquet(work / "bounded" / "plays.parquet")
    users, songs = (pl.read_parquet(work / "bounded" / f"{table}.parquet").height for table in ("users", "songs"))
    heard = listening_matrix(plays, users, songs)
    heard.data[:] = 1
    value_SK = np.zeros((songs, TOP_K), dtype=np.float32)
    if name == "ours":
        neighbours(sparse.csr_matrix(np.eye(3, dtype=np.float32)), 1, 1, "cosine")  # compiled once for all
        cost, pairs = measured(lambda: neighbours(heard, TOP_K, 1, "cosine"))
        found = sparse.coo_matrix((pairs.similarity, (pairs.source, pairs.target)))
    else:
        from implicit.nearest_neighbours import CosineRecommender

        peer = CosineRecommender(K=TOP_K + 1, num_threads=threads())
        cost, _ = measured(lambda: peer.fit(heard, show_progress=False))
        found = sparse.coo_matrix(peer.similarity)
        found.data[found.row == found.col] = 0  # itself comes last
    order = np.lexsort((-found.data, found.row))
    row, value = found.row[order], found.data[order]
    rank = np.arange(len(row)) - np.searchsorted(row, row)
    value_SK[row[rank < TOP_K], rank[rank < TOP_K]] = value[rank < TOP_K]
    np.save(work / f"{name}.npy", value_SK)
    return cost | {"entries": heard.nnz, "products": int((np.diff(heard.indptr).astype(float) ** 2).sum())}


def mine_by(config: PrepareScaleConfig, work: Path, engine: str) -> dict[str, Any]:
    """The pairs of the catalogue with prepare's own options, by one engine, into a table."""
    from data.item_pairs import mining as positives
    from data.spark import pairs as spark_pairs
    from data.spark.plays import connect

    catalogue = work / "bounded"
    shape = tuple(pl.read_parquet(catalogue / f"{table}.parquet").height for table in ("users", "songs"))
    if engine == "spark":
        spark = connect(None)
        cost, (pairs, _) = measured(lambda: spark_pairs.mine(spark, catalogue, None, shape, PairsConfig(), 0))
    else:
        plays = pl.scan_parquet(catalogue / "plays.parquet")
        cost, (pairs, _) = measured(lambda: positives.mine(plays, None, shape, PairsConfig(), 0))
    (work / engine).mkdir()
    pairs.frame().write_parquet(work / engine / "pairs.parquet")
    return cost | {"pairs": len(pairs)}


STAGES: dict[str, Callable[[PrepareScaleConfig, Path], dict[str, Any]]] = {
    "log": write_log,
    "bounded": lambda config, work: prepare(config, work, "bounded", config.memory_gb),
    "at once": lambda config, work: prepare(config, work, "at once", 0.0),
    "ours": lambda config, work: mine(config, work, "ours"),
    "implicit": lambda config, work: mine(config, work, "implicit"),
    "local pairs": lambda config, work: mine_by(config, work, "local"),
    "spark pairs": lambda config, work: mine_by(config, work, "spark"),
}


def measured(work: Callable[[], Any]) -> tuple[dict[str, Any], Any]:
    """Seconds and this process's memory before and at most (MB; Spark's own is not in it); and the result."""
    cost: dict[str, Any] = {"memory_before_mb": memory("VmRSS")}
    forget_peak()
    with timed(cost, "seconds"):
        result = work()
    return cost | {"peak_memory_mb": memory("VmHWM")}, result


def same_tables(one: Path, other: Path) -> bool:
    """Whether all tables of two folders are equal."""
    tables = sorted(one.glob("*.parquet"))
    return len(tables) > 0 and all(pl.read_parquet(path).equals(pl.read_parquet(other / path.name)) for path in tables)


def growth(sizes: list[dict[str, Any]]) -> list[dict[str, float]]:
    """From each size to the next: how many times the plays' work, the seconds and the memory beyond the imports."""
    steps = []
    for small, large in pairwise(sizes):
        step = {"products": large["pairs"]["ours"]["products"] / small["pairs"]["ours"]["products"]}
        for kind, name in (("prepare", "bounded"), ("prepare", "at once"), ("pairs", "ours"), ("pairs", "implicit")):
            a, b = small[kind][name], large[kind][name]
            step[f"{name}: seconds"] = b["seconds"] / a["seconds"]
            more_a, more_b = (one["peak_memory_mb"] - one["memory_before_mb"] for one in (a, b))
            step[f"{name}: memory"] = more_b / max(1.0, more_a)
        steps.append(step)
    return steps


if __name__ == "__main__":
    command(main, PrepareScaleConfig, __doc__)
