"""Two services over one PostgreSQL beside one: answers a second, how long they take, errors, and which cores they use.

    OMP_NUM_THREADS=1 python -m benchmarks.speed.serve_several model=runs/demo/service out=runs/serve_several.json
    OMP_NUM_THREADS=1 python -m benchmarks.speed.serve_several users=200000 songs=200000 new=2000 plays=2000000

Needs PostgreSQL and HAProxy (Debian: apt-get install postgresql haproxy). Four ways of serving one folder run at the
same time and are asked in turns, so that what else the machine does meets all alike: one service over SQLite, one over
PostgreSQL, the same behind HAProxy, and two behind HAProxy (`configs/cluster/serve.sh`). Clients, services, database
and proxy share the cores. So before each round it is measured how much more two processes compute here than one: more
than that no second service can bring. Written: medians of the rounds, of rates and of their ratios to the first way.
"""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from benchmarks.measure import tell
from benchmarks.speed.serve_load import load
from benchmarks.speed.serve_process import serving
from benchmarks.speed.serve_requests import KINDS, PLAY, SONGS, Material, Side, over_http
from benchmarks.speed.serve_together import cluster, installed
from benchmarks.speed.serve_world import folder_to_serve
from benchmarks.table import lines
from configs.errors import UserError
from configs.load import command
from configs.options import above, opt

ASKED = (SONGS[0], PLAY, *KINDS[4:])
COMPUTING = """
import sys, time
count, end = 0, time.perf_counter() + float(sys.argv[1])
while time.perf_counter() < end:
    count += len(sorted(range(1000), key=str))
print(count)
"""


@dataclass
class ServeSeveralConfig:
    """Options of this benchmark."""

    model: str | None = opt(None, "service folder (default: a generated one)")
    users: int = opt(50_000, "generated listeners")
    songs: int = opt(50_000, "generated known songs")
    new: int = opt(1000, "generated new songs")
    plays: int = opt(500_000, "generated plays, repeated ones included")
    clients: int = opt(8, "clients at a time")
    rounds: int = opt(3, "rounds, in each of which every way has its turn")
    seconds: float = opt(3.0, "of each kind of request in a turn")
    port: int = opt(18_440, "the first of five ports for the proxies and the services behind them")
    work: str = opt("runs/serve_several", "scratch folder, emptied at the start and at the end")
    seed: int = opt(0, "seed of folder and requests")
    out: str | None = opt(None, "JSON file to write")


@dataclass
class Way:
    """A way of serving: how to ask it, and the seconds of CPU that its processes have used."""

    side: Side
    cpu_seconds: Callable[[], dict[str, float]]


def main(config: ServeSeveralConfig) -> None:
    """Run the command (see the module's docstring)."""
    above(config, 0, "users", "songs", "new", "plays", "clients", "rounds", "seconds")
    if not installed():
        raise UserError("this needs PostgreSQL and HAProxy; Debian: apt-get install postgresql haproxy")
    work, world = Path(config.work), (config.users, config.songs, config.new, config.plays, config.seed)
    with folder_to_serve(work, config.model, *world) as folder:
        report = measure(config, folder, work)
    tell(config, report)
    print(table(report))


def measure(config: ServeSeveralConfig, folder: Path, work: Path) -> dict[str, Any]:
    """All rounds, and the medians of them."""
    material = Material(folder, config.seed)
    kinds = [kind for kind in ASKED if kind in material.kinds]
    turns: list[dict[str, Any]] = []
    with ways(config, folder, work, material) as every:
        for kind in tqdm(kinds, "first requests"):  # decoders start, files are mapped
            for way in every.values():
                load(way.side, kind, config.clients, min(1.0, config.seconds), config.seed + 1)
        gains = []
        for number in tqdm(range(config.rounds), "rounds"):
            gains.append(computed(2, config.seconds) / computed(1, config.seconds))
            turns += [
                turn(config, name, way, kind, config.seed + 2 + number) for kind in kinds for name, way in every.items()
            ]
    rows = [summed(turns, kind, name, next(iter(every))) for kind in kinds for name in every]
    return {"two_processes_over_one": float(np.median(gains)), "rows": rows, "turns": turns}


@contextmanager
def ways(config: ServeSeveralConfig, folder: Path, work: Path, material: Material) -> Iterator[dict[str, Way]]:
    """All ways of serving, which run at the same time."""
    token = secrets.token_hex(16)

    def asked(url: str, cpu_seconds: Callable[[], dict[str, float]]) -> Way:
        return Way(over_http(material, url, token), cpu_seconds)

    with (
        serving(folder, work / "store", token=token) as alone,
        cluster(folder, 1, config.port, token=token) as one,
        cluster(folder, 2, config.port + 2, token=token) as two,
    ):
        yield {
            "one, SQLite": asked(alone.url, lambda: {"services": alone.account()["cpu_seconds"]}),
            "one, PostgreSQL": asked(one.url(1), one.cpu_seconds),
            "one behind HAProxy": asked(one.url(), one.cpu_seconds),
            "two behind HAProxy": asked(two.url(), two.cpu_seconds),
        }


def turn(config: ServeSeveralConfig, name: str, way: Way, kind: str, seed: int) -> dict[str, Any]:
    """One kind of request of one way, and the cores that it kept busy."""
    before, own, began = way.cpu_seconds(), time.process_time(), time.perf_counter()
    seen = load(way.side, kind, config.clients, config.seconds, seed)
    took, after = time.perf_counter() - began, way.cpu_seconds()
    cores = {part: (after[part] - before[part]) / took for part in after}
    return {"kind": kind, "way": name, **seen, "cores": cores | {"clients": (time.process_time() - own) / took}}


def summed(turns: list[dict[str, Any]], kind: str, name: str, first: str) -> dict[str, Any]:
    """The median turn of a way, and the median of its ratios to the first way, round by round."""
    ours, theirs = ([one for one in turns if (one["kind"], one["way"]) == (kind, of)] for of in (name, first))
    medians = {of: float(np.median([one[of] for one in ours])) for of in ("per_second", "p50_ms", "p95_ms", "p99_ms")}
    ratios = [one["per_second"] / other["per_second"] for one, other in zip(ours, theirs, strict=True)]
    errors = sum((Counter(one["refused"]) for one in ours), Counter[str]())
    return {
        "kind": kind, "way": name, **medians, "errors": dict(errors), "over_first": float(np.median(ratios)),
        "ratios": ratios,
        "cores": {part: float(np.median([one["cores"][part] for one in ours])) for part in ours[0]["cores"]},
    }  # fmt: skip


def computed(processes: int, seconds: float) -> int:
    """How much so many processes compute in the same seconds, in rounds of a loop."""
    argv = [sys.executable, "-c", COMPUTING, str(seconds)]
    running = [subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) for _ in range(processes)]
    return sum(int(one.communicate()[0]) for one in running)


def table(report: dict[str, Any]) -> str:
    """The report for people."""
    head = ["request", "served by", "answers a second", "over one, SQLite", "p50 / p99", "errors", "cores", "clients"]
    rows = []
    for one in report["rows"]:
        cores = sum(used for part, used in one["cores"].items() if part != "clients")
        rows.append([
            one["kind"], one["way"], f"{one['per_second']:.1f}",
            f"{one['over_first']:.2f} ({min(one['ratios']):.2f} to {max(one['ratios']):.2f})",
            f"{one['p50_ms']:.1f} / {one['p99_ms']:.1f} ms", str(sum(one["errors"].values())), f"{cores:.2f}",
            f"{one['cores']['clients']:.2f}",
        ])  # fmt: skip
    gain = report["two_processes_over_one"]
    return f"{lines(head, rows)}\ntwo processes compute {gain:.2f} times as much as one, of {os.cpu_count()} cores"


if __name__ == "__main__":
    command(main, ServeSeveralConfig, __doc__)
