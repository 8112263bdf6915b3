"""The service under load: requests a second, how long they take, memory and CPU, beside the same work without HTTP.

    OMP_NUM_THREADS=1 python -m benchmarks.speed.serve_load model=runs/demo/service out=runs/serve_load.json
    OMP_NUM_THREADS=1 python -m benchmarks.speed.serve_load users=1000000 songs=1000000 plays=10000000

Without model= a service folder is made first, of generated songs and listeners. Audiences are asked for in all modes;
in that of the ranker where the folder has one, as a generated one has (trees: extra `rank`). The real service runs in a
process of its own, on loopback and with a token. So many clients as `clients` says ask for each kind of thing for
`seconds`, then as many threads call the parts of the service in this process (`serving.incoming`, `serving.shown`).
Clients take their share of the same cores. At the end many more clients come than the service lets in. Written: rates,
percentiles, statuses, cores used, memory before and after, how long start and restart take.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from benchmarks.measure import tell, timed
from benchmarks.speed.serve_process import Running, serving
from benchmarks.speed.serve_requests import KINDS, WRITES, Material, Side, in_process, over_http
from benchmarks.speed.serve_world import DIM, folder_to_serve
from benchmarks.table import lines
from configs.errors import UserError
from configs.load import command
from configs.options import opt
from configs.serving import ServingConfig
from serving.engine import Engine
from serving.routes import Service

PAUSE = 0.05  # seconds that a client waits after a 429
PARTS = 10  # of the soak


@dataclass
class ServeLoadConfig:
    """Options of this benchmark."""

    model: str | None = opt(None, "service folder (default: a generated one)")
    users: int = opt(50_000, "generated listeners")
    songs: int = opt(50_000, "generated known songs")
    new: int = opt(1000, "generated new songs")
    plays: int = opt(500_000, "generated plays, repeated ones included")
    dim: int = opt(DIM, "numbers of a generated song's vector")
    clients: list[int] = opt([1, 8], "clients at a time")
    seconds: float = opt(5.0, "of each kind of request, for each number of clients")
    soak: float = opt(30.0, "seconds in which songs come in while the service's memory is looked at")
    past: int = opt(192, "clients at the end, many more than the 64 requests that the service takes at a time")
    threads: int = opt(1, "threads of the models")
    work: str = opt("runs/serve_load", "scratch folder, emptied at the start and at the end")
    seed: int = opt(0, "seed of folder and requests")
    out: str | None = opt(None, "JSON file to write")


def main(config: ServeLoadConfig) -> None:
    """Run the command (see the module's docstring)."""
    sizes = config.users, config.songs, config.new, config.plays, config.dim, config.past, *config.clients
    if min(*sizes, config.seconds, config.soak) <= 0:
        raise UserError("users, songs, new, plays, dim, clients, seconds, soak and past must be above 0")
    torch.set_num_threads(config.threads)
    work, world = Path(config.work), (config.users, config.songs, config.new, config.plays, config.seed, config.dim)
    with folder_to_serve(work, config.model, *world) as folder:
        report = measure(config, folder, work)
    tell(config, report)
    print(table(report))


def measure(config: ServeLoadConfig, folder: Path, work: Path) -> dict[str, Any]:
    """All phases on a service folder."""
    material, phases, token = Material(folder, config.seed), [], secrets.token_hex(16)
    options = folder, work / "store", f"threads={config.threads}"
    with serving(*options, token=token) as running, beside(config, folder, work) as service:
        http = over_http(material, running.url, token)
        sides = {"service": http, "in_process": in_process(material, service)}
        for kind in tqdm(material.kinds, "first requests"):  # decoders start, files are mapped
            for side in sides.values():
                load(side, kind, max(config.clients), min(1.0, config.seconds), config.seed + 1)
        for kind, clients in tqdm([(kind, clients) for kind in material.kinds for clients in config.clients], "load"):
            phases.append(phase(config, running, sides, kind, clients))
        past = load(sides["service"], KINDS[0], config.past, config.seconds, config.seed + 2)
        memory = soak(config, running, sides["service"])
        about = running.get("/model").json()
    reads = [one for one in phases if one["kind"] not in WRITES]
    with serving(*options, token=token) as again:
        restart, kept = again.start_seconds, again.get("/model").json()["accepted_songs"]
    return {
        **{name: about[name] for name in ("users", "known_songs", "new_songs", "accepted_songs")},
        "start_seconds": running.start_seconds,
        "phases": phases,
        "past": {"clients": config.past, **past},
        "memory": memory | {"mb_while_reading": sum(one["own_mb_growth"] for one in reads)},
        "restart": {"seconds": restart, "accepted_songs": kept},
    }


def phase(config: ServeLoadConfig, running: Running, sides: dict[str, Side], kind: str, clients: int) -> dict[str, Any]:
    """One kind of request by so many clients: of the service, then of its parts."""
    before, took = running.account(), dict[str, float]()
    with timed(took, "service"):
        service = load(sides["service"], kind, clients, config.seconds, config.seed)
    after = running.account()
    alone = load(sides["in_process"], kind, clients, config.seconds, config.seed)
    return {
        "kind": kind,
        "clients": clients,
        "service": service,
        "in_process": alone,
        "service_over_in_process": service["per_second"] / max(alone["per_second"], 1e-9),
        "service_cores": (after["cpu_seconds"] - before["cpu_seconds"]) / took["service"],
        "own_mb_growth": after["own_mb"] - before["own_mb"],
    }


def load(side: Side, kind: str, clients: int, seconds: float, seed: int) -> dict[str, Any]:
    """What so many clients saw who asked one thing after another."""
    seen: list[list[tuple[int, float]]] = [[] for _ in range(clients)]
    start, end = threading.Barrier(clients + 1), threading.Event()

    def client(number: int) -> None:
        rng = np.random.default_rng([seed, number, KINDS.index(kind)])
        with side() as ask:
            start.wait()
            while not end.is_set():
                began = time.perf_counter()
                status = ask(kind, rng)
                seen[number].append((status, time.perf_counter() - began))
                if status == 429:
                    end.wait(PAUSE)

    threads = [threading.Thread(target=client, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    start.wait()
    began = time.perf_counter()
    end.wait(seconds)
    end.set()
    for thread in threads:
        thread.join()
    return summary([one for part in seen for one in part], time.perf_counter() - began)


def summary(seen: list[tuple[int, float]], seconds: float) -> dict[str, Any]:
    """Rate and milliseconds of what was answered as wanted, and how often there was which other answer."""
    good = [took for status, took in seen if status in (200, 201)]
    other = Counter(str(status) for status, _ in seen if status not in (200, 201))
    at = {f"p{part}_ms": 1000 * float(np.percentile(good, part)) if good else None for part in (50, 95, 99)}
    return {"answered": len(good), "per_second": len(good) / seconds, **at, "refused": dict(other)}


def soak(config: ServeLoadConfig, running: Running, side: Side) -> dict[str, Any]:
    """The service's memory while songs come in, and how it grows with them once every buffer has its size."""
    songs, seen = [0], [running.account()]
    for part in tqdm(range(PARTS), "soak"):
        found = load(side, KINDS[0], max(config.clients), config.soak / PARTS, config.seed + 3 + part)
        songs.append(songs[-1] + found["answered"])
        seen.append(running.account())
    own_mb, rss_mb = ([one[name] for one in seen] for name in ("own_mb", "rss_mb"))
    later = slice(PARTS // 2, None)
    slope = np.polyfit(songs[later], own_mb[later], 1)[0]
    return {"songs": songs, "own_mb": own_mb, "rss_mb": rss_mb, "kb_a_song": float(1024 * slope)}


@contextmanager
def beside(config: ServeLoadConfig, folder: Path, work: Path) -> Iterator[Service]:
    """The service's parts in this process."""
    options = ServingConfig(model=str(folder), store=str(work / "store_in_process"), threads=config.threads)
    with closing(Engine(options.model, options.store, options.batch)) as engine:
        service = Service(engine, options)
        with closing(service.decoders):
            yield service


def table(report: dict[str, Any]) -> str:
    """The report for people."""
    head = ["request", "clients", "a second", "p50", "p95", "p99", "errors", "in process", "service / in process"]
    rows = []
    for one in report["phases"]:
        ours, alone = one["service"], one["in_process"]
        cells = [one["kind"], str(one["clients"]), f"{ours['per_second']:.1f}"]
        cells += [f"{ours[f'p{part}_ms']:.1f} ms" for part in (50, 95, 99)]
        cells += [str(sum(ours["refused"].values())), f"{alone['per_second']:.1f}"]
        rows.append([*cells, f"{one['service_over_in_process']:.2f}", f"{one['service_cores']:.2f}"])
    past, kept = report["past"], report["memory"]
    return (
        f"{report['users']:,} users, {report['known_songs']:,} known songs; start {report['start_seconds']:.1f} s, "
        f"with {report['restart']['accepted_songs']:,} accepted songs {report['restart']['seconds']:.1f} s\n"
        f"{lines([*head, 'cores'], rows)}\n"
        f"{past['clients']} clients: {past['per_second']:.1f} songs a second, other answers {past['refused']}\n"
        f"memory of its own: {kept['own_mb'][0]:,.0f} → {kept['own_mb'][-1]:,.0f} MB while {kept['songs'][-1]:,} songs "
        f"came in, at last {kept['kb_a_song']:.1f} kB a song; {kept['mb_while_reading']:+.0f} MB while none did"
    )


if __name__ == "__main__":
    command(main, ServeLoadConfig, __doc__)
