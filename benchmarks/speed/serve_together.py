"""`make serve-cluster`'s services, PostgreSQL and HAProxy in processes of their own, for benchmarks and tests."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from benchmarks.speed.serve_process import GRACE, ROOT, children, cpu_seconds
from configs.errors import UserError

START = 300.0  # seconds until all answer, on a busy machine


@dataclass
class Cluster:
    """Services behind a proxy. `folder` holds the database and the logs, `port` is the proxy's; the services' follow.

    `command` of `pids` is `configs/cluster/serve.sh`, whose children they are.
    """

    folder: Path
    port: int
    services: int
    command: subprocess.Popen[bytes]

    def url(self, number: int = 0) -> str:
        """Where a service listens, from 1; 0: where the proxy does."""
        return f"http://127.0.0.1:{self.port + number}"

    @property
    def store(self) -> str:
        """The `store=` of the services."""
        return f"postgresql://firstplay@/postgres?host={self.folder}/postgres"

    def pid(self, number: int) -> int:
        """The process of a service that `command` has started; of the proxy for 0.

        Raises:
            UserError: it has ended.
        """
        word = f"port={self.port + number}" if number else str(self.folder / "haproxy.cfg")
        found = [pid for pid in children(self.command.pid) if word in words_of(pid)]
        if not found:
            raise UserError(f"nothing with {word} is running: its log is in {self.folder}")
        return found[0]

    def cpu_seconds(self) -> dict[str, float]:
        """That services with their decoders, the database and the proxy have used so far."""
        database = int((self.folder / "postgres" / "data" / "postmaster.pid").read_text().split()[0])
        services = [self.pid(number + 1) for number in range(self.services)]
        pids = {
            "services": [one for pid in services for one in (pid, *children(pid))],
            "database": [database, *children(database)],
            "proxy": [self.pid(0)],
        }
        return {name: sum(map(cpu_seconds, of)) for name, of in pids.items()}

    def wait_for(self, number: int) -> None:
        """Wait until a service, or the proxy, answers.

        Raises:
            UserError: it does not.
        """
        end = time.monotonic() + START
        while self.command.poll() is None and time.monotonic() < end:
            try:
                if httpx.get(f"{self.url(number)}/readyz", timeout=5).status_code == 200:
                    return
            except httpx.HTTPError:
                pass
            time.sleep(0.3)
        logs = "\n".join(path.read_text()[-300:] for path in sorted(self.folder.glob("*.log")))
        raise UserError(f"nobody answers at {self.url(number)}: {logs.strip()}")


@contextmanager
def cluster(model: Path, services: int, port: int, *options: str, token: str | None = None) -> Iterator[Cluster]:
    """`configs/cluster/serve.sh` with its database in a temporary folder, ended by SIGTERM.

    Raises:
        UserError: it does not start, or HAProxy or PostgreSQL is not installed.
    """
    with tempfile.TemporaryDirectory() as made:  # PostgreSQL's user must be able to enter it
        folder = Path(made).resolve()
        folder.chmod(0o755)
        script = [str(ROOT / "configs/cluster/serve.sh"), str(model.resolve()), str(folder), str(services), str(port)]
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}:/usr/sbin"
        environment = os.environ | {"PATH": path, "FIRSTPLAY_TOKEN": token or ""}
        process = subprocess.Popen(
            ["sh", *script, "threads=1", *options], cwd=ROOT, env=environment, stdout=subprocess.DEVNULL
        )
        try:
            running = Cluster(folder, port, services, process)
            for number in (*range(1, services + 1), 0):
                running.wait_for(number)
            yield running
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(GRACE)


def installed() -> bool:
    """Whether HAProxy and PostgreSQL's server are."""
    proxy = shutil.which("haproxy", path=f"{os.environ['PATH']}:/usr/sbin")
    return proxy is not None and any(Path("/usr/lib/postgresql").glob("*/bin/initdb"))


def words_of(pid: int) -> list[str]:
    """The command line of a process; nothing once it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return []
