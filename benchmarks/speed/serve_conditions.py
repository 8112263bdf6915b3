"""Audiences under a condition on users beside those of all users: processor time a request of the service.

    OMP_NUM_THREADS=1 python -m benchmarks.speed.serve_conditions model=runs/demo/service out=runs/serve_conditions.json

Without model= a service folder is made first, as in `benchmarks.speed.serve_load`. A condition leaves the users whose
id is among the first `shares` of all ids. One service answers the same requests under each condition and under none,
in turns, so that what else the machine does meets all alike. The service keeps what the last conditions found; under
"new each time" every request has one that it has not seen. Written: of each kind of request the medians of the rounds,
in milliseconds of processor time, of their ratios to requests without a condition, and of those by the clock.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from benchmarks.measure import tell
from benchmarks.speed.serve_beside import Turn, turn
from benchmarks.speed.serve_process import serving
from benchmarks.speed.serve_requests import SONGS, Material
from benchmarks.speed.serve_world import folder_to_serve
from benchmarks.table import lines
from configs.errors import UserError
from configs.load import command
from configs.options import above, opt
from data.conditions import literal

ALL, ANEW = "all users", "new each time"


@dataclass
class ServeConditionsConfig:
    """Options of this benchmark."""

    model: str | None = opt(None, "service folder (default: a generated one)")
    users: int = opt(50_000, "generated listeners")
    songs: int = opt(50_000, "generated known songs")
    new: int = opt(1000, "generated new songs")
    plays: int = opt(500_000, "generated plays, repeated ones included")
    shares: list[float] = opt([0.5, 0.1, 0.01], "shares of the users that conditions leave")
    kinds: list[str] = opt([], "beginnings of kinds of request (default: all that have an audience)")
    rounds: int = opt(15, "rounds, in each of which every condition has its turn")
    requests: int = opt(40, "requests of a turn; of posted songs a tenth of them")
    work: str = opt("runs/serve_conditions", "scratch folder, emptied at the start and at the end")
    seed: int = opt(0, "seed of folder and requests")
    out: str | None = opt(None, "JSON file to write")


def main(config: ServeConditionsConfig) -> None:
    """Run the command (see the module's docstring)."""
    above(config, 0, "users", "songs", "new", "plays", "rounds", "requests")
    if not config.shares or not all(0 < share < 1 for share in config.shares):
        raise UserError(f"shares={list(config.shares)}: give shares between 0 and 1")
    work, world = Path(config.work), (config.users, config.songs, config.new, config.plays, config.seed)
    with folder_to_serve(work, config.model, *world) as folder:
        report = measure(config, folder, work)
    tell(config, report)
    print(table(report))


def measure(config: ServeConditionsConfig, folder: Path, work: Path) -> dict[str, Any]:
    """All rounds of all kinds, and the medians of them."""
    material, rows = Material(folder, config.seed), []
    kinds = [kind for kind in material.kinds if kind in SONGS or kind.startswith("audience")]
    conditions = conditions_of(sorted(material.users), config.shares)
    with serving(folder, work / "store", token=secrets.token_hex(16)) as service:
        turn(service, material, SONGS[0], 1, config.seed + config.rounds + 1)  # waits for the text encoder
        for kind in tqdm([one for one in kinds if one.startswith(tuple(config.kinds or [""]))], "kinds"):
            many = max(1, config.requests // 10) if kind in SONGS else config.requests
            turns = []
            for number in range(config.rounds + 1):
                first = number % len(conditions)  # each is the first as often
                order = [*list(conditions)[first:], *list(conditions)[:first]]
                ask = service, material, kind, many, config.seed + number
                found = {name: turn(*ask, conditions[name](number, many), f"-{name}") for name in order}
                turns.append({name: found[name] for name in conditions})
            rows.append(summed(kind, turns[1:]))  # decoders start and files are mapped in the first
    return {"users": len(material.users), "rows": rows}


def conditions_of(users: list[str], shares: Sequence[float]) -> dict[str, Callable[[int, int], list[str | None]]]:
    """The conditions of a turn by its round and number of requests, under the name of what they are."""

    def held(share: float, anew: bool) -> Callable[[int, int], list[str | None]]:
        last = literal(users[max(1, round(share * len(users))) - 1])
        text = f"user_id <= {last}"
        other = f'{text} or user_id == "nobody'
        return lambda turn, count: [f'{other} {turn}-{row}"' for row in range(count)] if anew else [text]

    found: dict[str, Callable[[int, int], list[str | None]]] = {ALL: lambda *_: [None]}
    found |= {f"{share:.0%}": held(share, False) for share in shares}
    return found | {f"{shares[-1]:.0%}, {ANEW}": held(shares[-1], True)}


def summed(kind: str, turns: list[dict[str, Turn]]) -> dict[str, Any]:
    """Medians of the rounds of one kind under each condition, and of their ratios to all users."""
    found = {}
    for name in turns[0]:
        ratios = [one[name].ms / one[ALL].ms for one in turns]
        found[name] = {
            "ms": float(np.median([one[name].ms for one in turns])),
            "over_all": float(np.median(ratios)),
            "by_clock": float(np.median([one[name].clock_ms / one[ALL].clock_ms for one in turns])),
            "ratios": ratios,
            "errors": sum(not answer.startswith(b"20") for one in turns for answer in one[name].answers),
        }
    return {"kind": kind, "conditions": found}


def table(report: dict[str, Any]) -> str:
    """The report for people."""
    names = [name for name in report["rows"][0]["conditions"] if name != ALL]
    rows = []
    for row in report["rows"]:
        of = row["conditions"]
        cells = [
            f"{of[name]['over_all']:.2f} ({min(of[name]['ratios']):.2f} to {max(of[name]['ratios']):.2f})"
            for name in names
        ]
        errors = sum(one["errors"] for one in of.values())
        rows.append([row["kind"], f"{of[ALL]['ms']:.2f} ms", *cells, str(errors)])
    return f"{report['users']:,} users\n" + lines(["request", ALL, *names, "errors"], rows)


if __name__ == "__main__":
    command(main, ServeConditionsConfig, __doc__)
