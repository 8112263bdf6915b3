"""prepare_scale: what it writes on small logs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from benchmarks.speed import speeds
from benchmarks.speed.prepare_scale import PrepareScaleConfig, growth, main, same_tables, write_log
from configs.errors import UserError
from configs.load import load


def test_the_command(tmp_path: Path) -> None:
    options = ["plays=[3000]", "users=300", "songs=150", "repeats=1", "memory_gb=0.000001", f"work={tmp_path}/work"]
    main(load(PrepareScaleConfig, [*options, f"out={tmp_path}/scale.json"]))
    report = json.loads((tmp_path / "scale.json").read_text())
    rows, found = list(speeds.prepare(report)), report["3000 plays"]
    assert [row[0] for row in rows] == ["pairs, 3,000 plays", "prepare, 3,000 plays"]
    assert float(rows[0][3]) == pytest.approx(1 / found["ours_over_implicit"], rel=0.02)
    assert found["same_catalogue"] is True and found["largest_difference"] < 1e-6
    assert found["ours_over_implicit"] > 0 and found["songs"] == 150
    stages = found["prepare"] | found["pairs"]
    assert set(stages) == {"bounded", "at once", "ours", "implicit"}
    assert all(one["peak_memory_mb"] >= one["memory_before_mb"] > 0 and one["seconds"] > 0 for one in stages.values())
    assert not list((tmp_path / "work").iterdir()), "logs and catalogues are cleared away"
    with pytest.raises(UserError, match="must be at least 1"):
        main(load(PrepareScaleConfig, ["plays=[0]"]))


def test_growth() -> None:
    def size(seconds: float, peak: int, products: int) -> dict[str, Any]:
        one = {"seconds": seconds, "memory_before_mb": 100, "peak_memory_mb": peak, "products": products}
        return {"prepare": {"bounded": one, "at once": one}, "pairs": {"ours": one, "implicit": one}}

    first, second = growth([size(2.0, 200, 10), size(6.0, 350, 40), size(6.0, 350, 40)])
    assert first["products"] == 4 and first["ours: seconds"] == 3 and first["bounded: memory"] == 2.5
    assert set(second.values()) == {1} and growth([size(1.0, 200, 1)]) == []


def test_the_log_has_long_tails(tmp_path: Path) -> None:
    config = load(PrepareScaleConfig, ["plays=[50000]", "users=2000", "songs=1000"])
    assert write_log(config, tmp_path)["users"] == 2000
    plays = pl.read_parquet(tmp_path / "log" / "plays" / "*.parquet")
    assert plays.height == 50000 and plays["played_at"].is_sorted()
    for of in ("user_id", "song_id"):
        counts = plays.group_by(of).len()["len"].sort(descending=True)
        assert counts.head(len(counts) // 10).sum() > 0.3 * 50000, "a tenth has more than a third of the plays"
    shares = plays.group_by("song_id").len()["len"].sort(descending=True).to_numpy()
    slope = np.polyfit(np.log(np.arange(10, 300)), np.log(shares[10:300]), 1)[0]
    assert slope == pytest.approx(-0.6, abs=0.15)


def test_the_comparison_can_fail(tmp_path: Path) -> None:
    for name, value in (("a", 1), ("b", 1), ("c", 2)):
        (tmp_path / name).mkdir()
        pl.DataFrame({"x": [value]}).write_parquet(tmp_path / name / "t.parquet")
    assert same_tables(tmp_path / "a", tmp_path / "b") and not same_tables(tmp_path / "a", tmp_path / "c")
