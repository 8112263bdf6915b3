"""The margin at validation: against brute force, as the loss of training, and as what chooses best.ckpt."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor

from callbacks.boundary_margin import BoundaryMargin
from callbacks.checkpoint import BEST, checkpoint_callbacks
from callbacks.index_recall import IndexRecall
from objectives.boundary import boundary_loss
from tests.callbacks.test_index_recall import ITEMS, QUERIES, Data, Vectors, random_set, trainer

ALPHA = 0.3
Epoch = tuple[Tensor, Tensor, Tensor]  # vectors of songs, vectors of users, boundaries


class Towers(Vectors):
    """Hands out vectors and boundaries, others each epoch."""

    def __init__(self, epochs: list[Epoch]) -> None:
        super().__init__([(items, users) for items, users, _ in epochs])
        self.boundaries = [boundary for _, _, boundary in epochs]

    def validation_step(self, ids: Tensor, batch_idx: int, dataloader_idx: int = 0) -> dict[str, Tensor]:
        found = super().validation_step(ids, batch_idx, dataloader_idx)
        return found | ({"boundary": self.boundaries[self.current_epoch][ids % 100]} if dataloader_idx else {})


class Pairs(Data):
    """User 100 + n listened to song n and to song n + 1; the negatives are other users of these songs."""

    def __init__(self, repeat: bool = False) -> None:
        user, song = np.divmod(np.arange(2 * QUERIES), 2)
        song, user = song + user, 100 + user
        super().__init__((user, song), repeat)
        others = 100 + (np.repeat(user, 3) - 100 + np.tile([3, 5, 9], len(user))) % QUERIES
        label = np.repeat(np.array([1, 0], dtype=np.float32), [len(song), len(others)])
        self.val_pairs = np.r_[song, np.repeat(song, 3)], np.r_[user, others], label


@pytest.mark.parametrize("repeat", [False, True])
def test_figures_against_brute_force(tmp_path: Path, repeat: bool) -> None:
    torch.manual_seed(0)
    (items, users), boundary = random_set(1), torch.randn(QUERIES, generator=torch.Generator().manual_seed(2)) * 3
    data = Pairs(repeat)
    one = trainer(tmp_path, 1, BoundaryMargin(5, ALPHA))
    one.validate(Towers([(items, users, boundary)]), datamodule=data, verbose=False)
    found = {name: float(value) for name, value in one.callback_metrics.items()}
    two = trainer(tmp_path, 1, IndexRecall(5))
    two.validate(Vectors([(items, users)]), datamodule=data, verbose=False)
    assert found == {**found, **{name: float(value) for name, value in two.callback_metrics.items()}}
    song, user, label = data.val_pairs
    margin = [float(items[s] @ users[u - 100] - boundary[u - 100]) for s, u in zip(song, user, strict=True)]
    likely = [1 / (1 + math.exp(-one)) for one in margin]
    losses = [-math.log(p) if y else -ALPHA * math.log(1 - p) for p, y in zip(likely, label, strict=True)]
    assert found["val/bce"] == pytest.approx(np.mean(losses), rel=1e-4)
    assert found["val/margin_auc"] == pytest.approx(roc_auc_score(label, margin), abs=1e-6)
    weight, gap = [1.0 if y else ALPHA for y in label], 0.0
    for part in np.array_split(np.argsort(margin, kind="stable"), 10):
        gap += abs(sum(weight[i] * (label[i] - likely[i]) for i in part))
    assert found["val/calibration"] == pytest.approx(gap / sum(weight), abs=1e-5)


def test_bce_is_the_loss_of_training() -> None:
    """With the negatives of a play in its row, as a batch has them."""
    (items, users), data = random_set(3), Pairs()
    boundary = torch.linspace(-3, 3, QUERIES)
    rows = {"id": np.arange(ITEMS), "vector": items.numpy()}
    of_users = {"id": 100 + np.arange(QUERIES), "vector": users.numpy(), "boundary": boundary.numpy()}
    found = BoundaryMargin(5, ALPHA).measure(rows, of_users, data)
    song, user, label = (torch.from_numpy(one) for one in data.val_pairs)
    score, user = (items[song] * users[user - 100]).sum(dim=1), user - 100
    loss = boundary_loss(score, boundary[user], label, ALPHA, torch.ones_like(label))
    assert found["val/bce"] == pytest.approx(float(loss), rel=1e-5)


@pytest.mark.parametrize(("monitor", "best"), [("bce", 1), ("margin_auc", 1), ("recall@1", 0)])
def test_the_epoch_with_the_right_boundary_is_kept(tmp_path: Path, monitor: str, best: int) -> None:
    """All epochs have the same vectors, and so the same recall; the boundary of the middle one parts the users."""
    items = torch.eye(ITEMS)[:, :20]
    users = torch.zeros(QUERIES, 20)
    easy = torch.arange(QUERIES) % 2 * 8.0  # every second user scores all songs higher
    users += easy[:, None]
    users[torch.arange(QUERIES), torch.arange(QUERIES)] += 4
    users[torch.arange(QUERIES), torch.arange(QUERIES) + 1] += 4
    module = Towers([(items, users, boundary) for boundary in (torch.zeros(QUERIES), easy + 2, easy.flip(0) - 9)])
    fitted = trainer(tmp_path, 3, BoundaryMargin(1, ALPHA), *checkpoint_callbacks(tmp_path, f"val/{monitor}"))
    fitted.fit(module, datamodule=Pairs())
    kept: Any = torch.load(tmp_path / BEST, weights_only=True)
    assert kept["epoch"] == best, "and recall would keep the first of equals"


@pytest.mark.parametrize(("monitor", "figure", "of"), [("bce", "bce", min), ("margin_auc", "margin_auc", max),
                                                      ("recall", "recall@1", max)])  # fmt: skip
def test_a_run_is_chosen_by_its_monitor(
    monitor: str, figure: str, of: Any, train_boundary: Callable[..., Path], tmp_path: Path
) -> None:
    run = train_boundary(tmp_path / "run", f"monitor={monitor}", "recall_k=1", "trainer.epochs=4", "optim.lr=0.02")
    with (run / "logs" / "metrics.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row.get("val/bce")]
    assert len(rows) == 4
    assert {"val/recall@1", "val/ndcg@1", "val/bce", "val/margin_auc", "val/calibration"} <= rows[0].keys()
    logged = [float(row[f"val/{figure}"]) for row in rows]
    assert len(set(logged)) > 1
    assert json.loads((run / "manifest.json").read_text())["best"] == {f"val/{figure}": pytest.approx(of(logged))}
    kept: Any = torch.load(run / "checkpoints" / BEST, weights_only=True)
    assert kept["epoch"] == logged.index(of(logged))
