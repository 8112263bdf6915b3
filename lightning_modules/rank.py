"""Ranking: the neural ranker of (new song, candidate) pairs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import lightning as L
import torch.nn.functional as F
from torch import Tensor

from lightning_modules.optim import adamw
from models.ranker import RankNetwork
from objectives.conditional import conditional_loss

SIZES = ("block", "field_dim", "dim", "heads", "hidden", "dropout")


class RankModule(L.LightningModule):
    """loss = −log-likelihood of played, and of completed and favourited given played.

    The options are the sizes of `RankNetwork`, `lr`, `weight_decay` and `warmup`.
    """

    def __init__(
        self,
        dense_dims: dict[str, int],
        vocab_sizes: dict[str, int],
        code_sizes: Sequence[int],
        n_numbers: int,
        grades: Sequence[float],
        **options: Any,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        sizes = {name: options[name] for name in SIZES}
        self.model = RankNetwork(dense_dims, vocab_sizes, code_sizes, n_numbers, grades, **sizes)

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        """Loss of the candidates of some songs."""
        return conditional_loss(self.model(batch), batch["label"])

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        """Log `val/loss`: cross-entropy of the expected grade, as a share of the highest, of songs left out."""
        loss = F.binary_cross_entropy_with_logits(self.model.score(batch), batch["share"])
        self.log("val/loss", loss, batch_size=len(batch["share"]))

    def predict_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        """Scores of the candidates of some songs: log-odds of the expected grade's share."""
        scores: Tensor = self.model.score(batch)
        return scores

    def configure_optimizers(self) -> Any:
        """AdamW with warm-up and cosine decay."""
        return adamw(self, {})

    def on_fit_start(self) -> None:
        """Fix the centre and scale of the inputs, and start at the rates of the labels, measured on training songs."""
        data: Any = self.trainer.datamodule  # type: ignore[attr-defined]
        for name, (mean, scale) in data.dense_statistics().items():
            self.model.standardise_songs(name, mean, scale)
        self.model.standardise_numbers(*data.number_statistics())
        self.model.start_at(data.label_rates())
