"""boundary_scale: what it writes on a small case."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.speed.boundary_scale import BoundaryScaleConfig, main, towers
from configs.errors import UserError
from configs.load import load
from retrieval.boundary import margins


def test_the_command(tmp_path: Path) -> None:
    options = ["users=3000", "new=40", "dim=16", "budget=10", "peer=15", f"out={tmp_path}/scale.json"]
    config = load(BoundaryScaleConfig, options)
    main(config)
    found = json.loads((tmp_path / "scale.json").read_text())
    assert found["share_of_exact_list"]["Flat"] == 1 and 0.5 < found["share_of_exact_list"]["IVF,Flat"] <= 1
    assert set(found["plain_over_ours"]) == {"Flat", "IVF,Flat"} and min(found["plain_over_ours"].values()) > 0
    open_to = margins(*towers(config)) > 0
    assert 0.02 < open_to.mean() < 0.1 and found["users_with_a_song"] == pytest.approx(open_to.any(axis=0).mean())
    with pytest.raises(UserError, match="must be at least 1"):
        main(load(BoundaryScaleConfig, ["users=0"]))
