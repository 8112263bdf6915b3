"""I2I: behavioural similarity by BPR, regularised by bootstrapping contrastive learning (the article's two steps)."""

from __future__ import annotations

from typing import Any

import lightning as L
import torch
from torch import Tensor

from lightning_modules.optim import adamw
from models.song_encoder import SongEncoder
from models.views import draw_group, make_view
from objectives.contrastive import info_nce
from objectives.gather import gather_rows, gather_with_grad
from objectives.ranking import bpr_loss


class I2IModule(L.LightningModule):
    """loss = BPR + `bcl_weight` · InfoNCE; with `bcl_weight=0` it is CB2CF.

    `correlation` (F, F) is rebuilt each epoch by `callbacks.correlation.FeatureCorrelation`; the checkpoint keeps it.
    """

    correlation: Tensor

    def __init__(
        self,
        dense_dims: dict[str, int],
        vocab_sizes: dict[str, int],
        block: int = 64,
        field_dim: int = 32,
        hidden: int = 256,
        dim: int = 64,
        dropout: float = 0.1,
        normalise: bool = True,
        bcl_weight: float = 0.1,
        temperature: float = 0.1,
        grouping: str = "correlation",
        augment: str = "either",
        mask_rate: float = 0.2,
        noise_std: float = 0.1,
        lr: float = 1e-3,
        weight_decay: float = 0.01,
        warmup: float = 0.05,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.model = SongEncoder(dense_dims, vocab_sizes, field_dim, hidden, dim, dropout, block, normalise)
        self.model.head.requires_grad_(bcl_weight > 0)  # DDP refuses a parameter that takes no part in the loss
        self.register_buffer("correlation", torch.eye(len(self.model.embedding.names)))

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        """BPR on the pairs, InfoNCE on two views of the uniformly drawn songs."""
        n = len(batch["source"])
        query_ND, positive_ND, negative_MD = self.model(batch["pairs"]).split([n, n, len(batch["negatives"])])
        negatives = batch["negatives"]
        keep_NM = (negatives != batch["source"][:, None]) & (negatives != batch["target"][:, None])
        bpr = bpr_loss(query_ND, positive_ND, negative_MD, keep_NM)
        loss = bpr
        if self.hparams["bcl_weight"] > 0:
            contrastive, left_out = self.contrastive(batch["drawn"], batch["drawn_ids"])
            loss = bpr + self.hparams["bcl_weight"] * contrastive
            self.log("train/info_nce", contrastive)
            self.log("train/songs_left_out", left_out)
        self.log_dict({"train/loss": loss, "train/bpr": bpr}, prog_bar=True)
        return loss

    def contrastive(self, fields: dict[str, Tensor], ids_N: Tensor) -> tuple[Tensor, Tensor]:
        """InfoNCE between two views of each song, over all ranks, and the share of songs left out (a view is empty)."""
        p = self.hparams
        e_NFE, present_NF = self.model.embedding(fields)
        views, shown = [], []
        for group_F in draw_group(self.correlation, p["grouping"]):
            view_NFE, shown_NF = make_view(e_NFE, present_NF, group_F, p["augment"], p["mask_rate"], p["noise_std"])
            views.append(gather_with_grad(self.model.head(self.model.encode(view_NFE, shown_NF))))
            shown.append(shown_NF.any(dim=1))
        valid_N = gather_rows(shown[0] & shown[1])
        loss = info_nce(views[0], views[1], p["temperature"], gather_rows(ids_N), valid_N)
        return loss, 1 - valid_N.float().mean()

    def validation_step(self, batch: dict[str, Any], batch_idx: int, dataloader_idx: int = 0) -> dict[str, Tensor]:
        """Song vectors for the recall callback (loader 0: index, loader 1: queries)."""
        return {"id": batch["id"], "vector": self.model(batch["fields"])}

    def predict_step(self, batch: dict[str, Any], batch_idx: int) -> dict[str, Tensor]:
        """Song vectors."""
        return {"id": batch["id"], "vector": self.model(batch["fields"])}

    def configure_optimizers(self) -> Any:
        """AdamW with warm-up and cosine decay."""
        steps = int(self.trainer.estimated_stepping_batches)
        return adamw(self, self.hparams["lr"], self.hparams["weight_decay"], self.hparams["warmup"], steps)

    def on_fit_start(self) -> None:
        """Fix the centre and scale of the dense inputs, measured on warm songs (a resumed run already has them)."""
        if self.trainer.ckpt_path is None:
            for name, (mean, scale) in self.trainer.datamodule.dense_statistics().items():  # type: ignore[attr-defined]
                self.model.embedding.standardise(name, mean, scale)
