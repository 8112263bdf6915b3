"""A Milvus server of the tests' own: the one of PyPI's package `milvus`, with etcd within, in a temporary folder.

It is of version 2.3.5, the newest that a package registry has. Its ports are asked on 127.0.0.1; it has no option to
listen there alone.
"""

from __future__ import annotations

import fcntl
import os
import socket
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

PARTS = ("rootCoord", "proxy", "queryCoord", "queryNode", "indexNode", "dataCoord", "dataNode")
OPTIONS = {f"{part}.ip": "127.0.0.1" for part in PARTS} | {
    "common.session.ttl": 10,  # seconds that a killed server's successor waits for
    "dataCoord.segment.assignmentExpiration": 200,  # milliseconds that a flush waits for
    "log.level": "warn",
}

# a server takes five seconds to make a collection, most of them waiting: most tests of it are slow ones, those marked
# ON_BOTH are not
SLOW = pytest.param("server", marks=pytest.mark.slow)
ON_BOTH = pytest.mark.parametrize("milvus", ["lite", "server"], indirect=True)


class Server:
    """A running server; `folder` holds its data."""

    def __init__(self, folder: Path) -> None:
        import milvus

        unpacked = Path(milvus.__file__).parent / "unpacked"
        with by_one_process(unpacked):
            milvus._initialize_data_files(unpacked)  # what is there already stays
        names = [name for name in milvus.MilvusServerConfig().configurable_items if name.endswith("_port")]
        *ports, self.health, clients, peers = free_ports(len(names) + 3)
        config = milvus.MilvusServerConfig(data_dir=str(folder), **dict(zip(names, ports, strict=True)))
        for name, value in OPTIONS.items():
            config.set(name, value)
        config.resolve()
        self.folder, self.programs, self.uri = folder, unpacked / "bin", f"http://127.0.0.1:{config.get('proxy_port')}"
        at = {"client": f"http://127.0.0.1:{clients}", "peer": f"http://127.0.0.1:{peers}"}
        etcd = {"name": "one", "initial-cluster": f"one={at['peer']}", "initial-advertise-peer-urls": at["peer"]}
        etcd |= {f"listen-{who}-urls": url for who, url in at.items()} | {"advertise-client-urls": at["client"]}
        (folder / "etcd.yaml").write_text("".join(f"{name}: {value}\n" for name, value in etcd.items()))
        self.made = 0
        self.start()

    def start(self, seconds: float = 120) -> None:
        """Start it, and wait until it answers."""
        environment = os.environ | {
            "DEPLOY_MODE": "STANDALONE", "METRICS_PORT": str(self.health), "LD_LIBRARY_PATH": str(self.programs),
            "MILVUS_RUN_DIR": str(self.folder / "run"), "ETCD_CONFIG_PATH": str(self.folder / "etcd.yaml"),
        }  # fmt: skip
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [self.programs / "milvus", "run", "standalone"], cwd=self.folder, env=environment,
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
        end = time.monotonic() + seconds
        while not self.well():
            if self.process.poll() is not None or time.monotonic() > end:
                self.kill()
                raise RuntimeError((self.folder / "log").read_text()[-2000:])
            time.sleep(0.2)

    def well(self) -> bool:
        """Whether all of its parts answer."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.health}/healthz", timeout=10) as answer:
                return bool(answer.read() == b"OK")
        except OSError:
            return False

    def kill(self) -> None:
        """End it as a power loss does."""
        self.process.kill()
        self.process.wait()

    def place(self) -> str:
        """The `uri=` of a new database."""
        from pymilvus import MilvusClient

        self.made += 1
        client = MilvusClient(self.uri)
        client.create_database(f"test_{self.made}")
        client.close()
        return f"{self.uri}/test_{self.made}"


@contextmanager
def running() -> Iterator[Server]:
    """A server until the end of the block; else the test is skipped."""
    if find_spec("milvus") is None:
        pytest.skip("no Milvus server: pip install --no-deps milvus==2.3.5")
    with tempfile.TemporaryDirectory() as folder:
        server = Server(Path(folder))
        try:
            yield server
        finally:
            server.kill()


@contextmanager
def by_one_process(folder: Path) -> Iterator[None]:
    """Let one process at a time into a folder, which is made if it is not there."""
    folder.mkdir(exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def free_ports(n: int) -> list[int]:
    """Numbers of ports that nobody listens at."""
    with ExitStack() as open_ones:
        found: list[Any] = [open_ones.enter_context(socket.socket()) for _ in range(n)]
        for one in found:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in found]
