"""Recall at validation through the index: against brute force, with repeated ids, and as what chooses best.ckpt."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from callbacks.checkpoint import BEST, LAST, checkpoint_callbacks
from callbacks.index_recall import IndexRecall

D, ITEMS, QUERIES = 6, 40, 15


class Vectors(L.LightningModule):
    """Hands out given vectors, another set each epoch."""

    def __init__(self, sets: list[tuple[Tensor, Tensor]]) -> None:
        super().__init__()
        self.sets, self.weight = sets, nn.Parameter(torch.zeros(1))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return self.weight.sum()

    def on_train_epoch_end(self) -> None:
        self.weight.data.fill_(self.current_epoch)

    def validation_step(self, ids: Tensor, batch_idx: int, dataloader_idx: int = 0) -> dict[str, Tensor]:
        return {"id": ids, "vector": self.sets[self.current_epoch][dataloader_idx][ids % 100]}

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.0)


class Data(L.LightningDataModule):
    """Items 0 … 39 and queries 100 … 114; with `repeat`, some ids come twice, as from a padding sampler."""

    def __init__(self, truth: tuple[np.ndarray, np.ndarray], repeat: bool) -> None:
        super().__init__()
        self.truth, self.repeat = truth, repeat

    def train_dataloader(self) -> Any:
        return DataLoader([0.0])  # type: ignore[arg-type]

    def val_dataloader(self) -> list[Any]:
        items, queries = torch.randperm(ITEMS), 100 + torch.randperm(QUERIES)
        if self.repeat:
            items, queries = torch.cat([items, items[:7]]), torch.cat([queries, queries[3:9]])
        return [DataLoader(ids.tolist(), batch_size=4) for ids in (items, queries)]  # type: ignore[arg-type]

    def val_positives(self) -> tuple[np.ndarray, np.ndarray]:
        return self.truth


def random_set(seed: int) -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(ITEMS, D, generator=rng) - 3, torch.randn(QUERIES, D, generator=rng)  # most products negative


def recall(scores: np.ndarray, pairs: set[tuple[int, int]], sources: Any, targets: Any, k: int) -> float:
    """Mean recall@k over the sources that have pairs (source, target), one by one; scores are (sources, targets)."""
    recalls = []
    for source, row in zip(sources, scores, strict=True):
        wanted = {target for one, target in pairs if one == source}
        best = {target for _, target in sorted(zip(row, targets, strict=True), reverse=True)[:k]}
        if wanted:
            recalls.append(len(wanted & best) / len(wanted))
    return sum(recalls) / len(recalls)


def trainer(folder: Path, epochs: int, *callbacks: L.Callback) -> L.Trainer:
    return L.Trainer(
        max_epochs=epochs, accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False,
        num_sanity_val_steps=0, callbacks=list(callbacks), default_root_dir=folder,
    )  # fmt: skip


@pytest.mark.parametrize("repeat", [False, True])
def test_figures_against_brute_force(tmp_path: Path, repeat: bool) -> None:
    torch.manual_seed(0)
    vectors, ids = random_set(1), (range(100, 100 + QUERIES), range(ITEMS))
    rng = np.random.default_rng(0)
    query_of, item_of = 100 + rng.integers(0, QUERIES - 2, 40), rng.integers(0, ITEMS, 40)
    one = trainer(tmp_path, 1, IndexRecall(1, 5, 60, both_ways=True))
    one.validate(Vectors([vectors]), datamodule=Data((query_of, item_of), repeat), verbose=False)
    found = {name: float(value) for name, value in one.callback_metrics.items()}
    scores, pairs = (vectors[1] @ vectors[0].T).numpy(), list(zip(query_of.tolist(), item_of.tolist(), strict=True))
    for k in (1, 5, 60):
        forward = recall(scores, set(pairs), *ids, k)
        backward = recall(scores.T, {(item, query) for query, item in pairs}, *ids[::-1], k)
        assert found[f"val/recall@{k}"] == pytest.approx(forward, abs=1e-6)
        assert found[f"val/reverse_recall@{k}"] == pytest.approx(backward, abs=1e-6)
    assert forward == backward == 1.0, "k above the number of items finds all of them once"
    assert 0 < found["val/ndcg@60"] < 1
    positives = scores[query_of - 100][:, item_of]  # each pair's query against the items of all pairs
    for key, table in (("median_rank", positives), ("reverse_median_rank", positives.T)):
        ranks = (table >= np.diagonal(table)[:, None]).sum(axis=1)
        assert found[f"val/{key}"] == pytest.approx(np.median(ranks), abs=1), "equal scores may round differently"


def test_best_checkpoint_is_of_the_epoch_with_the_highest_recall(tmp_path: Path) -> None:
    """Epoch 1 puts every query on its own item; before and after the vectors are random."""
    pairs = (100 + np.arange(QUERIES), np.arange(QUERIES))
    items, _ = random_set(2)
    items = items / items.norm(dim=1, keepdim=True)
    good = (items, 100 * items[:QUERIES])
    module = Vectors([random_set(3), good, random_set(4)])
    fitted = trainer(tmp_path, 3, IndexRecall(1), *checkpoint_callbacks(tmp_path, "val/recall@1"))
    fitted.fit(module, datamodule=Data(pairs, repeat=True))
    best, last = (torch.load(tmp_path / name, weights_only=True) for name in (BEST, LAST))
    assert (best["epoch"], last["epoch"]) == (1, 2)
    assert float(fitted.checkpoint_callbacks[0].best_model_score) == 1.0  # type: ignore[union-attr]
    assert sorted(path.name for path in tmp_path.glob("*.ckpt*")) == [BEST, LAST]
