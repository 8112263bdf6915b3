"""serve_beside: ratios of turns, what counts as the same answer, and what the command writes."""

from __future__ import annotations

import json
from pathlib import Path

import httpx
import pytest

from benchmarks.speed import serve_beside
from benchmarks.speed.serve_beside import ServeBesideConfig, Turn, comparable, summed
from benchmarks.speed.serve_process import ROOT
from benchmarks.speed.serve_requests import SONGS
from configs.errors import UserError
from configs.load import load


def test_ratios_are_of_the_same_round() -> None:
    times = [(10, 5), (12, 10), (20, 18)]
    turns = [
        {"other": Turn(other, 3 * other, [b"200 a", b"500 "]), "now": Turn(now, now, [b"200 a", b"200 b"])}
        for other, now in times
    ]
    found = summed("a kind", turns)
    assert (found["other_ms"], found["ms"]) == (12, 10) and found["other_over_now"] == 1.2
    assert found["by_clock"] == pytest.approx(3.6)
    assert (found["answers"], found["same"], found["errors"]) == (6, 3, 3)


def test_a_song_that_came_in_may_differ_in_its_time_alone() -> None:
    def posted(**more: object) -> bytes:
        return comparable(httpx.Response(201, json={"song_id": "a", "added_at": "now"} | more))

    assert posted() == posted(added_at="later") != posted(song_id="b")
    one, other = (comparable(httpx.Response(200, content=content)) for content in (b'{"a":1}', b'{"a": 1}'))
    assert one != other, "byte for byte"


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sizes = ["users=300", "songs=400", "new=30", "plays=4000", "requests=10", "rounds=1"]
    kinds = f"kinds=[recommendations,'{SONGS[0]}',play]"
    work, out = tmp_path / "work", tmp_path / "beside.json"
    serve_beside.main(load(ServeBesideConfig, [*sizes, kinds, f"other={ROOT}", f"work={work}", f"out={out}"]))
    rows = json.loads(out.read_text())["rows"]
    assert [one["kind"] for one in rows] == [SONGS[0], "play of a new song", "recommendations"] and not work.exists()
    assert [(one["answers"], one["same"], one["errors"]) for one in rows] == [(1, 1, 0), (10, 10, 0), (10, 10, 0)]
    assert "| recommendations |" in capsys.readouterr().out
    with pytest.raises(UserError, match="is no checkout"):
        serve_beside.main(load(ServeBesideConfig, [*sizes, f"other={tmp_path}", f"work={work}"]))
