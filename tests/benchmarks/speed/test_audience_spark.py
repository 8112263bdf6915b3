"""audience_spark: what it writes on a small world, and that its comparison can fail."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from benchmarks.speed.audience_spark import AudienceSparkSpeedConfig, as_mode, compared, main
from configs.errors import UserError
from configs.load import load


@pytest.mark.slow
def test_the_command(tmp_path: Path) -> None:
    pytest.importorskip("pyspark", reason="pyspark is not installed")
    if not (os.environ.get("JAVA_HOME") or shutil.which("java")):
        pytest.skip("there is no Java here")
    sizes = ["users=400", "plays=8000", "songs=200", "new=5", "dim=8", "targeting.budget=20", "partitions=[3]"]
    options = [*sizes, "driver_memory=1g", f"work={tmp_path}/work", f"out={tmp_path}/spark.json"]
    main(load(AudienceSparkSpeedConfig, options))
    report = json.loads((tmp_path / "spark.json").read_text())
    assert set(report["lists"]["3"]) == {"i2i2u", "taste"}
    for lists in report["lists"]["3"].values():
        assert lists["places"] == 100 and lists["largest_score_difference"] <= 1e-6
    of_spark = report["spark"]["3"]
    assert set(of_spark["seconds"]) == set(of_spark["cpu_seconds"]) == {"Spark starts", "plays", "i2i2u", "taste"}
    assert min(of_spark["cpu_seconds"].values()) > 0
    assert min(of_spark["peak_memory_mb"].values()) > 0, "Java and its workers are seen"
    assert report["local"]["peak_memory_mb"]["java"] == 0
    assert not (tmp_path / "work").exists()


def test_the_comparison_can_fail(tmp_path: Path) -> None:
    users, scores = np.array([[3, 1, -1]]), np.array([[2.0, 1.0, -np.inf]])
    for name, other, beside in (
        ("a", users, scores),
        ("b", users[:, [1, 0, 2]], scores),
        ("c", users, scores + 0.5),
        ("d", users, np.where(scores == 1, -np.inf, scores)),
    ):
        np.savez(tmp_path / f"{name}.npz", users=other, scores=beside)
    assert compared(tmp_path, "a", "a") == {"places": 2, "other_users": 0, "largest_score_difference": 0}
    assert compared(tmp_path, "a", "b")["other_users"] == 2
    assert compared(tmp_path, "a", "c")["largest_score_difference"] == 0.25
    assert compared(tmp_path, "a", "d")["largest_score_difference"] == float("inf")


def test_modes_that_need_a_model_are_refused() -> None:
    assert as_mode("union") == "union"
    with pytest.raises(UserError, match="modes=rank"):
        main(load(AudienceSparkSpeedConfig, ["modes=[rank]"]))
    with pytest.raises(UserError, match="partitions from 1 on"):
        main(load(AudienceSparkSpeedConfig, ["partitions=[0]"]))
