"""Rebuilds the feature-correlation matrix from the current field embeddings at the start of every epoch.

The article: "a correlation matrix is maintained, and updated as the model trains".
"""

from __future__ import annotations

from typing import Any

import lightning as L
import torch
from torch import Tensor, nn

from models.views import feature_correlation
from objectives.gather import sum_over_ranks


class FeatureCorrelation(L.Callback):
    """One Gram matrix of the concatenated embeddings of the warm songs, summed over ranks → linear CKA.

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
        correlation = correlate(pl_module.model.embedding, list(batches))  # type: ignore[union-attr,arg-type]
        pl_module.correlation.copy_(correlation)  # type: ignore[operator,union-attr]


@torch.no_grad()
def correlate(embedding: nn.Module, batches: list[dict[str, Tensor]]) -> Tensor:
    """Correlation (F, F) of the features over all songs in `batches` of all ranks.

    Two passes: the mean of each feature over the songs that have it, then the Gram matrix of the centred embeddings in
    which an absent feature is zero, so a pair of features is compared on the songs that have both.
    """
    training = embedding.training
    embedding.eval()
    sums = [
        (e_NFE.double().sum(dim=0), present_NF.double().sum(dim=0)) for e_NFE, present_NF in map(embedding, batches)
    ]
    total_FE, count_F = (torch.stack(part).sum(dim=0) for part in zip(*sums, strict=True))
    mean_FE = sum_over_ranks(total_FE) / sum_over_ranks(count_F).clamp(min=1)[:, None]
    n_features, dim = mean_FE.shape
    gram = torch.zeros(n_features * dim, n_features * dim, dtype=torch.float64, device=mean_FE.device)
    for e_NFE, present_NF in map(embedding, batches):
        centred = ((e_NFE.double() - mean_FE) * present_NF.unsqueeze(-1)).flatten(1)
        gram += centred.T @ centred
    embedding.train(training)
    gram = sum_over_ranks(gram)
    return feature_correlation(gram.reshape(n_features, dim, n_features, dim)).float()
