"""The export of a ranker: its programs score pairs as the network does, and trees are LightGBM's own to read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from artifacts.runs import read_vocabulary
from configs.errors import UserError
from configs.load import load as options
from configs.ranking import RankConfig
from configs.serving import ExportConfig
from data.catalogue import Catalogue
from datamodules.batches import Batch
from datamodules.rank_batches import RankBatches
from export import model as export
from export.parts import SONGS
from inference.ranking import contents, read_ranker
from tests.export.test_programs import run_both
from training import ranking


def fitted(data: Path, i2i: Path, out: Path, *more: str) -> Path:
    ranking.train_rank(options(RankConfig, [f"data={data}", f"i2i={i2i}", f"out={out}", "depth=15", *more]))
    return out


def test_programs_score_pairs_as_the_network_does(catalogue_folder: Path, i2i_run: Path, tmp_path: Path) -> None:
    small = ["network.epochs=1", "network.dim=8", "network.heads=2", "network.hidden=8", "network.history=6"]
    run = fitted(catalogue_folder, i2i_run, tmp_path / "rank", "model=network", "network.parts=2", *small)
    out = tmp_path / "export"
    export.export_model(options(ExportConfig, [f"run={run}", f"out={out}", "formats=[onnx,torch_export]"]))
    examples, about = ranking.read_examples(run / "examples")[0], read_ranker(run)
    fields = contents(run, Catalogue.read(catalogue_folder), None, about["network"]["dense_dims"])
    batches = RankBatches(examples, tuple(about["features"]), fields, np.arange(3), (1.0, 2.0, 10.0))
    batch: Any = batches[Batch(np.array([0, 2]), (0,))]
    model, described = export.load(out)
    with torch.no_grad():
        expected = model.score(batch).numpy()  # type: ignore[operator]
    assert expected.std() > 0 and described["vocabulary"]["songs"] == read_vocabulary(run)
    assert described["numbers"] == batches.numbers and described["codes"] == batches.codes
    inputs = json.loads((out / "config.json").read_text())["onnx"]["score"]["inputs"]
    given = {SONGS + name: value for name, value in batch["songs"].items()} | batch
    for scores in run_both(out, "score", {name: given[name] for name in inputs}):
        np.testing.assert_allclose(scores[:, 0], expected, rtol=1e-4, atol=1e-5)


def test_trees_are_not_exported(catalogue_folder: Path, i2i_run: Path, tmp_path: Path) -> None:
    run = fitted(catalogue_folder, i2i_run, tmp_path / "rank", "trees.min_leaf=5", "trees.rounds=5")
    with pytest.raises(UserError, match=r"holds trees, which LightGBM itself reads: model\.txt"):
        export.export_model(options(ExportConfig, [f"run={run}", f"out={tmp_path}/export"]))
    assert not (tmp_path / "export").exists()
