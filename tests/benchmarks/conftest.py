"""A world with sound, for the benchmarks of CLIP."""

from __future__ import annotations

from pathlib import Path

import pytest

from configs.data import WorldConfig
from configs.load import load
from pipeline import world


@pytest.fixture(scope="session")
def sounding(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset of 120 songs with sound (read-only by agreement)."""
    folder = tmp_path_factory.mktemp("sounding") / "world"
    size = ["songs=120", "users=60", "seconds=1.5", "truth_users=10", "workers=1"]
    world.main(load(WorldConfig, [f"out={folder}", *size]))
    return folder
