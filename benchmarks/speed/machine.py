"""What this machine can do at most: matrix products, copies, counting at random places, reads at random places.

    OMP_NUM_THREADS=1 python -m benchmarks.speed.machine out=runs/machine.json

The limits that docs/results/roofline.md holds the other benchmarks against. The best of some turns each.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numba
import numpy as np

from benchmarks.measure import tell
from configs.load import command
from configs.options import at_least, opt


@dataclass
class MachineConfig:
    """Options of this benchmark."""

    size: int = opt(1024, "rows and columns of the matrices")
    megabytes: int = opt(256, "of the arrays that are copied and read; more than the cache holds")
    counters: int = opt(200_000, "songs that are counted at random")
    turns: int = opt(30, "of which the best counts")
    out: str | None = opt(None, "JSON file to write")


def main(config: MachineConfig) -> None:
    """Run the command (see the module's docstring)."""
    at_least(config, 1, "size", "megabytes", "counters", "turns")
    tell(config, limits(config))


def limits(config: MachineConfig) -> dict[str, float]:
    """Products in GFLOP/s (torch float32 and bfloat16, numpy float32), copies in GB/s, counts and reads in ns."""
    import torch

    rng, n = np.random.default_rng(0), config.size
    one, other = rng.standard_normal((2, n, n), dtype=np.float32)
    a, b = torch.from_numpy(one), torch.from_numpy(other)
    low_a, low_b = a.bfloat16(), b.bfloat16()
    source = rng.integers(0, 2**31, config.megabytes << 17, dtype=np.int64)
    target = np.empty_like(source)
    place = rng.integers(0, len(source), 1 << 22)
    song = rng.integers(0, config.counters, 1 << 24).astype(np.int32)
    count = np.zeros(config.counters, dtype=np.int32)
    work: dict[str, tuple[Callable[[], Any], float]] = {  # what is done, and what its seconds are divided by
        "torch_float32_gflops": (lambda: a @ b, 2e-9 * n**3),
        "torch_bfloat16_gflops": (lambda: low_a @ low_b, 2e-9 * n**3),
        "numpy_float32_gflops": (lambda: one @ other, 2e-9 * n**3),
        "copy_gb_a_second": (lambda: np.copyto(target, source), 2e-9 * source.nbytes),
        "random_read_ns": (lambda: read(source, place), 1e-9 * len(place)),
        "random_count_ns": (lambda: count_up(song, count), 1e-9 * len(song)),
    }
    found = {}
    for name, (do, of) in work.items():
        seconds = best(do, config.turns)
        found[name] = seconds / of if name.endswith("_ns") else of / seconds
    return found


def best(do: Callable[[], Any], turns: int) -> float:
    """Fewest seconds of some turns, after one that is not counted."""
    do()
    seconds = []
    for _ in range(turns):
        started = time.perf_counter()
        do()
        seconds.append(time.perf_counter() - started)
    return min(seconds)


@numba.njit(nogil=True)  # type: ignore[misc]
def read(source: Any, place: Any) -> int:
    """The sum of what stands at the places; the next read does not wait for the last."""
    total = 0
    for at in place:
        total += source[at]
    return total


@numba.njit(nogil=True)  # type: ignore[misc]
def count_up(song: Any, count: Any) -> None:
    """Count each song."""
    for one in song:
        count[one] += 1


if __name__ == "__main__":
    command(main, MachineConfig, __doc__)
