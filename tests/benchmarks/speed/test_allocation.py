"""The benchmark of allocation, small."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.speed.allocation import AllocationConfig, greedy_value, main, world
from configs.errors import UserError
from configs.load import load

OPTIONS = ["users=400", "songs=20", "candidates=60", "budget=10"]


def test_greedy_choices_stay_behind(tmp_path: Path) -> None:
    main(load(AllocationConfig, [*OPTIONS, f"out={tmp_path}/report.json"]))
    report = json.loads((tmp_path / "report.json").read_text())
    assert 1100 < report["pairs"] <= 20 * 60 and [one["cap"] for one in report["caps"]] == [1, 5]
    for one in report["caps"]:
        assert one["chosen"] <= 200 and one["gap_to_bound"] <= 1e-4
        assert 0.5 < one["greedy_over_ours"] <= 1 + 1e-9 and one["value_with_exploration_over_without"] < 1


def test_greedy_takes_the_most_valuable_first() -> None:
    candidates = world(load(AllocationConfig, OPTIONS))
    room_C, room_U, total = [3] * 20, [2] * 400, 0.0
    for n in np.argsort(-candidates.value_P, kind="stable"):
        song, user = int(candidates.song_P[n]), int(candidates.user_P[n])
        if room_C[song] and room_U[user]:
            room_C[song], room_U[user], total = room_C[song] - 1, room_U[user] - 1, total + candidates.value_P[n]
    assert greedy_value(candidates, 3, 2, 400) == pytest.approx(total)
    with pytest.raises(UserError, match="caps="):
        main(load(AllocationConfig, [*OPTIONS, "caps=[0]"]))
