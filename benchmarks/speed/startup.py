"""How soon commands answer: `--help`, an option that does not exist, a folder that is not there; and the service.

    python -m benchmarks.speed.startup out=runs/startup.json
    python -m benchmarks.speed.startup model=runs/demo/service out=runs/startup.json

Medians, in seconds, of processes begun one after another, in turns; beside an empty Python and one that imports torch.
With model= also how long `python -m serving` takes until it listens.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.measure import tell
from configs.load import command
from configs.options import SERVICE, at_least, opt

ROOT = Path(__file__).parents[2]
COMMANDS = {  # each with input that is not there
    "train.py text": "corpus=nowhere.jsonl out=never",
    "train.py clip": "data=nowhere out=never",
    "train.py i2i": "data=nowhere out=never",
    "train.py boundary": "data=nowhere out=never",
    "train.py rank": "data=nowhere i2i=nowhere out=never",
    "-m pipeline.world": "",  # reads nothing
    "-m pipeline.prepare": "source=nowhere out=never",
    "-m pipeline.embed": "data=nowhere out=never",
    "-m pipeline.zeroshot": "features=nowhere data=nowhere labels=[rock] out=never",
    "-m pipeline.probe": "data=nowhere",
    "-m pipeline.index": "run=nowhere out=never",
    "-m pipeline.margins": "run=nowhere out=never",
    "-m pipeline.audience": "index=nowhere out=never",
    "-m pipeline.waves": "audience=nowhere data=nowhere exposures=1 out=never",
    "-m pipeline.evaluate": "data=nowhere index=nowhere out=never",
    "-m pipeline.export": "run=nowhere out=never",
    "-m pipeline.service": "index=nowhere out=never",
    "-m pipeline.search": "model=nowhere queries=nowhere out=never",
    "-m serving": "model=nowhere store=never",
    "-m serving.feedback": "store=nowhere out=never",
}
PLAIN = {"python": ["-c", "pass"], "python, torch": ["-c", "import torch"]}


@dataclass
class StartupConfig:
    """Options of this benchmark."""

    rounds: int = opt(5, "processes of each kind, of which the median counts")
    model: str | None = opt(None, "service folder: the service is started too", SERVICE)
    out: str | None = opt(None, "JSON file to write")


def main(config: StartupConfig) -> None:
    """Run the command (see the module's docstring)."""
    at_least(config, 1, "rounds")
    processes = PLAIN | dict(questions())
    measured: dict[str, Callable[[], float]] = {name: partial(ended, argv) for name, argv in processes.items()}
    with TemporaryDirectory() as folder:
        if config.model:
            measured["service"] = partial(ready, Path(config.model), Path(folder) / "store")
        rounds = [{name: once() for name, once in measured.items()} for _ in range(config.rounds)]
    seconds = {name: statistics.median(one[name] for one in rounds) for name in measured}
    for name, value in seconds.items():
        print(f"{value:7.2f} s  {name}")
    tell(config, {"seconds": seconds})


def questions() -> list[tuple[str, list[str]]]:
    """Every command with `--help`, with an option that does not exist, and with input that is not there."""
    asked = [(name, given) for name, missing in COMMANDS.items() for given in ("--help", "nosuch=1", missing) if given]
    return [(f"{name} {given}", f"{name} {given}".split()) for name, given in asked]


def ended(argv: list[str]) -> float:
    """Seconds until a Python process ends."""
    began = time.perf_counter()
    subprocess.run([sys.executable, *argv], cwd=ROOT, capture_output=True)
    return time.perf_counter() - began


def ready(model: Path, store: Path) -> float:
    """Seconds until the service listens."""
    from benchmarks.speed.serve_process import serving

    with serving(model, store) as running:
        running.get("/readyz").raise_for_status()
        return running.start_seconds


if __name__ == "__main__":
    command(main, StartupConfig, __doc__)
