"""`make serve-cluster`: two services over one PostgreSQL behind HAProxy; one is killed under load."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.serving.postgres_server import program

ROOT = Path(__file__).parents[2]
PORT = 18400  # the proxy's; the services' follow
START = 300.0  # seconds until all answer, on a busy machine
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("haproxy") is None, reason="no HAProxy (Debian: apt-get install haproxy)"),
]


def at(port: int) -> str:
    return f"http://127.0.0.1:{port}"


@pytest.fixture
def cluster(service_folder: Path) -> Iterator[Path]:
    """The folder of its logs."""
    program("initdb")
    with tempfile.TemporaryDirectory() as folder:  # not pytest's, which PostgreSQL's user cannot enter
        Path(folder).chmod(0o755)
        command = [
            "sh",
            str(ROOT / "configs/cluster/serve.sh"),
            str(service_folder),
            folder,
            "2",
            str(PORT),
            "threads=1",
        ]
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}:/usr/sbin"
        process = subprocess.Popen(command, cwd=ROOT, env=os.environ | {"PATH": path})
        try:
            for port in (PORT + 1, PORT + 2, PORT):
                wait_for(port, process)
            yield Path(folder)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)


def wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + START
    while process.poll() is None and time.monotonic() < end:
        try:
            if httpx.get(f"{at(port)}/readyz", timeout=5).status_code == 200:
                return
        except httpx.HTTPError:
            pass
        time.sleep(0.3)
    raise AssertionError(f"nobody answers at port {port}")


def post(client: httpx.Client, song: str) -> None:
    """Send a song until it is accepted, as a client does that has a key."""
    for _ in range(100):
        try:
            sent = {"data": {"title": song, "song_id": song}, "headers": {"idempotency-key": song}}
            if client.post(f"{at(PORT)}/songs?budget=1", **sent).status_code == 201:
                return
        except httpx.HTTPError:
            pass
        time.sleep(0.1)
    raise AssertionError(f"{song} was never accepted")


@pytest.mark.timeout(900)
def test_a_service_that_is_killed_loses_nothing_and_the_other_answers(cluster: Path) -> None:
    songs = [f"song-{number}" for number in range(40)]
    with httpx.Client(timeout=60) as client:
        post(client, "first")
        user = client.get(f"{at(PORT)}/users?limit=1").json()["users"][0]["user_id"]
        told = client.post(f"{at(PORT + 1)}/plays", json={"plays": [{"user_id": user, "song_id": "first"}]})
        assert told.json()["accepted"] == 1
        end = time.monotonic() + 5
        while client.get(f"{at(PORT + 2)}/songs/first").json()["plays"] != 1:
            assert time.monotonic() < end, "a play that one was told does not count in the other"

        threads = [threading.Thread(target=lambda part=part: [post(client, one) for one in part]) for part in
                   (songs[0::4], songs[1::4], songs[2::4], songs[3::4])]  # fmt: skip
        for thread in threads:
            thread.start()
        time.sleep(1)
        killed = subprocess.run(["pkill", "-9", "-f", f"port={PORT + 1}( |$)"], check=False)
        assert killed.returncode == 0
        for thread in threads:
            thread.join()
        assert client.get(f"{at(PORT + 2)}/model").json()["accepted_songs"] == 1 + len(songs)
        assert all(client.get(f"{at(PORT)}/songs/{one}").status_code == 200 for one in songs)
