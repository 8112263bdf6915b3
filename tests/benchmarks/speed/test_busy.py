"""busy: what the command writes."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks.speed import busy
from benchmarks.speed.busy import BusyConfig
from configs.load import load


def test_the_command(tmp_path: Path) -> None:
    small = ["rounds=1", "seconds=0.05", "neighbours=1", "width=8", "rows=8"]
    busy.main(load(BusyConfig, [*small, f"out={tmp_path}/r.json"]))
    report = json.loads((tmp_path / "r.json").read_text())["steps_a_second"]
    assert list(report) == ["idle", "busy"]
    assert all(list(rates) == list(busy.POLICIES) and min(rates.values()) > 0 for rates in report.values())
