"""The benchmark of the machine's limits, small."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.speed.machine import MachineConfig, main
from configs.errors import UserError
from configs.load import load


def test_limits_are_those_of_some_machine(tmp_path: Path) -> None:
    main(load(MachineConfig, ["size=256", "megabytes=8", "counters=1000", "turns=2", f"out={tmp_path}/report.json"]))
    report = json.loads((tmp_path / "report.json").read_text())
    assert 0.1 < report["torch_float32_gflops"] < 1e5 and 0.1 < report["numpy_float32_gflops"] < 1e5
    assert report["torch_bfloat16_gflops"] > 0 and 0.01 < report["copy_gb_a_second"] < 1e4
    assert 0.01 < report["random_count_ns"] < 1e3 and 0.01 < report["random_read_ns"] < 1e4


def test_nothing_to_measure_is_refused() -> None:
    with pytest.raises(UserError, match="turns"):
        main(load(MachineConfig, ["turns=0"]))
