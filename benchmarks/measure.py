"""How long a block took, how much memory a process has, and the report that says so."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from artifacts import folders
from configs.load import as_dict


def tell(config: Any, report: dict[str, Any]) -> None:
    """Print the report below the options, figures to four digits, and write it to the option `out` if that is given."""
    about = {"options": as_dict(config), "cpus": os.cpu_count(), "threads": os.environ.get("OMP_NUM_THREADS", "all")}
    shown = json.loads(json.dumps(about | report), parse_float=lambda text: float(f"{float(text):.4g}"))
    print(json.dumps(shown, indent=2))
    if config.out:
        write_json(config.out, shown)


def write_json(path: str | Path, value: Any) -> None:
    """Write a JSON file, and the folder that it is in."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    folders.write_json(Path(path), value)


def read_json(path: Path) -> Any:
    """What a JSON file says; None where there is none."""
    return json.loads(path.read_text("utf-8")) if path.exists() else None


@contextmanager
def timed(seconds: dict[str, float], name: str) -> Iterator[None]:
    """Write down how long the block took."""
    started = time.perf_counter()
    yield
    seconds[name] = time.perf_counter() - started


def memory(name: str, process: int | str = "self") -> int:
    """A line of a process's memory account, MB: VmRSS now, VmHWM at most so far; 0 outside Linux."""
    path = Path(f"/proc/{process}/status")
    lines = path.read_text().splitlines() if path.exists() else []
    return next((int(line.split()[1]) // 1024 for line in lines if line.startswith(name)), 0)


def forget_peak() -> None:
    """The making of the world is not what is measured: let VmHWM start anew, where the kernel allows it."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        print("the peak memory below counts the making of the world too")


def half_interval(values: Any) -> float:
    """Half of the 95 % interval of a mean of two values or more (Student's t)."""
    from scipy import stats  # a second, for those who need it

    return float(stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / math.sqrt(len(values)))
