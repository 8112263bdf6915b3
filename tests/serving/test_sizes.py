"""The sizes of docs/scaling.md: formulas that hold to the byte for a real service folder, and the table shown."""

from __future__ import annotations

from pathlib import Path

from benchmarks.sizes import SizesConfig, measured_and_said, shown, table

ROOT = Path(__file__).parents[2]


def test_formulas_are_those_of_the_files(service_folder: Path) -> None:
    found = measured_and_said(service_folder)
    assert all(measured == said > 0 for measured, said in found.values()), found


def test_the_documented_table_is_what_is_computed() -> None:
    assert table(SizesConfig()) in (ROOT / "docs" / "scaling.md").read_text("utf-8")
    assert [shown(size) for size in (999, 1024, 2.5e6, 1.024e12)] == ["0.999 kB", "1.02 kB", "2.5 MB", "1.02 TB"]
