"""What the tests of exports share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from artifacts.runs import finish_run, run_folder
from lightning_modules.clip import ClipModule


@pytest.fixture(autouse=True)
def without_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


@pytest.fixture(scope="session")
def save_clip_run(catalogue_folder: Path) -> Callable[[Path, ClipModule], Path]:
    """`save_clip_run(folder, module)` makes a finished run of a module, as the tiny songs have no recording."""

    def save(folder: Path, module: ClipModule) -> Path:
        with run_folder(folder, "clip", f"data: {catalogue_folder}\nout: {folder}\n", {}):
            pass
        (folder / "checkpoints").mkdir()
        saved = {"state_dict": module.state_dict(), "hyper_parameters": dict(module.hparams)}
        torch.save(saved, folder / "checkpoints" / "best.ckpt")
        finish_run(folder, "clip", {"val/recall@10": 0.125})
        return folder

    return save
