"""The real service when things break: killed at work, without room, without its model, asked to end while it works."""

from __future__ import annotations

import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from benchmarks.speed.serve_process import ROOT, Running, children, serving
from configs.errors import UserError
from serving.database import reading
from serving.engine import Engine
from serving.store import Store
from tests.serving.conftest import TOKEN
from tests.serving.postgres_server import Server
from tests.serving.test_decoding import encoded, noise

CLIENTS, KILLS = 4, 2


# ------------------------------------------------------------------------------------------------------------ kill -9


@dataclass
class Told:
    """What clients sent, by its key, and what the service answered."""

    sent: dict[str, dict[str, Any]] = field(default_factory=dict)  # songs and plays, acknowledged or not
    songs: dict[str, str] = field(default_factory=dict)  # acknowledged: id by key
    plays: set[str] = field(default_factory=set)  # acknowledged
    deleting: set[str] = field(default_factory=set)  # keys of songs
    deleted: set[str] = field(default_factory=set)  # acknowledged


def send(client: httpx.Client, told: Told, key: str) -> None:
    """Send what belongs to a key, and note the answer."""
    headers, given = {"idempotency-key": key}, told.sent[key]
    if "plays" in given:
        answer = client.post("/plays", json=given, headers=headers)
        assert answer.status_code == 200 and answer.json()["accepted"] == 2, answer.text
        told.plays.add(key)
        return
    files = {"audio": encoded(noise(1, seed=given["seed"]))} if given["seed"] % 3 == 0 else None
    answer = client.post("/songs", data={"title": given["title"]}, files=files, headers=headers, params={"budget": 3})
    assert answer.status_code == 201, answer.text
    told.songs[key] = answer.json()["song_id"]


def work(url: str, told: Told, name: str, failed: list[str], most: int = 100_000) -> None:
    """Songs, plays and deletions, one after another, until the service is gone."""
    rng, mine = random.Random(name), []
    with httpx.Client(base_url=url, timeout=60) as client:
        try:
            for number in range(most):
                key = f"{name}-{number}"
                if number % 3 == 1:
                    users = (f"listener {key}", "u00003")  # one of them known to the model
                    told.sent[key] = {"plays": [{"user_id": user, "song_id": "s00001"} for user in users]}
                elif number % 12 == 11 and mine:
                    gone = mine.pop(rng.randrange(len(mine)))
                    told.deleting.add(gone)
                    assert client.delete(f"/songs/{told.songs[gone]}").status_code == 204
                    told.deleted.add(gone)
                    continue
                else:
                    told.sent[key] = {"title": f"Title {key}", "seed": rng.randrange(1000)}
                    mine.append(key)
                send(client, told, key)
        except httpx.HTTPError:
            return
        except AssertionError as error:
            failed.append(str(error))


def check(client: httpx.Client, store: Path | str, told: Told) -> None:
    """What was acknowledged is there once; nothing is there twice."""
    listed: list[dict[str, Any]] = []
    asked: dict[str, Any] = {"query": "title ", "limit": 1000}
    while page := client.get("/songs", params=asked | {"offset": len(listed)}).json()["songs"]:
        listed += page
    titles = Counter(one["title"] for one in listed)
    ids = {one["title"]: one["song_id"] for one in listed}
    assert max(titles.values(), default=1) == 1 and client.get("/model").json()["accepted_songs"] == len(listed)
    assert set(ids) <= {given.get("title") for given in told.sent.values()}
    for key, song_id in told.songs.items():
        if key in told.deleted:
            assert told.sent[key]["title"] not in ids, "a deletion that was acknowledged is undone"
        elif key not in told.deleting:
            assert ids.get(told.sent[key]["title"]) == song_id, "an acknowledged song is lost"
    with reading(store) as connection:
        rows = connection.execute("SELECT user_id, count(*) FROM plays GROUP BY user_id").fetchall()
    counts = dict(rows)
    known = counts.pop("u00003", 0)
    assert set(counts.values()) <= {1} and known == len(counts), "plays of a request are there together, once"
    assert {f"listener {key}" for key in told.plays} <= set(counts), "an acknowledged play is lost"
    for song_id in list(ids.values())[:2]:
        assert client.get(f"/songs/{song_id}/audience", params={"mode": "boundary"}).status_code == 200
    assert client.get("/users/u00003/recommendations").status_code == 200


@contextmanager
def killed_at_work(killed: Running, shares: list[tuple[Running, str, int]], told: Told) -> Iterator[None]:
    """Clients work until a service is killed at the end of the block; who asks another one ends with their share.

    `shares` are services, names of clients, and how much each sends at most.
    """
    failed: list[str] = []
    threads = [threading.Thread(target=work, args=(one.url, told, name, failed, most)) for one, name, most in shares]
    for thread in threads:
        thread.start()
    yield
    decoders = children(killed.process.pid)
    killed.process.kill()
    for thread in threads:
        thread.join(120)
    gone_within(5, decoders)
    assert not failed, failed


def kill_at_work(model: Path, store: str, times: int, seed: int, log: Path) -> list[float]:
    """Kill the service so often while clients work, and check what is there each time; seconds of the restarts."""
    rng, told, restarts = random.Random(seed), Told(), list[float]()
    for run in range(times + 1):
        began = time.perf_counter()
        with serving(model, store, log=log) as running, running.client() as client:
            restarts.append(time.perf_counter() - began)
            check(client, store, told)
            for key in sorted(told.sent.keys() - told.songs.keys() - told.plays):
                send(client, told, key)  # what was not acknowledged is sent again
            check(client, store, told)
            if run == times:
                break
            shares = [(running, f"{run}-{number}", 100_000) for number in range(CLIENTS)]
            with killed_at_work(running, shares, told):
                time.sleep(rng.uniform(0.1, 1.5))
                end = time.monotonic() + 60
                while run + 1 == times and (len(told.songs) <= 2 * times or len(told.plays) <= times):
                    assert time.monotonic() < end  # a slow machine
                    time.sleep(0.01)
    assert len(told.songs) > 2 * times and len(told.plays) > times, "it was killed at work"
    assert told.deleted or times < 20
    return restarts[1:]


def gone_within(seconds: float, pids: list[int]) -> None:
    """Processes end; nobody is left to wait for them, so that the kernel does."""
    end = time.monotonic() + seconds
    while any(Path(f"/proc/{pid}").exists() for pid in pids):
        assert time.monotonic() < end, "decoders outlive their service"
        time.sleep(0.05)


def test_kill_9_under_load(service_folder: Path, place: str, tmp_path: Path) -> None:
    kill_at_work(service_folder, place, KILLS, seed=0, log=tmp_path / "log")


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_kill_9_twenty_times(
    service_folder: Path, place: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    seconds = kill_at_work(service_folder, place, 20, seed=1, log=tmp_path / "log")
    with capsys.disabled():
        print(f"\n20 kills: a restart took {np.median(seconds):.1f} s (median), {max(seconds):.1f} s at most")


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_kill_9_of_one_of_two(service_folder: Path, postgres: Server, tmp_path: Path) -> None:
    """Both work on one store; what the one that is killed has acknowledged is in the other's answers, once."""
    url, rng, told = postgres.place(), random.Random(2), Told()
    with serving(service_folder, url, log=tmp_path / "log") as kept, kept.client() as client:
        for run in range(6):
            with serving(service_folder, url, log=tmp_path / "log 2") as killed:
                shares = [(killed, f"{run}-killed-{at}", 100_000) for at in range(2)]
                shares += [(kept, f"{run}-kept-{at}", 12) for at in range(2)]
                with killed_at_work(killed, shares, told):
                    time.sleep(rng.uniform(0.5, 3))
            end = time.monotonic() + 1
            while client.get("/model").json()["behind"]["rows"]:
                assert time.monotonic() < end, "the other does not follow"
            check(client, url, told)
            for key in sorted(told.sent.keys() - told.songs.keys() - told.plays):
                send(client, told, key)
            check(client, url, told)
    assert len(told.songs) > 50 and len(told.plays) > 20 and told.deleted, "it was killed at work"


# ------------------------------------------------------------------------------------------------------------ no room


def small_disk(folder: Path, size: str = "4m") -> bool:
    """Make a folder a disk of so many megabytes, where that is allowed."""
    folder.mkdir()
    if os.geteuid() or shutil.which("mount") is None:
        return False
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], capture_output=True)
    return made.returncode == 0


def test_a_full_disk_while_serving(service_folder: Path, tmp_path: Path) -> None:
    """Writes are refused in a sentence, all else goes on; when there is room again, writes do too."""
    store = tmp_path / "disk"
    with ExitStack() as stack:
        disk = small_disk(store)
        if disk:
            stack.callback(subprocess.run, ["umount", store], check=True)
            (store / "ballast").write_bytes(bytes(1_000_000))
        running = stack.enter_context(serving(service_folder, store, token=TOKEN))
        client = stack.enter_context(running.client())
        if not disk:
            resource.prlimit(running.process.pid, resource.RLIMIT_FSIZE, (2_000_000, resource.RLIM_INFINITY))
        made = fill(client)
        if disk:
            (store / "ballast").unlink()
        else:
            resource.prlimit(running.process.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
        room_again(running, client, store, made)


def test_a_full_disk_of_the_server(service_folder: Path, postgres: Server, tmp_path: Path) -> None:
    """The same in PostgreSQL: the disk of its tables is full, that of its log is not (which would stop the server)."""
    with ExitStack() as stack:
        disk = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "disk"
        disk.parent.chmod(0o755)
        if not small_disk(disk, "32m"):
            pytest.skip("nobody may mount a small disk here")
        stack.callback(subprocess.run, ["umount", disk], check=True)
        (disk / "tables").mkdir()
        if postgres.user:
            shutil.chown(disk / "tables", postgres.user)
        admin = stack.enter_context(postgres.connect())
        admin.execute(f"CREATE TABLESPACE small LOCATION '{disk / 'tables'}'".encode())
        stack.callback(admin.execute, "DROP TABLESPACE small")
        url = postgres.database("TABLESPACE small")
        stack.callback(admin.execute, f"DROP DATABASE {url.rpartition('/')[2]} WITH (FORCE)".encode())
        running = stack.enter_context(serving(service_folder, url, log=tmp_path / "log", token=TOKEN))
        client = stack.enter_context(running.client())
        (disk / "ballast").write_bytes(bytes(shutil.disk_usage(disk).free - 3_000_000))
        made = fill(client)
        (disk / "ballast").unlink()
        room_again(running, client, url, made)
        assert "make room on the server's disk" in (tmp_path / "log").read_text()


def fill(client: httpx.Client) -> list[str]:
    """Send songs until one is refused; their ids. All that needs no room goes on."""
    made = []
    for number in range(100):
        answer = client.post("/songs", data={"title": str(number)}, files={"audio": encoded(noise(5, seed=number))})
        if answer.status_code != 201:
            break
        made.append(answer.json()["song_id"])
    assert answer.status_code == 503 and len(made) > 3 and answer.headers["retry-after"]
    detail = answer.json()["detail"]
    assert len(detail) > 20 and "\n" not in detail and "Traceback" not in detail
    plays = [{"user_id": "u" * 150, "song_id": made[0]}] * 9000
    assert client.post("/plays", json={"plays": plays}).status_code == 503
    for path in ("/readyz", "/songs", f"/songs/{made[0]}/audience", f"/songs/{made[-1]}/picture", "/model",
                 "/users/u00003/recommendations"):  # fmt: skip
        assert client.get(path).status_code == 200, path
    assert client.get("/model").json()["accepted_songs"] == len(made)
    assert client.get("/songs", params={"query": "new-"}).json()["total"] == len(made)
    return made


def room_again(running: Running, client: httpx.Client, store: Path | str, made: list[str]) -> None:
    """Writing works again, and the store holds what was acknowledged."""
    again = client.post("/songs", data={"title": "room again"}, files={"audio": encoded(noise(2))})
    assert again.status_code == 201, again.text
    plays = [{"user_id": "u" * 150, "song_id": made[0]}] * 5
    assert client.post("/plays", json={"plays": plays}).json()["accepted"] == 5
    running.process.terminate()
    assert running.process.wait(60) == 0
    with closing(Store(store)) as opened:
        assert [one.song_id for _, one in opened.songs()] == [*made, again.json()["song_id"]]
        assert all(opened.audio(song_id) for song_id in made) and opened.counts()["plays"] == 5


# ------------------------------------------------------------------------------------------------- what cannot be used


def refused(model: Path, store: Path) -> str:
    """What the command says that ends at once."""
    command = [sys.executable, "-m", "serving", f"model={model}", f"store={store}", "port=0"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100)
    lines = done.stderr.strip().splitlines()
    told = [line for line in lines if line.startswith("error: ")]
    assert done.returncode == 2 and told == lines[-1:] and "Traceback" not in done.stderr, done.stderr
    return told[0]


def files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_a_file_that_is_missing_is_told_at_the_start(service_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "service"
    shutil.copytree(service_folder, folder)
    assert len(files(folder)) > 20
    for name in files(folder):
        (folder / name).rename(tmp_path / "away")
        if name == "i2i/model.safetensors":
            told = refused(folder, tmp_path / "store")
            assert str(folder / "i2i") in told and "No such file" in told
        else:
            try:
                Engine(folder, tmp_path / "store", 4).close()
                raise AssertionError(f"nobody missed {name}")
            except UserError as error:
                assert str(folder) in str(error) and "\n" not in str(error), name
        (tmp_path / "away").rename(folder / name)
    Engine(folder, tmp_path / "store", 4).close()


# -------------------------------------------------------------------------------------------------------------- SIGTERM


def answered(client: httpx.Client) -> bool:
    try:
        return client.get("/songs").status_code == 200
    except httpx.HTTPError:
        return False


def test_told_to_end_it_answers_those_in_flight(service_folder: Path, tmp_path: Path) -> None:
    """And while it works, it shares its store with nobody."""
    made: list[httpx.Response] = []
    with serving(service_folder, tmp_path / "store") as running, ExitStack() as stack:
        idle, client = (stack.enter_context(running.client()) for _ in range(2))
        assert idle.get("/model").status_code == client.get("/model").status_code == 200
        assert "another service uses the store" in refused(service_folder, tmp_path / "store")

        def post(number: int) -> None:
            with running.client() as own:
                made.append(
                    own.post("/songs", data={"title": f"t {number}"}, files={"audio": encoded(noise(10, seed=number))})
                )

        threads = [threading.Thread(target=post, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        while "firstplay_requests_in_flight 9" not in client.get("/metrics").text and len(made) < 3:
            pass  # the ninth is this one
        before = len(made)
        running.process.send_signal(signal.SIGTERM)
        began = time.monotonic()
        while answered(idle):
            assert time.monotonic() - began < 5, "new requests are answered still"
        for thread in threads:
            thread.join(60)
        assert running.process.wait(60) == 0 and time.monotonic() - began < 31
        assert before < 8, "some were in flight"
        assert [answer.status_code for answer in made] == [201] * 8
    with closing(Store(tmp_path / "store")) as store:
        assert {one.song_id for _, one in store.songs()} == {answer.json()["song_id"] for answer in made}
