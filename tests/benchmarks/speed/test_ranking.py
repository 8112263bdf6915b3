"""The ranking benchmark on a small world."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks.speed.ranking import CHANNELS, RankingSpeedConfig, main
from configs.targeting import TargetingConfig


def test_all_stages_are_timed_and_candidates_stay_within_their_number(tmp_path: Path) -> None:
    out = tmp_path / "ranking.json"
    sizes = {"users": 500, "plays": 20_000, "songs": 400, "new": 60, "candidates": 90, "dim": 8}
    main(RankingSpeedConfig(**sizes, out=str(out), targeting=TargetingConfig(neighbours=20)))
    found = json.loads(out.read_text("utf-8"))
    assert len(found["seconds"]) == 6 and all(one > 0 for one in found["seconds"].values())
    assert 60 * 90 / CHANNELS <= found["pairs"] <= 60 * 90
    ranking = sum(found["seconds"][name] for name in ("features", "scores of the trees", "lists"))
    assert abs(found["pairs_a_second"] * ranking / found["pairs"] - 1) < 0.01
