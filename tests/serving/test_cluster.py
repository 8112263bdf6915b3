"""`make serve-cluster`: two services over one PostgreSQL behind HAProxy; one is killed again and again, both get a new
model, and clients ask all the while."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from benchmarks.speed.serve_process import GRACE, ROOT, children
from benchmarks.speed.serve_together import Cluster, cluster, installed, words_of
from tests.serving.test_faults import Told, check, gone_within

PORT = 18400  # the proxy's; the services' follow
KILLS, WRITERS, PAUSE = 20, 3, 0.05
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not installed(), reason="no PostgreSQL or HAProxy (Debian: apt-get install postgresql haproxy)"),
]


@pytest.fixture
def model(service_folder: Path, tmp_path: Path) -> Path:
    """A service folder that may be replaced."""
    return Path(shutil.copytree(service_folder, tmp_path / "model"))


@pytest.fixture
def two(model: Path) -> Iterator[Cluster]:
    with cluster(model, 2, PORT, "watch_seconds=1") as running:
        yield running


class Clients:
    """Who asks all the time, and what they were answered.

    `seen` counts methods and statuses of all answers; `told` is what was sent until it was acknowledged.
    """

    def __init__(self, url: str) -> None:
        self.url, self.ended = url, threading.Event()
        self.told, self.seen, self.versions = Told(), Counter[str](), set[str]()

    def ask(self, client: httpx.Client, method: str, path: str, **sent: Any) -> Any:
        """What is answered; None where it is not as wanted."""
        try:
            answer = client.request(method, path, **sent)
        except httpx.HTTPError:
            self.seen[f"{method} without an answer"] += 1
            return None
        self.seen[f"{method} {answer.status_code}"] += 1
        return answer.json() if answer.status_code in (200, 201) else None

    def write(self, name: str) -> None:
        """Songs and plays in turn, each under one key until it is acknowledged."""
        with httpx.Client(base_url=self.url, timeout=GRACE) as client:
            for number in range(100_000):
                key = f"{name}-{number}"
                users, title = (f"listener {key}", "u00003"), f"Title {key}"
                plays = [{"user_id": user, "song_id": "s00001"} for user in users]
                self.told.sent[key] = {"plays": plays} if number % 2 else {"title": title}
                sent: dict[str, Any] = {"json": {"plays": plays}} if number % 2 else {"data": {"title": title}}
                path, answer = "/plays" if number % 2 else "/songs?budget=3", None
                while answer is None:
                    if self.ended.wait(PAUSE):
                        return
                    answer = self.ask(client, "POST", path, headers={"idempotency-key": key}, **sent)
                if number % 2:
                    self.told.plays.add(key)
                else:
                    self.told.songs[key] = answer["song_id"]

    def read(self, song: str) -> None:
        """Answers of every kind, one after another."""
        asked = [
            f"/songs/{song}/{part}" for part in ("audience?mode=union", "audience?mode=rank", "similar", "margins")
        ]
        with httpx.Client(base_url=self.url, timeout=GRACE) as client:
            while not self.ended.wait(PAUSE):
                for path in asked:
                    self.ask(client, "GET", path)
                if answer := self.ask(client, "GET", "/model"):
                    self.versions.add(answer["version"])


@contextmanager
def asking(two: Cluster) -> Iterator[Clients]:
    """Clients of the proxy until the end of the block."""
    clients = Clients(two.url())
    song = httpx.get(f"{two.url()}/songs?limit=1").json()["songs"][0]["song_id"]
    for number in (1, 2):  # the first song after a start waits for the text encoder: minutes on a busy machine
        title = f"Title first {number}"
        answer = httpx.post(f"{two.url(number)}/songs?budget=3", data={"title": title}, timeout=5 * GRACE)
        clients.told.sent[title], clients.told.songs[title] = {"title": title}, answer.json()["song_id"]
    threads = [threading.Thread(target=clients.write, args=(f"writer {number}",)) for number in range(WRITERS)]
    threads.append(threading.Thread(target=clients.read, args=(song,)))
    for thread in threads:
        thread.start()
    try:
        yield clients
    finally:
        clients.ended.set()
        for thread in threads:
            thread.join(GRACE)


def model_of(two: Cluster, number: int) -> Any:
    return httpx.get(f"{two.url(number)}/model", timeout=GRACE).json()


def check_both(two: Cluster, told: Told) -> None:
    """Both services answer from all that was acknowledged."""
    for number in (1, 2):
        end = time.monotonic() + 20
        while model_of(two, number)["behind"]["rows"]:
            assert time.monotonic() < end, "it does not follow"
            time.sleep(0.1)
        with httpx.Client(base_url=two.url(number), timeout=GRACE) as client:
            check(client, two.store, told)


@pytest.mark.timeout(1800)
def test_one_of_two_is_killed_twenty_times(two: Cluster, capsys: pytest.CaptureFixture[str]) -> None:
    """Clients ask the proxy all the while; each writes until it is told that it is kept."""
    rng, pid, command = random.Random(3), two.pid(1), [sys.executable, *words_of(two.pid(1))[1:-1]]
    with ExitStack() as stack, asking(two) as clients:
        log = stack.enter_context((two.folder / "again.log").open("w"))
        for _ in range(KILLS):
            time.sleep(rng.uniform(1.5, 3))  # the proxy sees in half a second that it is there
            decoders = children(pid)
            os.kill(pid, signal.SIGKILL)
            gone_within(5, decoders)
            again = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)
            stack.callback(again.wait, GRACE)
            stack.callback(again.kill)
            pid = again.pid
            two.wait_for(1)
            assert again.poll() is None, "another one answers"
        before = Counter(clients.seen)
        time.sleep(2)
        clients.ended.set()
        check_both(two, clients.told)
    assert clients.seen["POST 201"] > before["POST 201"], "it works to the end"
    failed = {what: times for what, times in clients.seen.items() if what not in ("GET 200", "POST 200", "POST 201")}
    with capsys.disabled():
        print(f"\n{KILLS} kills of one of two: {dict(clients.seen)}")
    assert len(clients.told.songs) > KILLS and len(clients.told.plays) > KILLS
    assert not any(what.startswith("GET") for what in failed), "who reads is answered by the other"
    assert sum(failed.values()) <= KILLS * WRITERS, "at most what was in flight"


@pytest.mark.timeout(900)
def test_a_new_model_is_taken_by_both_without_a_failed_request(two: Cluster, model: Path, trained: Path) -> None:
    old = model_of(two, 1)["version"]
    made_of = [f"{name}={trained / name}" for name in ("index", "boundary", "rank")]
    with asking(two) as clients:
        time.sleep(2)
        command = [sys.executable, "-m", "pipeline.service", *made_of, f"out={model}", "labels=[calm,party]"]
        subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        end = time.monotonic() + 120
        while any(model_of(two, number)["version"] == old for number in (1, 2)):
            assert time.monotonic() < end, [model_of(two, number)["reload_error"] for number in (1, 2)]
            time.sleep(0.2)
        time.sleep(2)
    told = [model_of(two, number) for number in (1, 2)]
    assert told[0]["version"] == told[1]["version"] != old and told[0]["labels"] == told[1]["labels"] == [
        "calm",
        "party",
    ]
    assert clients.versions == {old, told[0]["version"]}, "both models were asked"
    assert clients.seen.keys() == {"GET 200", "POST 200", "POST 201"} and clients.seen.total() > 100, clients.seen
    check_both(two, clients.told)
