"""`wandb sync` of a run in two offline parts and of what it read: the real client, before a stand-in for the server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import wandb

from lightning_modules.i2i import I2IModule
from tests.callbacks.test_resume import Killed, kill_when
from tests.offline_wandb import runs_in

pytestmark = pytest.mark.slow
PROJECT = {"id": "P", "name": "firstplay", "entity": {"id": "E", "name": "us"}}


class Server:
    """Answers the client's questions, and keeps `history` (rows by run), `created` and `used` (artifacts' digests)."""

    def __init__(self) -> None:
        self.history: dict[str, list[dict[str, Any]]] = {}
        self.created: dict[str, str] = {}
        self.used: list[str] = []
        self.url = ""

    def stream(self, run: str, files: dict[str, Any]) -> None:
        """Rows of a run's history, from an offset on."""
        if part := files.get("wandb-history.jsonl"):
            rows = self.history.setdefault(run, [])
            rows[part["offset"] :] = [json.loads(row) for row in part["content"]]

    def answer(self, operation: str, given: dict[str, Any]) -> dict[str, Any]:
        """What a GraphQL operation gives back; nothing for those that it does not know."""
        known = getattr(self, operation, None)
        return known(given) if known else {}

    def RunResumeStatus(self, given: dict[str, Any]) -> dict[str, Any]:
        rows = self.history.get(given["name"])
        tail = {"_step": rows[-1]["_step"], "_runtime": rows[-1]["_runtime"]} if rows else {}
        counts = {"historyLineCount": len(rows or []), "logLineCount": 0, "eventsLineCount": 0}
        texts = {"historyTail": json.dumps([json.dumps(tail)]), "summaryMetrics": json.dumps(tail), "eventsTail": "[]"}
        run = {"id": given["name"], "name": given["name"], "displayName": "", "config": "{}", "tags": []}
        found = run | counts | texts | {"wandbConfig": '{"t": 1}'}
        return {"model": PROJECT | {"bucket": found if rows else None}}

    def UpsertBucket(self, given: dict[str, Any]) -> dict[str, Any]:
        run = {"id": given["name"], "name": given["name"], "displayName": "", "config": "{}", "project": PROJECT}
        return {"upsertBucket": {"bucket": run, "inserted": given["name"] not in self.history}}

    def CreateArtifact(self, given: dict[str, Any]) -> dict[str, Any]:
        one = given["input"]
        self.created[one["artifactCollectionName"]] = one["digest"]
        return {"createArtifact": {"artifact": {"id": one["digest"], "state": "PENDING", "artifactSequence": {}}}}

    def CreateArtifactManifest(self, _: dict[str, Any]) -> dict[str, Any]:
        file = {"id": "F", "name": "m", "displayName": "m", "uploadUrl": f"{self.url}/up", "uploadHeaders": []}
        return {"createArtifactManifest": {"artifactManifest": {"id": "M", "file": file}}}

    def CreateArtifactFiles(self, given: dict[str, Any]) -> dict[str, Any]:
        files = given["input"]["artifactFiles"]
        same = {"uploadUrl": f"{self.url}/up", "uploadHeaders": [], "storagePath": "s"}
        nodes = [
            same | {"id": one["name"], "name": one["name"], "artifact": {"id": one["artifactID"]}} for one in files
        ]
        return {"createArtifactFiles": {"files": {"edges": [{"node": node} for node in nodes]}}}

    def CommitArtifact(self, given: dict[str, Any]) -> dict[str, Any]:
        return {"commitArtifact": {"artifact": {"id": given["artifactID"], "digest": given["artifactID"]}}}

    def UseArtifact(self, given: dict[str, Any]) -> dict[str, Any]:
        self.used.append(given["input"]["artifactID"])
        return {"useArtifact": {"artifact": {"id": given["input"]["artifactID"], "digest": "", "state": "COMMITTED"}}}

    def CreateRunFiles(self, given: dict[str, Any]) -> dict[str, Any]:
        files = [{"name": name, "uploadUrl": f"{self.url}/up"} for name in given["files"]]
        return {"createRunFiles": {"runID": given["run"], "uploadHeaders": [], "files": files}}


@contextmanager
def serving() -> Iterator[Server]:
    server = Server()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body, data = self.rfile.read(int(self.headers.get("Content-Length") or 0)), {}
            if self.path == "/graphql":
                asked = json.loads(body)
                data = {"data": server.answer(asked.get("operationName", ""), asked.get("variables") or {})}
            elif self.path.endswith("/file_stream"):
                server.stream(self.path.split("/")[-2], json.loads(body).get("files", {}))
            answer = json.dumps(data).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        do_GET = do_PUT = do_POST

        def log_message(self, *_: Any) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.url = f"http://127.0.0.1:{http.server_port}"
    threading.Thread(target=http.serve_forever, daemon=True).start()
    try:
        yield server
    finally:
        http.shutdown()


def test_a_run_in_two_parts_becomes_one_and_reads_what_it_read(
    train_i2i: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed in the middle of epoch 1, it starts that epoch again: its steps are logged twice, and follow in order."""
    out = tmp_path / "mine" / "i2i"
    with monkeypatch.context() as patch, pytest.raises(Killed):
        kill_when(patch, I2IModule, "training_step", lambda m, _, i: m.current_epoch == 1 and i == 3)
        train_i2i(out, "logger.wandb=offline")
    train_i2i(out, "logger.wandb=offline")
    wandb.teardown()
    before, after = runs_in(out)
    with serving() as server:
        home = {"HOME": str(tmp_path), "WANDB_BASE_URL": server.url, "WANDB_API_KEY": "0" * 40, "WANDB_MODE": "online"}
        argv = [sys.executable, "-m", "wandb", "sync", str(after.folder), str(before.folder)]
        ended = subprocess.run(argv, env={**os.environ, **home}, cwd=tmp_path, capture_output=True, timeout=120)
    assert ended.returncode == 0, ended.stderr.decode()[-2000:]
    assert list(server.history) == [before.id] == [after.id]
    rows = server.history[before.id]
    assert [row["_step"] for row in rows] == list(range(len(before.history) + len(after.history)))
    logged = [row["trainer/global_step"] for row in rows if "train/loss" in row]
    steps = (max(logged) + 1) // 3
    assert logged == [*range(steps), *range(steps, steps + 3), *range(steps, 3 * steps)]
    (catalogue,) = after.used.values()
    assert set(server.used) == {catalogue["digest"]}
    assert (
        server.created["mine-i2i"] == after.made["mine-i2i"]["digest"] and server.created["mine-i2i"] not in server.used
    )
