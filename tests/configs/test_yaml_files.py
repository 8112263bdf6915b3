"""Every YAML file of configs/ fits its schema, and the demo script names only files that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from benchmarks.quality.item_cold.__main__ import ItemColdConfig
from configs.load import load
from configs.targeting import EvaluateConfig
from configs.training import BoundaryConfig, ClipConfig, I2IConfig

ROOT = Path(__file__).parents[2]
SCHEMAS = {"clip": ClipConfig, "i2i": I2IConfig, "boundary": BoundaryConfig, "targeting": EvaluateConfig}
FILES = sorted(path for path in (ROOT / "configs").rglob("*.yaml") if path.parent.name != "sweeps")


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_file_fits_its_schema(path: Path) -> None:
    schema = ItemColdConfig if path.parent.name == "item_cold" else SCHEMAS[path.stem]
    config = load(schema, ["data=x", "out=y", *(["index=z"] if schema is EvaluateConfig else [])], path)
    if isinstance(config, ItemColdConfig):
        for options in (config.i2i, *config.i2i_of.values()):
            load(I2IConfig, ["data=x", "out=y", *options])


def test_demo_names_files_that_exist() -> None:
    named = re.findall(r"--config (\S+)", (ROOT / "demo.sh").read_text())
    assert named and all((ROOT / name).is_file() for name in named)
