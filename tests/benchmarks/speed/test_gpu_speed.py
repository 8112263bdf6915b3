"""gpu_speed, on the CPU: operations counted as by hand, and what the command writes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from benchmarks.speed import gpu_speed
from benchmarks.speed.gpu_speed import GpuSpeedConfig, operations, training
from configs.errors import UserError
from configs.load import load

SMALL = ["device=cpu", "batch_size=8", "frames=80", "width=32", "layers=2", "heads=2", "matrix=64", "steps=1"]


def test_operations_are_those_of_the_weights() -> None:
    """Six a weight and token (two forward, four backward), as far as the blocks go; attention comes on top."""
    config = load(GpuSpeedConfig, SMALL)
    deeper = load(GpuSpeedConfig, [*SMALL, "layers=5"])
    _, model = training(config, half=False, recompute=False)
    matrices = sum(weight.numel() for weight in model.audio_encoder.blocks[0].parameters() if weight.ndim == 2)
    tokens = 8 * 80 // 4
    blocks = operations(deeper) - operations(config)
    assert blocks / 3 == pytest.approx(6 * matrices * tokens, rel=0.3) and blocks / 3 >= 6 * matrices * tokens


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_speed, "VARIANTS", [one for one in gpu_speed.VARIANTS if not one[2]])  # compiling is slow
    gpu_speed.main(load(GpuSpeedConfig, [*SMALL, f"out={tmp_path}/r.json"]))
    report = json.loads((tmp_path / "r.json").read_text())
    assert [(row["precision"], row["recompute"]) for row in report["rows"]] == [
        ("32-true", False), ("32-true", True), ("bf16-mixed", False), ("bf16-mixed", True),
    ]  # fmt: skip
    for row in report["rows"]:
        assert row["songs_a_second"] == pytest.approx(8 / row["seconds"], rel=1e-2) and row["share_of_matmul_peak"] > 0


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_no_gpu_is_told() -> None:
    with pytest.raises(UserError, match="finds no GPU here: device=cpu"):
        gpu_speed.main(GpuSpeedConfig())
