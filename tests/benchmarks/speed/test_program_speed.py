"""program_speed: what it writes of one small part."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from benchmarks.speed.program_speed import ProgramSpeedConfig, every_part, main
from configs.errors import UserError
from configs.load import load


def test_the_command(tmp_path: Path) -> None:
    threads = torch.get_num_threads()
    options = ["parts=['boundary: item']", "rows=3", "rounds=2", f"threads={threads}", f"out={tmp_path}/speed.json"]
    main(load(ProgramSpeedConfig, options))
    found = json.loads((tmp_path / "speed.json").read_text())
    assert set(found) == {"options", "cpus", "threads", "boundary: item"}
    item = found["boundary: item"]
    assert item["max_difference"]["torch_export"] <= item["max_difference"]["onnx"] < 1e-5
    assert set(item["milliseconds"]) == {"model", "torch_export", "onnx"} and min(item["milliseconds"].values()) > 0
    with pytest.raises(UserError, match="must be at least 1"):
        main(load(ProgramSpeedConfig, ["rounds=0"]))


def test_every_part_of_every_task_is_measured() -> None:
    names = [name.split()[-1] for name, _, _ in every_part(64)]
    assert names == ["audio", "audio", "audio", "text", "song", "item", "user", "boundary"]
