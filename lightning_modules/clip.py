"""CLIP pretraining as a LightningModule: model, objective and optimiser wired together, nothing else.

Shapes: N songs of this rank, G of all ranks, C crops a song, D size of the shared space.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import lightning as L
import torch
from torch import Tensor, nn
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

from lightning_modules.optim import adamw
from models.chunked import embed_in_chunks, embed_in_fixed_batches, embed_recordings
from models.clip import ClipModel
from objectives.contrastive import clip_loss, siglip_loss
from objectives.gather import gather_with_grad

Batch = dict[str, Any]
USES_WEIGHTS = ("embed_audio", "embed_text", "logit_scale", "logit_bias")


class ClipModule(L.LightningModule):
    """Audio and text towers under a contrastive loss over the global batch (`datamodules.clip.ClipDataModule`).

    Args:
        model: arguments of `models.clip.ClipModel`; one that is `sigmoid` has the pairwise loss.
        prepared: how audio and text have to be prepared for it. Not used here: kept as a hyper-parameter, so that a
            checkpoint says so.
        compiled: the encoders' blocks go through torch.compile.
        options: `micro_batch`, songs embedded at a time (0: all); `lr`, times `text_lr_scale` for BERT and
            `audio_lr_scale` for a published audio encoder; `weight_decay`, `warmup`.
    """

    def __init__(
        self, model: dict[str, Any], prepared: dict[str, Any], compiled: bool = False, **options: float
    ) -> None:
        super().__init__()
        self.save_hyperparameters(ignore="compiled")
        self.compiled = compiled
        self.model = ClipModel(**model)

    def configure_model(self) -> None:
        """Before training: compile; under trainer.strategy=fsdp divide weights, gradients and optimiser state.

        A rank gathers a block when it is about to run and lets go of it after (Zhao et al., arXiv 2304.11277; torch's
        FSDP2).
        """
        if self.compiled:
            compile_blocks(self.model)
        if self.device_mesh is not None:
            for part in (*blocks_of(self.model), self.model):
                fully_shard(part, mesh=self.device_mesh["data_parallel"])
            for name in USES_WEIGHTS:
                register_fsdp_forward_method(self.model, name)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The loss of the global batch; songs of the same id or text are no negatives of each other."""
        size = self.hparams["micro_batch"]
        audio_GD = gather_with_grad(embed_in_chunks(self.model.embed_audio, batch["audio"], size))
        text_GD = gather_with_grad(embed_in_chunks(self.model.embed_text, batch["text"], size))
        same = [gather_with_grad(batch[name]) for name in ("id", "text_id", "shown_id")]
        same_GG = torch.stack([one_G[:, None] == one_G for one_G in same]).any(dim=0)
        present = [gather_with_grad(batch[name].long()) for name in ("has_audio", "has_text")]
        scale, bias = self.model.logit_scale(), self.model.logit_bias()
        pairs = (audio_GD, text_GD, scale)
        loss = clip_loss(*pairs, same_GG, *present) if bias is None else siglip_loss(*pairs, bias, same_GG, *present)
        figures = {"train/loss": loss, "train/temperature": 1 / scale.detach()}
        self.log_dict(figures, prog_bar=True, batch_size=len(audio_GD))
        return loss

    def validation_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> Batch:
        """Vectors of the songs' audio (dataloader 0, to be found) or text (dataloader 1, the queries)."""
        vector_ND = self._embed_crops(batch) if dataloader_idx == 0 else self._embed_text(batch)
        return {"id": batch["id"], "vector": vector_ND}

    def predict_step(self, batch: Batch, batch_idx: int) -> Batch:
        """`clip_audio` and `clip_text` of every song, (N, D); NaN where the song lacks the modality."""
        audio_ND = self._embed_crops(batch).masked_fill(~batch["has_audio"][:, None], torch.nan)
        text_ND = self._embed_text(batch).masked_fill(~batch["has_text"][:, None], torch.nan)
        return {"id": batch["id"], "clip_audio": audio_ND, "clip_text": text_ND}

    def configure_optimizers(self) -> Any:
        """AdamW with warm-up and cosine decay; published encoders, when they are trained, at their own rates."""
        scales = {"model.text_encoder": self.hparams["text_lr_scale"]}
        if self.model.front is None:
            scales |= {"model.audio_encoder": self.hparams["audio_lr_scale"]}
        return adamw(self, scales)

    def _embed_crops(self, batch: Batch) -> Tensor:
        return embed_recordings(partial(embed_in_fixed_batches, self.model.embed_audio), batch["audio"])

    def _embed_text(self, batch: Batch) -> Tensor:
        return embed_in_fixed_batches(self.model.embed_text, batch["text"])


def blocks_of(model: nn.Module) -> list[nn.Module]:
    """The layers of each stack (`nn.ModuleList`) in a model, ours and those of published encoders."""
    return [block for stack in model.modules() if isinstance(stack, nn.ModuleList) for block in stack]


def compile_blocks(model: nn.Module) -> None:
    """Let torch.compile fuse each block when it first runs; blocks of one kind share code, names stay as they are."""
    for block in blocks_of(model):
        block.compile()
