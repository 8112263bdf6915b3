"""The tiny dataset with recordings."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest


@pytest.fixture(scope="session")
def with_recordings(dataset: Path) -> Callable[[Path, dict[int, str]], Path]:
    """`with_recordings(folder, {row: file})` puts the tiny dataset beside the recordings of some of its songs."""

    def write(folder: Path, files: dict[int, str]) -> Path:
        shutil.copytree(dataset, folder, dirs_exist_ok=True)
        songs = pl.read_parquet(dataset / "songs.parquet")
        paths = [files.get(row) for row in range(songs.height)]
        songs.with_columns(pl.Series("audio_path", paths, dtype=pl.String)).write_parquet(folder / "songs.parquet")
        return folder

    return write
