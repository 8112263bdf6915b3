"""`made(read, source)`: what a reader makes of a public data set, as checked by the data contract."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from data.contract.dataset import Dataset, read_dataset
from data.published.files import Found, Reader, convert


@pytest.fixture
def made(tmp_path: Path) -> Callable[[Reader, Path], tuple[Dataset, Found]]:
    def run(read: Reader, source: Path) -> tuple[Dataset, Found]:
        folder = tmp_path / "made"
        found = convert(read, source, folder)
        return read_dataset(folder), found

    return run
