"""The real service in a process of its own, for benchmarks and tests, and what the kernel says of it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from artifacts.remote import is_remote
from benchmarks.measure import memory
from configs.errors import UserError
from serving.database import is_url

ROOT = Path(__file__).parents[2]
GRACE = 60  # seconds


@dataclass
class Running:
    """A running service; `start_seconds` until it listened."""

    url: str
    token: str | None
    process: subprocess.Popen[str]
    start_seconds: float

    @property
    def headers(self) -> dict[str, str]:
        """Those that bear the token."""
        return {"authorization": f"Bearer {self.token}"} if self.token else {}

    def client(self, **options: Any) -> httpx.Client:
        """A client that bears the token."""
        return httpx.Client(base_url=self.url, headers=self.headers, timeout=GRACE, **options)

    def get(self, path: str) -> httpx.Response:
        """One answer."""
        return httpx.get(self.url + path, headers=self.headers, timeout=GRACE)

    def account(self) -> dict[str, float]:
        """MB in memory, and of it what is the process's own (not mapped files); seconds of CPU, decoders' too."""
        pid = self.process.pid
        cpu = sum(cpu_seconds(one) for one in (pid, *children(pid)))
        return {"rss_mb": memory("VmRSS", pid), "own_mb": memory("RssAnon", pid), "cpu_seconds": cpu}


@contextmanager
def serving(
    model: Path | str,
    store: Path | str,
    *options: str,
    token: str | None = None,
    log: Path | None = None,
    root: Path = ROOT,
) -> Iterator[Running]:
    """`python -m serving` on a free port, ended by SIGTERM unless it has ended; what it says is in `log`, or STORE.log.

    The code is that of the checkout `root`.

    Raises:
        UserError: it does not start.
    """
    place = store if is_url(store) else Path(store).resolve()
    folder = model if is_remote(str(model)) else Path(model).resolve()
    arguments = [f"model={folder}", f"store={place}", "port=0", "threads=1", *options]
    environment = {**os.environ, "FIRSTPLAY_TOKEN": token or ""}
    began = time.perf_counter()
    with (log or Path(f"{place}.log")).open("a") as log_file:
        process = subprocess.Popen(
            [sys.executable, "-m", "serving", *arguments],
            cwd=root, env=environment, stdout=subprocess.PIPE, stderr=log_file, text=True,
        )  # fmt: skip
    assert process.stdout is not None
    try:
        found = next((at for line in process.stdout if (at := re.search(r"serving (http://\S+)", line))), None)
        if found is None:
            raise UserError(f"the service does not start: {Path(log_file.name).read_text()[-500:].strip()}")
        yield Running(found[1], token, process, time.perf_counter() - began)
    finally:
        process.terminate()
        process.wait(GRACE)
        process.stdout.close()


def children(pid: int) -> list[int]:
    """Processes that a process has started."""
    return [int(one) for path in Path(f"/proc/{pid}/task").glob("*/children") for one in path.read_text().split()]


def cpu_seconds(pid: int, ended: bool = False) -> float:
    """That a process has used, in itself and in the kernel; 0 once it is gone, and outside Linux.

    With `ended` also what its children used that have ended.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return sum(map(int, fields[11 : 15 if ended else 13])) / os.sysconf("SC_CLK_TCK")


def cpu_clock(pid: int) -> float:
    """Seconds of CPU that a process has used, to the nanosecond; Linux alone has such a clock of other processes."""
    return time.clock_gettime((~pid << 3) | 2)  # as clock_getcpuclockid(3) makes it
