"""U2I: item, user and boundary towers; the boundary parts a user's positives from their negatives."""

from __future__ import annotations

from typing import Any

import lightning as L
from torch import Tensor

from lightning_modules.optim import adamw
from models.towers import BoundaryModel
from objectives.boundary import boundary_loss


class BoundaryModule(L.LightningModule):
    """loss = α-weighted cross-entropy of σ(⟨u, i⟩ − ⟨u, b⟩).

    The options are the sizes of `BoundaryModel`, `alpha`, `lr`, `weight_decay` and `warmup`.
    """

    def __init__(
        self,
        dense_dims: dict[str, int],
        vocab_sizes: dict[str, int],
        profile_sizes: dict[str, int],
        n_numbers: int,
        **options: Any,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        sizes = ("block", "field_dim", "hidden", "dim", "dropout", "prior_plays")
        given = {name: options[name] for name in sizes if name in options}  # runs of earlier versions lack prior_plays
        self.model = BoundaryModel(dense_dims, vocab_sizes, profile_sizes, n_numbers, **given)

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        """Boundary loss of each play's own song and its negatives.

        A song that is drawn more often than uniformly is scored less its log_q in training, as in sampled softmax: the
        score it learns is that of uniform negatives (docs/method.md §3).
        """
        item_NM, boundary_N = self.model(batch)
        label_NM, weight_NM, alpha = batch["label"], batch["weight"], self.hparams["alpha"]
        loss = boundary_loss(item_NM - batch["log_q"], boundary_N[:, None], label_NM, alpha, weight_NM)
        self.log("train/loss", loss, prog_bar=True)
        above_NM = (item_NM > boundary_N[:, None]).float()
        for name, counted_NM in (("positives", label_NM), ("negatives", weight_NM * (1 - label_NM))):
            self.log(f"train/{name}_above_boundary", (above_NM * counted_NM).sum() / counted_NM.sum().clamp(min=1))
        return loss

    def validation_step(self, batch: dict[str, Any], batch_idx: int, dataloader_idx: int = 0) -> dict[str, Tensor]:
        """Item vectors (loader 0) and user vectors and boundaries (loader 1) for the callback."""
        return self.predict_step(batch, batch_idx)

    def predict_step(self, batch: dict[str, Any], batch_idx: int) -> dict[str, Tensor]:
        """Item vectors of a batch of songs; user vectors and boundary scores of a batch of users."""
        if "fields" in batch:
            return {"id": batch["id"], "vector": self.model.item_vectors(batch["fields"])}
        user_ND, boundary_N = self.model.user_vectors(batch)
        return {"id": batch["id"], "vector": user_ND, "boundary": boundary_N}

    def configure_optimizers(self) -> Any:
        """AdamW with warm-up and cosine decay."""
        return adamw(self, {})

    def on_fit_start(self) -> None:
        """Fix the centre and scale of the inputs, measured on training data (a resumed run already has them)."""
        if self.trainer.ckpt_path is None:
            data: Any = self.trainer.datamodule  # type: ignore[attr-defined]
            for name, (mean, scale) in data.dense_statistics().items():
                self.model.standardise_songs(name, mean, scale)
            self.model.standardise_numbers(*data.number_statistics())
