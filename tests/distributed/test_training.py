"""`torchrun train.py …` on several gloo processes: the same validation, whatever their number."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import train
from configs.load import given, load
from configs.training import I2IConfig
from tests.conftest import i2i_options
from tests.distributed.test_launch import ROOT, ended, environment, launch, weights

STILL = ["optim.lr=1e-12", "trainer.epochs=1"]  # weights stay as they were: what differs is the number of ranks


def validation(run: Path) -> dict[str, float]:
    """The validation figures of the first epoch."""
    with (run / "logs" / "metrics.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row.get("val/audience") or row.get("val/recall@20")]
    return {key: float(value) for key, value in rows[0].items() if key.startswith("val/") and value}


@pytest.fixture(scope="module")
def odd_catalogue(dataset: Path, prepare: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A number of songs that neither two nor three ranks share out evenly."""
    out = prepare(dataset, tmp_path_factory.mktemp("odd") / "catalogue", "split.by=random", "split.cold_share=0.217")
    from data.catalogue import Catalogue

    warm, cold = (len(Catalogue.read(out).rows(name)) for name in ("warm", "cold_val"))
    assert warm % 2 and warm % 3 and cold % 2 and cold % 3
    return out


def plain_start(options: list[str], ranks: int) -> subprocess.Popen[str]:
    """`python train.py`, which starts its further processes itself."""
    argv = [sys.executable, str(ROOT / "train.py"), *options, f"trainer.devices={ranks}"]
    pipe = subprocess.PIPE
    return subprocess.Popen(argv, env=environment(), stdout=pipe, stderr=pipe, text=True)


@pytest.mark.parametrize("by", ["torchrun", pytest.param("lightning", marks=pytest.mark.slow)])
def test_ranks_search_together(by: str, catalogue_folder: Path, tmp_path: Path) -> None:
    """Whoever starts the second process: trials, figures and the best one are those of one process."""
    runs = [tmp_path / "one", tmp_path / "two"]
    one, two = ([*i2i_options(catalogue_folder, run), *STILL, "search=2"] for run in runs)
    train.train("i2i", load(I2IConfig, one), given(I2IConfig, one))
    two.append("logger.wandb=offline")
    ended(launch("torchrun.sh", ["i2i", *two], RANKS=2) if by == "torchrun" else plain_start(["i2i", *two], 2))
    assert len(list((runs[1] / "search").rglob("*.wandb"))) == len(list((runs[1] / "search").rglob("*.csv"))) == 2
    assert len(list(tmp_path.glob("wandb/offline-run-*"))) == 1, "rank 0 alone tells"
    alone, both = (json.loads((run / "search.json").read_text())["trials"] for run in runs)
    assert [row["options"] for row in both] == [row["options"] for row in alone] and alone[1]["options"]
    assert [row["value"] for row in both] == pytest.approx([row["value"] for row in alone], rel=1e-4)
    assert json.loads((runs[1] / "manifest.json").read_text())["finished"]


@pytest.mark.parametrize("task", ["i2i", "boundary"])
def test_validation_and_correlation_do_not_hang_on_the_number_of_ranks(
    task: str, odd_catalogue: Path, tmp_path: Path
) -> None:
    figures, correlation = {}, {}
    for ranks in (1, 3):
        out = tmp_path / str(ranks)
        options = i2i_options(odd_catalogue, out)
        if task == "boundary":
            options = [one for one in options if not one.startswith(("bcl_batch", "objective."))]
        ended(launch("torchrun.sh", [task, *options, *STILL, "logger.wandb=offline"], RANKS=ranks))
        assert len(list(out.rglob("*.wandb"))) == len(list(out.rglob("*.csv"))) == 1, "rank 0 alone tells"
        figures[ranks] = validation(out)
        correlation[ranks] = weights(out).get("correlation", torch.zeros(1))
    assert len(figures[1]) >= 2 and max(figures[1].values()) > 0
    wanted = {"val/audience"} if task == "i2i" else {"val/bce", "val/margin_auc", "val/calibration"}
    assert wanted <= figures[1].keys()
    assert figures[3] == pytest.approx(figures[1], rel=1e-4)
    torch.testing.assert_close(correlation[3], correlation[1], rtol=1e-4, atol=1e-5)
    assert task == "boundary" or (correlation[1] - torch.eye(len(correlation[1]))).abs().max() > 0.01
