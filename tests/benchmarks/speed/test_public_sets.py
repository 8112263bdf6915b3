"""public_sets: what it writes on a small data set."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.speed.public_sets import PublicSetsConfig, main
from configs.errors import UserError
from configs.load import load


def test_the_command(tmp_path: Path) -> None:
    options = ["formats=[mpd]", "plays=2000", "users=60", "songs=100", f"work={tmp_path}/work"]
    main(load(PublicSetsConfig, [*options, f"out={tmp_path}/out.json"]))
    found = json.loads((tmp_path / "out.json").read_text())["mpd"]
    for stage in ("read", "prepare"):
        one = found[stage]
        assert one["peak_memory_mb"] >= one["memory_before_mb"] > 0 and one["seconds"] > 0
    assert found["prepare"]["songs"] == 100 and 1000 < found["prepare"]["plays_kept"] <= 2000
    assert not list((tmp_path / "work").iterdir())
    with pytest.raises(UserError, match="known are yambda, recbole"):
        main(load(PublicSetsConfig, ["formats=[netease]"]))
