"""The service beside that of another checkout: processor time a request, and whether the answers are the same bytes.

    git worktree add runs/before COMMIT
    OMP_NUM_THREADS=1 python -m benchmarks.speed.serve_beside other=runs/before model=runs/demo/service

Without model= a service folder is made first, as in `benchmarks.speed.serve_load`. Both services run at the same time
and answer the same requests in turns, so that what else the machine does meets both alike. Written: of each kind of
request the medians of the rounds, in milliseconds of processor time, and of their ratios; and of those by the clock.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from omegaconf import MISSING
from tqdm import tqdm

from benchmarks.measure import tell
from benchmarks.speed.serve_process import ROOT, Running, children, cpu_clock, serving
from benchmarks.speed.serve_requests import KINDS, SONGS, Material, answer
from benchmarks.speed.serve_world import folder_to_serve
from benchmarks.table import lines
from configs.errors import UserError
from configs.load import command
from configs.options import above, opt

DATED = "added_at"  # of a song that comes in: two services tell two times


@dataclass
class ServeBesideConfig:
    """Options of this benchmark."""

    other: str = opt(MISSING, "checkout of the other service")
    model: str | None = opt(None, "service folder (default: a generated one)")
    users: int = opt(50_000, "generated listeners")
    songs: int = opt(50_000, "generated known songs")
    new: int = opt(1000, "generated new songs")
    plays: int = opt(500_000, "generated plays, repeated ones included")
    kinds: list[str] = opt([], "kinds of request, or the beginnings of their names (default: all)")
    rounds: int = opt(15, "rounds, in each of which both services have their turn")
    requests: int = opt(60, "requests of a turn; of posted songs a tenth of them")
    work: str = opt("runs/serve_beside", "scratch folder, emptied at the start and at the end")
    seed: int = opt(0, "seed of folder and requests")
    out: str | None = opt(None, "JSON file to write")


@dataclass
class Turn:
    """Milliseconds a request of some requests, of processor time and by the clock, and the answers."""

    ms: float
    clock_ms: float
    answers: list[bytes] = field(repr=False)


def main(config: ServeBesideConfig) -> None:
    """Run the command (see the module's docstring)."""
    above(config, 0, "users", "songs", "new", "plays", "rounds", "requests")
    if not (Path(config.other) / "serving").is_dir():
        raise UserError(f"other={config.other} is no checkout of FirstPlay")
    work, world = Path(config.work), (config.users, config.songs, config.new, config.plays, config.seed)
    with folder_to_serve(work, config.model, *world) as folder:
        report = measure(config, folder, work)
    tell(config, report)
    print(table(report))


def measure(config: ServeBesideConfig, folder: Path, work: Path) -> dict[str, Any]:
    """All rounds of all kinds, and the medians of them."""
    material, token = Material(folder, config.seed), secrets.token_hex(16)
    kinds = [kind for kind in material.kinds if not config.kinds or kind.startswith(tuple(config.kinds))]
    checkouts = {"now": ROOT, "other": Path(config.other).resolve()}
    rows = []
    with ExitStack() as stack:
        services = {
            name: stack.enter_context(serving(folder, work / name, token=token, root=root))
            for name, root in checkouts.items()
        }
        for service in services.values():
            turn(
                service, material, SONGS[0], 1, config.seed + config.rounds + 1
            )  # waits until its text encoder is loaded
        for kind in tqdm(kinds, "kinds"):
            many = max(1, config.requests // 10) if kind in SONGS else config.requests
            turns = []
            for number in range(config.rounds + 1):
                order = list(services) if number % 2 else list(services)[::-1]  # each is the first as often
                ask = material, kind, many if number else 5, config.seed + number
                turns.append({name: turn(services[name], *ask) for name in order})
            rows.append(summed(kind, turns[1:]))  # decoders start and files are mapped in the first
    return {"rows": rows}


def turn(
    service: Running,
    material: Material,
    kind: str,
    count: int,
    seed: int,
    conditions: Sequence[str | None] = (None,),
    mark: str = "",
) -> Turn:
    """Some requests of one kind, one after another, under each of the conditions on users in turn; `mark` tells the ids
    of posted songs from those of another turn."""
    number = KINDS.index(kind)
    rng = np.random.default_rng([seed, number])
    with service.client() as client:
        client.get("/readyz")
        before, began = used(service), time.perf_counter()
        answers = [
            comparable(
                answer(material, client, kind, rng, f"{number}-{seed}-{row}{mark}", conditions[row % len(conditions)])
            )
            for row in range(count)
        ]
        clock, took = time.perf_counter() - began, used(service) - before
    return Turn(1000 * took / count, 1000 * clock / count, answers)


def used(service: Running) -> float:
    """Seconds of CPU that a service and its decoders have used."""
    return sum(map(cpu_clock, (service.process.pid, *children(service.process.pid))))


def comparable(found: httpx.Response) -> bytes:
    """An answer's status and bytes; of a song that came in without when it did."""
    content = found.content
    if found.status_code == 201:
        content = json.dumps({name: value for name, value in found.json().items() if name != DATED}).encode()
    return f"{found.status_code} ".encode() + content


def summed(kind: str, turns: list[dict[str, Turn]]) -> dict[str, Any]:
    """Medians of the rounds of one kind, and how many answers were the same."""
    pairs = [pair for one in turns for pair in zip(one["now"].answers, one["other"].answers, strict=True)]
    ratios = [one["other"].ms / max(one["now"].ms, 1e-9) for one in turns]
    return {
        "kind": kind,
        "ms": float(np.median([one["now"].ms for one in turns])),
        "other_ms": float(np.median([one["other"].ms for one in turns])),
        "other_over_now": float(np.median(ratios)),
        "by_clock": float(np.median([one["other"].clock_ms / max(one["now"].clock_ms, 1e-9) for one in turns])),
        "ratios": ratios,
        "answers": len(pairs),
        "same": sum(one == other for one, other in pairs),
        "errors": sum(not one.startswith(b"20") for pair in pairs for one in pair),
    }


def table(report: dict[str, Any]) -> str:
    """The report for people."""
    head = ["request", "other", "now", "other / now", "by the clock", "answers", "the same", "errors"]
    rows = [
        [
            one["kind"], f"{one['other_ms']:.2f} ms", f"{one['ms']:.2f} ms",
            f"{one['other_over_now']:.2f} ({min(one['ratios']):.2f} to {max(one['ratios']):.2f})",
            f"{one['by_clock']:.2f}",
            str(one["answers"]), str(one["same"]), str(one["errors"]),
        ]
        for one in report["rows"]
    ]  # fmt: skip
    return lines(head, rows)


if __name__ == "__main__":
    command(main, ServeBesideConfig, __doc__)
