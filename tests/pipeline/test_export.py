"""Exports load without Lightning and score the same; an evaluation needs listeners and budgets."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

import train
from configs import schema
from configs.errors import UserError
from configs.load import load
from pipeline import embed, evaluate, export, index, prepare, world

ROOT = Path(__file__).parents[2]
QUIET = ["trainer.progress=false", "trainer.accelerator=cpu"]


@pytest.fixture(scope="module")
def road(tmp_path_factory: pytest.TempPathFactory) -> Path:
    at = tmp_path_factory.mktemp("road")
    size = ["songs=120", "users=120", "seconds=2", "workers=1"]
    run(world.main, schema.WorldConfig, f"out={at}/world", *size)
    options = [f"source={at}/world", "split.cutoff=2026-06-01", "workers=0"]
    run(prepare.main, schema.PrepareConfig, f"out={at}/catalogue", *options)
    data, features = f"data={at}/catalogue", f"features={at}/features"
    small = ["model.crop_seconds=1.5", "model.width=64", "model.layers=2", "batch_size=64", "trainer.epochs=1"]
    run(train.train_clip, schema.ClipConfig, data, f"out={at}/clip", *small, *QUIET, "logger.wandb=off")
    run(embed.main, schema.EmbedConfig, data, f"clip={at}/clip", f"out={at}/features")
    few = ["trainer.epochs=1", *QUIET, "logger.wandb=off"]
    run(train.train_i2i, schema.I2IConfig, data, features, f"out={at}/i2i", *few)
    run(index.main, schema.IndexConfig, f"run={at}/i2i", f"out={at}/i2i_index")
    run(train.train_boundary, schema.BoundaryConfig, data, features, f"out={at}/boundary", *few)
    for name in ("clip", "i2i", "boundary"):
        run(export.main, schema.ExportConfig, f"run={at}/{name}", f"out={at}/export_{name}")
    return at


def run(main: Any, of: type, *options: str) -> None:
    main(load(of, list(options)))


LOAD_WITHOUT_LIGHTNING = """
import sys
for name in ("lightning", "pytorch_lightning", "faiss", "wandb"):
    sys.modules[name] = None
import numpy as np, torch
from pipeline.export import load
model, config = load(sys.argv[1])
fields = {name: torch.from_numpy(array) for name, array in np.load(sys.argv[2]).items()}
np.save(sys.argv[3], model(fields).detach().numpy())
"""


def test_export_loads_without_lightning_and_gives_the_same_vectors(road: Path, tmp_path: Path) -> None:
    from datamodules.pairs import PairDataModule
    from pipeline.runs import open_run
    from pipeline.vectors import data_options

    data = PairDataModule(**data_options(open_run(road / "i2i", "i2i"), None, None))
    rows = np.arange(data.catalogue.n_songs)
    np.savez(tmp_path / "fields.npz", **{name: x.numpy() for name, x in data.fields.gather(rows).items()})
    line = [sys.executable, "-c", LOAD_WITHOUT_LIGHTNING, str(road / "export_i2i"), "fields.npz", "out.npy"]
    line[4] = str(tmp_path / "fields.npz")
    line[5] = str(tmp_path / "out.npy")
    subprocess.run(line, check=True, cwd=ROOT)
    assert np.allclose(np.load(tmp_path / "out.npy"), np.load(road / "i2i_index" / "vectors.npy"), atol=1e-5)


def test_every_export_has_a_card_and_safetensors(road: Path) -> None:
    for task in ("clip", "i2i", "boundary"):
        folder = road / f"export_{task}"
        model, config = export.load(folder)
        assert config["task"] == task and not model.training
        assert (folder / "model.safetensors").stat().st_size > 10_000
        assert f"FirstPlay {task} model" in (folder / "README.md").read_text()


def test_evaluating_without_listeners_or_budgets_is_refused(road: Path, tmp_path: Path) -> None:
    options = [f"data={tmp_path}/catalogue", f"index={road}/i2i_index", f"out={tmp_path}/out"]
    shutil.copytree(road / "catalogue", tmp_path / "catalogue")
    plays = pl.read_parquet(tmp_path / "catalogue" / "cold_plays.parquet")
    plays.clear().write_parquet(tmp_path / "catalogue" / "cold_plays.parquet")
    with pytest.raises(UserError, match="no cold_test song has a held-out listener"):
        run(evaluate.main, schema.EvaluateConfig, *options)
    with pytest.raises(UserError, match="positive numbers"):
        run(evaluate.main, schema.EvaluateConfig, *options, "budgets=[10,0]")
    assert not (tmp_path / "out").exists()
