"""Rebuilds the feature-correlation matrix from the current field embeddings at the start of every epoch.

The article: "a correlation matrix is maintained, and updated as the model trains".
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import lightning as L
import torch
from torch import Tensor, nn

from models.views import feature_correlation
from objectives.gather import sum_over_ranks


class FeatureCorrelation(L.Callback):
    """Linear CKA of the features' embeddings of the warm songs of all ranks.

    Args:
        max_songs: warm songs used, evenly spaced, so that the cost does not grow with the catalogue.
    """

    def __init__(self, max_songs: int = 50_000) -> None:
        self.max_songs = max_songs

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write the new matrix into `pl_module.correlation`."""
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        warm = data.warm[:: -(-len(data.warm) // self.max_songs)]
        batches = (
            {name: x.to(pl_module.device) for name, x in batch["fields"].items()} for batch in data.songs_loader(warm)
        )
        module: Any = pl_module
        module.correlation.copy_(correlate(module.model.embedding, batches, module.feature_of))


@torch.no_grad()
def correlate(embedding: nn.Module, batches: Iterable[dict[str, Tensor]], feature_of_F: Tensor) -> Tensor:
    """Correlation (G, G) of the features over all songs in `batches` of all ranks, each pair over songs with both.

    One pass gathers the moments of each pair of features, a product of two only once; memory is that of (F·E)² numbers.
    """
    training, n_features = embedding.training, int(feature_of_F.max()) + 1
    embedding.eval()
    total: list[Tensor] = []
    for fields in batches:
        e_NFE, present_NF = embedding(fields)
        x_G = [e_NFE[:, feature_of_F == g].flatten(1).double() for g in range(n_features)]
        has_NG = torch.stack([present_NF[:, feature_of_F == g].any(dim=1) for g in range(n_features)], dim=1).double()
        part = [has_NG.T @ has_NG]
        for i, x_NE in enumerate(x_G):  # absent features are zero: the other's presence is what is left to ask
            of_G = has_NG.T.unsqueeze(-1) * x_NE
            part += [of_G.sum(dim=1), of_G.transpose(1, 2) @ x_NE, *(x_NE.T @ earlier for earlier in x_G[:i])]
        total = [a + b for a, b in zip(total, part, strict=True)] if total else part
    embedding.train(training)
    count_GG, *rest = (sum_over_ranks(x).cpu() for x in total)
    sums, squares, products = [], [], []
    for i in range(n_features):
        sums.append(rest.pop(0))
        squares.append(rest.pop(0))
        products.append([rest.pop(0) for _ in range(i)])
    return feature_correlation(count_GG, sums, squares, products).float().to(feature_of_F.device)
