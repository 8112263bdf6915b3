"""A standalone cluster of Spark on this machine: a master and two workers, processes of their own, on loopback.

Workers are started as on another machine, in a folder of their own and without what this process has in its
environment (`PYTHONPATH`): an executor imports what is installed, and reads what lies where it can see it.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyspark

HOME = Path(pyspark.__file__).parent
LOOPBACK = "127.0.0.1"
QUICK = "-XX:TieredStopAtLevel=1"  # these processes live for seconds
ENVIRONMENT = {name: os.environ[name] for name in ("PATH", "JAVA_HOME") if name in os.environ}
ENVIRONMENT |= {"SPARK_HOME": str(HOME), "SPARK_LOCAL_IP": LOOPBACK}
ENVIRONMENT |= {"SPARK_DAEMON_MEMORY": "128m", "SPARK_DAEMON_JAVA_OPTS": QUICK}
SESSION = {"driver.host": LOOPBACK, "executor.memory": "512m", "executor.extraJavaOptions": QUICK}
PATIENCE = 600  # seconds: Java starts slowly on a busy machine


@dataclass
class Cluster:
    """Address of a running cluster, and the processes of its workers."""

    url: str
    workers: list[subprocess.Popen[bytes]]

    def lose_a_worker(self) -> None:
        """Kill the first worker with SIGKILL; its executor ends as it finds its worker gone."""
        self.workers.pop(0).kill()


@contextmanager
def cluster(folder: Path, workers: int = 2, memory: str = "1g") -> Iterator[Cluster]:
    """A cluster of workers with one core each, until the end of the block; its logs are in `folder`."""
    with ExitStack() as stack:
        master = daemon(stack, folder / "master", "master.Master", "--webui-port", "0")
        url = said(master, "Starting Spark master at ").split()[0]
        options = ("--cores", "1", "--memory", memory, "--webui-port", "0", url)
        folders = [folder / f"worker {number}" for number in range(workers)]
        started = [daemon(stack, one, "worker.Worker", "--work-dir", str(one), *options) for one in folders]
        for one in started:
            said(one, "Successfully registered with master ")
        yield Cluster(url, [process for process, _ in started])


def daemon(stack: ExitStack, folder: Path, name: str, *options: str) -> tuple[subprocess.Popen[bytes], Path]:
    """Start a process of Spark's, which ends with the stack; and its log."""
    folder.mkdir(parents=True)
    line = [HOME / "bin/spark-class", f"org.apache.spark.deploy.{name}", "--host", LOOPBACK, "--port", "0", *options]
    log = folder / "log"
    with log.open("w") as file:
        process = subprocess.Popen(line, cwd=folder, env=ENVIRONMENT, stdout=file, stderr=file)
    stack.callback(process.wait)
    stack.callback(process.kill)
    return process, log


def said(of: tuple[subprocess.Popen[bytes], Path], words: str) -> str:
    """What follows some words in a process's log, once they are there."""
    process, log = of

    def rest() -> str:
        assert process.poll() is None, log.read_text()
        return log.read_text().partition(words)[2]

    return str(until(rest, f"{log} says: {words}"))


def until(what: Callable[[], Any], named: str) -> Any:
    """The first true value of a function, which is asked again and again."""
    end = time.monotonic() + PATIENCE
    while not (found := what()):
        assert time.monotonic() < end, f"not seen within {PATIENCE} s: {named}"
        time.sleep(0.1)
    return found
