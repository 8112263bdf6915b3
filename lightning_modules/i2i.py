"""I2I: behavioural similarity from pairs and histories, regularised by contrastive learning on views of a song."""

from __future__ import annotations

from typing import Any

import lightning as L
import torch
from torch import Tensor, nn

from lightning_modules.i2i_losses import contrastive, listening, pairs
from lightning_modules.optim import adamw
from models.song_encoder import Fields, SongEncoder


class I2IModule(L.LightningModule):
    """loss = `pair_weight` · pairs + `listening_weight` · histories + `bcl_weight` · InfoNCE; CB2CF has no InfoNCE.

    A song asks as what its content says, f(x). A known song is found as f(x) + memory, where `memory` is what its
    listeners taught beyond content; songs without a training play have none (`memory_size=0`: no song has).
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
        input_dropout: float = 0.0,
        normalise: bool = True,
        field_dropout: float = 0.0,
        memory_size: int = 0,
        pair_loss: str = "bpr",
        in_batch: bool = False,
        pair_weight: float = 1.0,
        listening_weight: float = 1.0,
        listening_temperature: float = 0.1,
        users_weight: float = 1.0,
        appeal: bool = True,
        bcl_weight: float = 0.1,
        temperature: float = 0.1,
        grouping: str = "correlation",
        augment: str = "either",
        mask_rate: float = 0.2,
        noise_std: float = 0.1,
        contrastive_head: bool = True,
        lr: float = 1e-3,
        weight_decay: float = 0.01,
        warmup: float = 0.05,
        memory_lr_scale: float = 5.0,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        options = (field_dim, hidden, dim, dropout, block, normalise, input_dropout)
        self.model = SongEncoder(dense_dims, vocab_sizes, *options)
        self.memory = nn.Embedding(memory_size, dim, padding_idx=0) if memory_size else None
        if self.memory is not None:
            nn.init.zeros_(self.memory.weight).requires_grad_(pair_weight > 0 or listening_weight > 0)
        self.logit_scale = nn.Parameter(torch.tensor(1 / listening_temperature).log())
        # DDP refuses a parameter that takes no part in the loss
        self.model.head.requires_grad_(bcl_weight > 0 and contrastive_head)
        self.model.appeal_of.requires_grad_(listening_weight > 0 and appeal)
        self.logit_scale.requires_grad_(listening_weight > 0)
        self.register_buffer("field_of", torch.tensor(self.model.embedding.field_of), persistent=False)
        self.register_buffer("correlation", torch.eye(len(self.model.embedding.names)))

    def forward(self, fields: Fields, memory_N: Tensor) -> Tensor:
        """Song vectors (N, D); memory code 0 is a song that nobody has played."""
        vector_ND, _ = self.model.content(*self.model.embedding(fields))
        return self.model.finish(self.remember(vector_ND, memory_N))

    def remember(self, vector_ND: Tensor, memory_N: Tensor) -> Tensor:
        """Content vectors plus what listeners taught."""
        return vector_ND if self.memory is None else vector_ND + self.memory(memory_N)

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        """The parts of the loss that have a weight."""
        p, parts = self.hparams, {}
        if p["pair_weight"] > 0:
            parts[p["pair_loss"]] = (p["pair_weight"], pairs(self, batch))
        if p["listening_weight"] > 0:
            parts["listening"] = (p["listening_weight"], listening(self, batch["listening"]))
        if p["bcl_weight"] > 0:
            info_nce, left_out = contrastive(self, batch["drawn"], batch["drawn_ids"])
            parts["info_nce"] = (p["bcl_weight"], info_nce)
            self.log("train/songs_left_out", left_out)
        loss = torch.stack([weight * part for weight, part in parts.values()]).sum()
        self.log_dict(
            {"train/loss": loss} | {f"train/{name}": part for name, (_, part) in parts.items()}, prog_bar=True
        )
        return loss

    def validation_step(self, batch: dict[str, Any], batch_idx: int, dataloader_idx: int = 0) -> dict[str, Tensor]:
        """Song vectors for the recall callbacks (loader 0: index, loader 1: queries)."""
        return {"id": batch["id"], "vector": self(batch["fields"], batch["memory"])}

    def predict_step(self, batch: dict[str, Any], batch_idx: int) -> dict[str, Tensor]:
        """Song vectors, and appeal."""
        vector_ND, appeal_N = self.model.content(*self.model.embedding(batch["fields"]))
        vector_ND = self.model.finish(self.remember(vector_ND, batch["memory"]))
        return {"id": batch["id"], "vector": vector_ND, "appeal": appeal_N}

    def configure_optimizers(self) -> Any:
        """AdamW with warm-up and cosine decay; a song's memory sees few of the steps and takes larger ones."""
        p, steps = self.hparams, int(self.trainer.estimated_stepping_batches)
        scales = {"memory.": p["memory_lr_scale"]}
        return adamw(self, p["lr"], p["weight_decay"], p["warmup"], steps, scales, undecayed=("memory.",))

    def on_fit_start(self) -> None:
        """Fix the centre and scale of the dense inputs, measured on warm songs (a resumed run already has them)."""
        if self.trainer.ckpt_path is None:
            for name, (mean, scale) in self.trainer.datamodule.dense_statistics().items():  # type: ignore[attr-defined]
                self.model.embedding.standardise(name, mean, scale)
