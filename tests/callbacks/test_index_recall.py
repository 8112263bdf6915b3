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


def brute(items: Tensor, queries: Tensor, truth: tuple[np.ndarray, np.ndarray], k: int) -> tuple[float, float]:
    """Mean recall@k of queries → items and of items → queries, with loops."""
    products = queries.double() @ items.double().T
    result = []
    both = (products, 100, zip(*truth, strict=True)), (products.T, 0, zip(*truth[::-1], strict=True))
    for scores, offset, pairs in both:
        wanted: dict[int, set[int]] = {}
        for source, target in pairs:
            wanted.setdefault(int(source), set()).add(int(target))
        other = 100 - offset
        recalls = []
        for source, targets in wanted.items():
            best = sorted(range(scores.shape[1]), key=lambda j, row=scores[source - offset]: -float(row[j]))[:k]  # type: ignore[misc]
            recalls.append(len({j + other for j in best} & targets) / len(targets))
        result.append(sum(recalls) / len(recalls))
    return result[0], result[1]


def truth(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return 100 + rng.integers(0, QUERIES - 2, 40), rng.integers(0, ITEMS, 40)


def trainer(folder: Path, epochs: int, *callbacks: L.Callback) -> L.Trainer:
    return L.Trainer(
        max_epochs=epochs, accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False,
        num_sanity_val_steps=0, callbacks=list(callbacks), default_root_dir=folder,
    )  # fmt: skip


@pytest.mark.parametrize("repeat", [False, True])
@pytest.mark.parametrize("k", [1, 5, 60])
def test_recall_against_brute_force(tmp_path: Path, k: int, repeat: bool) -> None:
    torch.manual_seed(0)
    vectors, pairs = random_set(1), truth()
    one = trainer(tmp_path, 1, IndexRecall(k, both_ways=True))
    one.validate(Vectors([vectors]), datamodule=Data(pairs, repeat), verbose=False)
    forward, backward = brute(*vectors, pairs, k)
    assert float(one.callback_metrics[f"val/recall@{k}"]) == pytest.approx(forward, abs=1e-6)
    assert float(one.callback_metrics[f"val/reverse_recall@{k}"]) == pytest.approx(backward, abs=1e-6)
    assert (float(one.callback_metrics[f"val/ndcg@{k}"]) > 0) == (forward > 0)
    if k == 60:
        assert forward == backward == 1.0, "k above the number of items finds all of them once"


def test_several_k_and_the_median_rank_of_pairs(tmp_path: Path) -> None:
    """Query 100 + n belongs to item n; every K is the recall of a callback of its own, ranks come from loops."""
    vectors, pairs = random_set(1), (100 + np.arange(QUERIES), np.arange(QUERIES))
    one = trainer(tmp_path, 1, IndexRecall(1, 5, 10, both_ways=True))
    one.validate(Vectors([vectors]), datamodule=Data(pairs, repeat=True), verbose=False)
    for k in (1, 5, 10):
        forward, backward = brute(*vectors, pairs, k)
        assert float(one.callback_metrics[f"val/recall@{k}"]) == pytest.approx(forward, abs=1e-6)
        assert float(one.callback_metrics[f"val/reverse_recall@{k}"]) == pytest.approx(backward, abs=1e-6)
    products = (vectors[1] @ vectors[0][:QUERIES].T).tolist()
    for key, table in (("median_rank", products), ("reverse_median_rank", list(zip(*products, strict=True)))):
        ranks = [sum(score >= row[n] for score in row) for n, row in enumerate(table)]
        assert float(one.callback_metrics[f"val/{key}"]) == np.median(ranks)


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
