"""serve_several: medians and ratios of turns, and what the command writes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.speed import serve_several
from benchmarks.speed.serve_several import ASKED, ServeSeveralConfig, computed, summed
from benchmarks.speed.serve_together import installed
from configs.load import load


def test_ratios_are_of_the_same_round() -> None:
    def turn(way: str, rate: float, refused: dict[str, int]) -> dict[str, object]:
        times = {"p50_ms": 100 / rate, "p95_ms": 1.0, "p99_ms": 2.0}
        return {"kind": "a", "way": way, "per_second": rate, **times, "refused": refused, "cores": {"services": rate}}

    rates = {"one": (10, 5, 20), "two": (12, 10, 18)}
    turns = [turn(way, rates[way][at], {"0": 1} if at else {}) for at in range(3) for way in rates]
    found = summed(turns, "a", "two", "one")
    assert found["ratios"] == [1.2, 2.0, 0.9] and found["over_first"] == 1.2
    assert (found["per_second"], found["cores"], found["errors"]) == (12, {"services": 12}, {"0": 2})
    assert summed(turns, "a", "one", "one")["over_first"] == 1


def test_what_processes_compute_is_counted() -> None:
    assert 0 < computed(1, 0.05) < computed(1, 0.5)
    assert computed(2, 0.05) > 0


@pytest.mark.slow
@pytest.mark.skipif(not installed(), reason="no PostgreSQL or HAProxy (Debian: apt-get install postgresql haproxy)")
def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sizes = ["users=300", "songs=400", "new=30", "plays=4000", "clients=2", "seconds=0.2", "rounds=1", "port=18460"]
    work, out = tmp_path / "work", tmp_path / "serve_several.json"
    serve_several.main(load(ServeSeveralConfig, [*sizes, f"work={work}", f"out={out}"]))
    report = json.loads(out.read_text())
    assert len(report["rows"]) == 4 * len(ASKED) and not work.exists()
    assert all(one["per_second"] > 0 and not one["errors"] for one in report["rows"])
    assert {"services", "database", "proxy", "clients"} == report["rows"][-1]["cores"].keys()
    assert report["rows"][-1]["cores"]["services"] > 0
    assert "| audience, rank | two behind HAProxy |" in capsys.readouterr().out
