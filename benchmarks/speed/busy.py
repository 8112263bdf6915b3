"""What waiting threads cost a training: steps a second on idle cores, and beside processes that want the same cores.

    python -m benchmarks.speed.busy out=runs/busy.json

A small multilayer perceptron is trained in processes of its own, in turns: with OpenMP as it comes, with the wait
policy that FirstPlay's commands set (`configs.load.share_cores`), and with one thread. Written: medians of the rounds.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import numpy as np
from tqdm import tqdm

from benchmarks.measure import tell
from configs.load import command
from configs.options import above, opt

POLICIES: dict[str, dict[str, str]] = {"default": {}, "ours": {"ours": "1"}, "one thread": {"OMP_NUM_THREADS": "1"}}
TRAINING = """
import os, sys, time
from configs.load import share_cores
if os.environ.pop("ours", ""):
    share_cores()
import torch
width, rows, seconds = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
layers = [layer for _ in range(4) for layer in (torch.nn.Linear(width, width), torch.nn.GELU())]
model, x, steps = torch.nn.Sequential(*layers), torch.randn(rows, width), -3
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
started = time.perf_counter()
while steps <= 0 or time.perf_counter() < started + seconds:
    if steps == 0:
        started = time.perf_counter()  # the first three are not timed
    optimizer.zero_grad()
    (model(x) - x).square().mean().backward()
    optimizer.step()
    steps += 1
print(steps / (time.perf_counter() - started))
"""


@dataclass
class BusyConfig:
    """Options of this benchmark."""

    rounds: int = opt(5, "rounds, in each of which every policy has its turn, idle and busy")
    seconds: float = opt(5.0, "length of a turn")
    neighbours: int = opt(os.cpu_count() or 1, "processes that want the same cores")
    width: int = opt(512, "width of the perceptron's four layers")
    rows: int = opt(512, "rows of a batch")
    out: str | None = opt(None, "JSON file to write")


def main(config: BusyConfig) -> None:
    """Run the command (see the module's docstring)."""
    above(config, 0, "rounds", "neighbours", "width", "rows", "seconds")
    found: dict[str, dict[str, list[float]]] = {"idle": {}, "busy": {}}
    for _ in tqdm(range(config.rounds), "busy"):
        for state, turns in found.items():
            with spinning(config.neighbours if state == "busy" else 0):
                for name in POLICIES:
                    turns.setdefault(name, []).append(steps_a_second(name, config))
    medians = {state: {name: float(np.median(one)) for name, one in turns.items()} for state, turns in found.items()}
    tell(config, {"steps_a_second": medians, "rounds": found})


def steps_a_second(policy: str, config: BusyConfig) -> float:
    """One turn of a policy, in a process without the environment's settings of how threads wait."""
    given = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_", "KMP_"))}
    argv = [sys.executable, "-c", TRAINING, str(config.width), str(config.rows), str(config.seconds)]
    return float(subprocess.run(argv, env=given | POLICIES[policy], check=True, capture_output=True, text=True).stdout)


@contextmanager
def spinning(processes: int) -> Iterator[None]:
    """So many processes that compute for as long as the block lasts."""
    with ExitStack() as stack:
        for _ in range(processes):
            one = stack.enter_context(subprocess.Popen([sys.executable, "-c", "while True: pass"]))
            stack.callback(one.kill)
        yield


if __name__ == "__main__":
    command(main, BusyConfig, __doc__)
