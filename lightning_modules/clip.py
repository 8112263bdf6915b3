"""CLIP pretraining as a LightningModule: model, objective and optimiser wired together, nothing else.

Shapes: N songs of this rank, G of all ranks, C crops a song, T frames, M mel bands, D size of the shared space.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import lightning as L
import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_modules.optim import adamw
from models.audio_encoder import spec_augment
from models.chunked import embed_in_chunks, embed_in_fixed_batches
from models.clip import ClipModel
from objectives.contrastive import clip_loss, siglip_loss
from objectives.gather import gather_with_grad

Batch = dict[str, Any]


class ClipModule(L.LightningModule):
    """Audio and text towers under a contrastive loss over the global batch (`datamodules.songs.SongDataModule`).

    The arguments from `sample_rate` to `crops` are not used here: they are kept as hyper-parameters, so that a
    checkpoint says how its audio and text have to be prepared.
    """

    def __init__(
        self,
        n_mels: int,
        text_dim: int,
        sample_rate: int,
        win_length: int,
        hop_length: int,
        text_fields: Sequence[str] = ("title", "lyrics"),
        max_tokens: int = 128,
        windows: int = 1,
        crop_seconds: float = 4.0,
        crops: int = 3,
        text_model: str = "minilm",
        frozen_text: bool = True,
        last_layers: int = 0,
        lora_rank: int = 0,
        dim: int = 128,
        width: int = 128,
        layers: int = 4,
        heads: int = 4,
        dropout: float = 0.1,
        temperature: float = 0.07,
        loss: str = "infonce",
        micro_batch: int = 0,
        freq_mask: int = 8,
        time_mask: int = 20,
        lr: float = 1e-3,
        weight_decay: float = 0.01,
        warmup: float = 0.05,
        text_lr_scale: float = 0.1,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        text = (text_model, frozen_text, loss == "siglip", last_layers, lora_rank)
        self.model = ClipModel(n_mels, text_dim, dim, width, layers, heads, dropout, temperature, *text)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The loss of the global batch; songs of the same id or text are no negatives of each other."""
        masks = self.hparams["freq_mask"], self.hparams["time_mask"]
        crops = {"logmel": spec_augment(batch["logmel"].float(), batch["frames"], *masks), "frames": batch["frames"]}
        audio_GD = gather_with_grad(embed_in_chunks(self._audio, crops, self.hparams["micro_batch"]))
        text_GD = gather_with_grad(embed_in_chunks(self._text, text_rows(batch), self.hparams["micro_batch"]))
        same = [gather_with_grad(batch[name]) for name in ("id", "text_id", "shown_id")]
        same_GG = torch.stack([one_G[:, None] == one_G for one_G in same]).any(dim=0)
        present = [gather_with_grad(batch[name].long()) for name in ("has_audio", "has_text")]
        scale = self.model.logit_scale()
        pairs, bias = (audio_GD, text_GD, scale), self.model.logit_bias
        loss = clip_loss(*pairs, same_GG, *present) if bias is None else siglip_loss(*pairs, bias, same_GG, *present)
        told = {"train/loss": loss, "train/temperature": 1 / scale.detach()}
        self.log_dict(told, prog_bar=True, batch_size=len(audio_GD))
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
        """AdamW with warm-up and cosine decay; BERT, when it is trained, at its own rate."""
        h, steps = self.hparams, self.trainer.estimated_stepping_batches
        return adamw(self, h["lr"], h["weight_decay"], h["warmup"], steps, {"model.text_encoder": h["text_lr_scale"]})

    def _embed_crops(self, batch: Batch) -> Tensor:
        """Unit vectors (N, D): the mean over a song's crops (N, C, T, M)."""
        n, c = batch["frames"].shape
        crops = {"logmel": batch["logmel"].flatten(0, 1), "frames": batch["frames"].flatten()}
        vector_RD = embed_in_fixed_batches(self._audio, crops)
        return F.normalize(vector_RD.view(n, c, -1).mean(dim=1), dim=-1)

    def _embed_text(self, batch: Batch) -> Tensor:
        return embed_in_fixed_batches(self._text, text_rows(batch))

    def _audio(self, rows: Batch) -> Tensor:
        return self.model.embed_audio(rows["logmel"], rows["frames"])

    def _text(self, rows: Batch) -> Tensor:
        return self.model.embed_text(rows.get("pooled", rows))


def text_rows(batch: Batch) -> Batch:
    """Token ids and masks, or pooled vectors, by name."""
    return batch["text"] if isinstance(batch["text"], dict) else {"pooled": batch["text"]}
