"""docs/serving.md says what the service does: its examples run, and no route, option, figure or status is missing."""

from __future__ import annotations

import dataclasses
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from omegaconf import MISSING

from configs.serving import ServingConfig
from serving.routes import FAILURES

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "serving.md").read_text("utf-8")
ROWS = [[cell.strip() for cell in line[1:-1].split("|")] for line in PAGE.splitlines() if line.startswith("| ")]


@pytest.mark.skipif(shutil.which("curl") is None, reason="the examples are for curl")
def test_the_examples_run(live: Any, trained: Path, tmp_path: Path) -> None:
    blocks = re.findall(r"^```sh\n(.*?)^```$", PAGE, re.M | re.S)
    commands = "".join(blocks).replace("http://127.0.0.1:8000", live.url)
    shutil.copy(next((trained / "world" / "audio").glob("*.flac")), tmp_path / "song.flac")
    options = [
        f'header = "Authorization: {live.headers["authorization"]}"',
        "silent",
        "fail-with-body",
        'write-out="\\n"',
    ]
    (tmp_path / ".curlrc").write_text("\n".join(options))
    environment = os.environ | {"CURL_HOME": str(tmp_path)}
    done = subprocess.run(
        ["bash", "-euc", commands], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr
    answers = done.stdout.splitlines()
    assert len(answers) == commands.count("curl ") == 13
    assert '"song_id":"night-train"' in answers[0] and '"accepted":2' in answers[5]
    assert re.findall(r'"status":(\d+)', answers[6]) == ["201", "201", "422"]
    assert '"changed":2' in answers[8] and '"changed":1' in answers[9]
    assert '"did":' in answers[10] and '"by":"text"' in answers[11] and '"by":"songs"' in answers[12]
    with live.client() as client:
        assert client.get("/songs/night-train").status_code == 404, "deleted by the last line"


def test_every_route_is_described(live: Any) -> None:
    with live.client() as client:
        paths = client.get("/openapi.json").json()["paths"]
    routes = {f"{method.upper()} {path}" for path, methods in paths.items() for method in methods}
    routes |= {"GET /", "GET /healthz", "GET /metrics"}  # not in the description
    told = {cells[0].strip("`").split("?")[0] for cells in ROWS if re.match(r"`(GET|POST|DELETE) ", cells[0])}
    assert told == routes


def test_every_option_is_described_with_its_default() -> None:
    told = {}
    for cells in ROWS:
        names, defaults = (re.findall(r"`([^`]*)`", cell) for cell in cells[:2])
        if len(cells) == 3 and re.fullmatch(r"(`\w+`(, )?)+", cells[0]):
            told |= dict(zip(names, defaults or [None] * len(names), strict=True))
    made = ServingConfig()
    wanted = {option.name: getattr(made, option.name) for option in dataclasses.fields(made)}
    written = {name: f"{value:g}" if isinstance(value, float) else str(value) for name, value in wanted.items()}
    assert told == {name: None if value in ("None", MISSING) else value for name, value in written.items()}


def test_every_figure_and_every_status_is_described(live: Any) -> None:
    with live.client() as client:
        client.get("/model")
        figures = set(re.findall(r"^(firstplay_\w+)", client.get("/metrics").text, re.M))
    figures = {name for name in figures if not name.endswith(("_created", "_count", "_sum"))}
    assert set(re.findall(r"firstplay_\w+", PAGE.split("## What to watch")[1])) == figures
    told = {cells[0] for cells in ROWS if re.fullmatch(r"\d+", cells[0])}
    assert told == {str(status) for status in FAILURES} | {"422"}  # which the framework describes
