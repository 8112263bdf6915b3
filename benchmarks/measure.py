"""How long a block took, how much memory a process has, and the report that says so."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from artifacts.folders import write_text


def tell(report: dict[str, Any], out: str | None) -> None:
    """Print the report, and write it if asked."""
    text = json.dumps(report, indent=2)
    if out:
        Path(out).parent.mkdir(parents=True, exist_ok=True)
        write_text(Path(out), text + "\n")
    print(text)


@contextmanager
def timed(seconds: dict[str, float], name: str) -> Iterator[None]:
    """Write down how long the block took."""
    started = time.perf_counter()
    yield
    seconds[name] = time.perf_counter() - started


def memory(name: str, process: int | str = "self") -> int | None:
    """A line of a process's memory account, MB: VmRSS now, VmHWM at most so far; None outside Linux."""
    path = Path(f"/proc/{process}/status")
    lines = path.read_text().splitlines() if path.exists() else []
    return next((int(line.split()[1]) // 1024 for line in lines if line.startswith(name)), None)


def forget_peak() -> None:
    """The making of the world is not what is measured: let VmHWM start anew, where the kernel allows it."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        print("the peak memory below counts the making of the world too")
