"""The service over an index in Milvus: the same answers, a new model taken, and a Milvus that does not answer."""

from __future__ import annotations

import os
import shutil
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from fastapi.testclient import TestClient

from configs.load import load
from configs.serving import ServingConfig
from serving import answers
from serving.app import make_app
from serving.engine import Engine
from serving.state import State
from tests.commands import run
from tests.milvus_server import Server

pytest.importorskip("milvus_lite")
CONDITIONS = 'language == "zh"', 'not ("folk" in genres) and released_at >= "2025-01-01"', "language == 'no such'"


def service(trained: Path, at: Path, *options: str) -> Path:
    """A service folder whose index is made with these options."""
    run("index", f"run={trained / 'i2i'}", f"out={at / 'index'}", *options)
    run("service", f"index={at / 'index'}", f"boundary={trained / 'boundary'}", f"out={at / 'service'}")
    return at / "service"


def same_answers(one: State, other: State, *conditions: str) -> None:
    for number in one.model.new[:5].tolist():
        for where in (None, *conditions):
            both = (answers.similar_songs(state, number, 15, where=where) for state in (one, other))
            (songs, scores), (expected, their) = both
            np.testing.assert_array_equal(songs, expected)
            np.testing.assert_allclose(scores, their, rtol=1e-4, atol=1e-5)
        reached, wanted = (answers.audience(state, number, "i2i2u", 10, False, 0.0) for state in (one, other))
        np.testing.assert_array_equal(reached.users_B, wanted.users_B)


@pytest.mark.parametrize("at_milvus", ["inside", "server"], indirect=True)
def test_the_answers_are_those_of_faiss_also_of_the_next_model(
    at_milvus: list[str], trained: Path, tmp_path: Path
) -> None:
    """The folder is replaced while it is open: the older index answers until the newer is taken."""
    folder = service(trained, tmp_path / "milvus", "engine=milvus", *at_milvus)
    in_faiss = service(trained, tmp_path / "faiss")
    with (
        closing(Engine(in_faiss, tmp_path / "one", 4)) as plain,
        closing(Engine(folder, tmp_path / "two", 4)) as engine,
    ):
        first = engine.state
        same_answers(first, plain.state, *CONDITIONS)
        service(trained, tmp_path / "milvus", "engine=milvus", "index=HNSW32", *at_milvus)
        same_answers(first, plain.state)
        assert engine.changed() and engine.reload(), engine.reload_error
        assert engine.state is not first and engine.state.model.index.index.kind == "HNSW32"
        same_answers(engine.state, plain.state)
        same_answers(first, plain.state)


def test_a_milvus_that_does_not_answer_is_said_so(trained: Path, tmp_path: Path) -> None:
    folder = service(trained, tmp_path / "milvus", "engine=milvus")
    config = load(ServingConfig, [f"model={folder}", f"store={tmp_path / 'store'}"])
    engine = Engine(config.model, config.store, config.batch)
    with TestClient(make_app(engine, config, None), base_url="http://127.0.0.1") as client:
        song_id = engine.state.song_id(int(engine.state.model.new[0]))
        assert client.get(f"/songs/{song_id}/similar").status_code == 200
        index: Any = engine.state.model.index.index
        index.connection.client.drop_collection(index.name)
        answer = client.get(f"/songs/{song_id}/similar")
        assert answer.status_code == 503 and answer.headers["retry-after"] == "1"
        assert answer.json() == {"detail": "similar songs cannot be looked up just now: ask again"}
        assert client.get(f"/songs/{song_id}").status_code == 200


@pytest.mark.slow
def test_a_server_that_hangs_and_one_that_is_killed_and_comes_back(
    trained: Path, tmp_path: Path, server_of_milvus: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Answers that need it are 503, soon; the others are given; and all are when it is back."""
    monkeypatch.setattr("serving.model.MILVUS_SECONDS", 2.0)
    folder = service(trained, tmp_path / "milvus", "engine=milvus", f"uri={server_of_milvus.place()}")
    config = load(ServingConfig, [f"model={folder}", f"store={tmp_path / 'store'}"])
    engine = Engine(config.model, config.store, config.batch)
    with TestClient(make_app(engine, config, None), base_url="http://127.0.0.1") as client:
        song = f"/songs/{engine.state.song_id(int(engine.state.model.new[0]))}"
        expected = client.get(f"{song}/similar").json()
        for how in (signal.SIGSTOP, signal.SIGKILL):
            os.kill(server_of_milvus.process.pid, how)
            began = time.monotonic()
            assert client.get(f"{song}/similar").status_code == 503 and time.monotonic() - began < 10
            assert client.get(song).status_code == 200
        server_of_milvus.kill()
        server_of_milvus.start()
        end = time.monotonic() + 120
        while (answer := client.get(f"{song}/similar")).status_code == 503 and time.monotonic() < end:
            time.sleep(0.2)
        assert answer.json() == expected


@pytest.mark.slow
def test_two_services_over_one_collection_take_new_models(
    trained: Path, tmp_path: Path, server_of_milvus: Server, serve: Callable[..., Any]
) -> None:
    """Built anew, and changed in its place, without a failed answer."""
    options, statuses, ended = ["engine=milvus", f"uri={server_of_milvus.place()}"], Counter[int](), threading.Event()
    folder = service(trained, tmp_path / "milvus", *options)
    with ExitStack() as stack:
        both = [
            stack.enter_context(serve(folder, tmp_path / name, "watch_seconds=0.5")).client() for name in ("one", "two")
        ]
        new = f"/songs/{both[0].get('/songs?limit=1').json()['songs'][0]['song_id']}/similar"

        def ask(client: httpx.Client) -> None:
            while not ended.wait(0.05):
                statuses[client.get(new).status_code] += 1

        threads = [threading.Thread(target=ask, args=(client,)) for client in both for _ in range(2)]
        for thread in threads:
            thread.start()
        for more in ("index=HNSW32", "update=true"):
            before = both[0].get("/model").json()["version"]
            service(trained, tmp_path / "milvus", *options, more)
            end = time.monotonic() + 60
            while before in (client.get("/model").json()["version"] for client in both):
                assert time.monotonic() < end, "it is not taken"
                time.sleep(0.2)
        ended.set()
        for thread in threads:
            thread.join()
        assert set(statuses) == {200} and statuses[200] > 20
        assert both[0].get(new).json() == both[1].get(new).json()


def test_one_process_has_it(trained: Path, tmp_path: Path) -> None:
    """A copy of the service folder is an index of its own."""
    folder = service(trained, tmp_path / "milvus", "engine=milvus")
    other = shutil.copytree(folder, tmp_path / "copy")
    with closing(Engine(folder, tmp_path / "one", 4)) as one, closing(Engine(other, tmp_path / "two", 4)) as two:
        same_answers(one.state, two.state)
