"""Recall@K at validation through a FAISS index: what drives the choice of the best checkpoint, for all three tasks.

`validation_step` returns {"id": (N,), "vector": (N, D)}, and what else a row has. Loader 0 gives what is indexed,
loader 1 what asks. The DataModule's `val_positives()` gives the true (query id, item id) pairs.
"""

from __future__ import annotations

from typing import Any

import lightning as L
import numpy as np
import torch
from numpy.typing import NDArray

from objectives.gather import gather_rows
from retrieval.index import build_index, search
from retrieval.metrics import ndcg_at_k, own_ranks, recall_at_k, recall_curve

Array = NDArray[Any]
Rows = dict[str, Array]  # what a loader's validation gave, one row an id, ascending
ITEMS, QUERIES = 0, 1
SAMPLE = 500  # vectors of each loader that are kept to be drawn


class IndexRecall(L.Callback):
    """Logs `val/recall@K` for each K and `val/ndcg@K` for the largest, mean over queries.

    With `both_ways`, where each query has one item and the other way round (audio and text), also
    `val/reverse_recall@K`, and the median rank of the right one, ties last: `val/median_rank`,
    `val/reverse_median_rank`.

    Vectors are gathered over ranks and de-duplicated by id, so padding by a distributed sampler counts once. Every
    rank computes the same figure from the same rows: none waits for another.

    Of the last validation `curves` keeps recall at 1, 2, … K by name, and `sample` some (ids, vectors) of each loader.
    """

    def __init__(self, *ks: int, both_ways: bool = False) -> None:
        self.ks, self.both_ways = ks, both_ways
        self.parts: dict[int, list[dict[str, torch.Tensor]]] = {}
        self.device = torch.device("cpu")  # the rank's own
        self.curves: dict[str, Array] = {}
        self.sample: dict[int, tuple[Array, Array]] = {}

    def on_validation_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Drop the last epoch's vectors."""
        self.parts = {ITEMS: [], QUERIES: []}

    def on_validation_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep the vectors of one batch, on the CPU."""
        self.parts[dataloader_idx].append({key: value.detach().cpu() for key, value in outputs.items()})

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Build the index, search it and log the metrics."""
        self.device = pl_module.device
        items, queries = self._collect(ITEMS), self._collect(QUERIES)
        self.parts = {}
        self.sample = {loader: evenly(one["id"], one["vector"]) for loader, one in ((ITEMS, items), (QUERIES, queries))}
        metrics = self.measure(items, queries, trainer.datamodule)  # type: ignore[attr-defined]
        pl_module.log_dict({key: float(value) for key, value in metrics.items()}, prog_bar=True, rank_zero_only=False)

    def measure(self, of_items: Rows, of_queries: Rows, data: Any) -> dict[str, Any]:
        """Compute the metrics from what both loaders gave."""
        items, item_ids, queries, query_ids = (one[key] for one in (of_items, of_queries) for key in ("vector", "id"))
        query_of, item_of = data.val_positives()
        widest = max(self.ks)
        found = retrieve(items, item_ids, queries, widest, self.device.index or 0)
        metrics = {f"val/recall@{k}": recall_at_k(found[:, :k], query_ids, query_of, item_of).mean() for k in self.ks}
        metrics[f"val/ndcg@{widest}"] = ndcg_at_k(found, query_ids, query_of, item_of).mean()
        self.curves["val/recall"] = recall_curve(found, query_ids, query_of, item_of)
        if self.both_ways:
            back = retrieve(queries, query_ids, items, widest, self.device.index or 0)
            self.curves["val/reverse_recall"] = recall_curve(back, item_ids, item_of, query_of)
            for k in self.ks:
                metrics[f"val/reverse_recall@{k}"] = recall_at_k(back[:, :k], item_ids, item_of, query_of).mean()
            query, item = queries[np.searchsorted(query_ids, query_of)], items[np.searchsorted(item_ids, item_of)]
            metrics["val/median_rank"] = np.median(own_ranks(query, item))
            metrics["val/reverse_median_rank"] = np.median(own_ranks(item, query))
        return metrics

    def _collect(self, loader: int) -> Rows:
        found = {}
        for key in self.parts[loader][0]:
            rows = torch.cat([part[key] for part in self.parts[loader]]).to(self.device)
            found[key] = gather_rows(rows.float() if rows.is_floating_point() else rows).cpu().numpy()
        _, first = np.unique(found["id"], return_index=True)
        return {key: rows[first] for key, rows in found.items()}


def evenly(ids: Array, vectors: Array) -> tuple[Array, Array]:
    """Take at most `SAMPLE` rows, evenly spaced."""
    step = -(-len(ids) // SAMPLE) or 1
    return ids[::step].copy(), vectors[::step].copy()


def retrieve(items: Array, item_ids: Array, queries: Array, k: int, device: int = 0) -> Array:
    """Ids of the k items with the largest inner product for each query, (Q, k); −1 where the index holds fewer."""
    _, at = search(build_index(items, devices=(device,)), queries, k)
    return np.where(at >= 0, item_ids[at], -1)
