"""Audio and text in one space (CLIP): two towers, two projections and a learnable temperature.

Shapes: N songs, C crops a song, T frames, M mel bands, B BERT's width, L tokens, D size of the shared space.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.audio_encoder import AudioEncoder
from models.text_encoder import TextEncoder

MAX_LOGIT_SCALE = 100.0

Text = Tensor | dict[str, Tensor]


class ClipModel(nn.Module):
    """Radford et al. (arXiv 2103.00020) with log-mel audio for images; the article's multimodal pretraining (Q1).

    A frozen BERT is no part of this module nor of its checkpoint: `embed_text` then takes its pooled vectors (N, B),
    computed once (`datamodules.text`). With `frozen_text=False` BERT is a sub-module and `embed_text` takes token ids.
    """

    def __init__(
        self,
        n_mels: int,
        text_dim: int,
        dim: int = 128,
        width: int = 128,
        layers: int = 4,
        heads: int = 4,
        dropout: float = 0.1,
        temperature: float = 0.07,
        text_model: str = "minilm",
        frozen_text: bool = True,
        sigmoid: bool = False,
        last_layers: int = 0,
        lora_rank: int = 0,
    ) -> None:
        super().__init__()
        if temperature <= 0:
            raise ValueError(f"temperature must be positive, got {temperature}")
        if frozen_text and (last_layers or lora_rank):
            raise ValueError(f"last_layers={last_layers}, lora_rank={lora_rank}: a frozen BERT is not trained")
        self.audio_encoder = AudioEncoder(n_mels, width, layers, heads, dropout)
        self.audio_project = nn.Linear(width, dim)
        self.text_encoder = None if frozen_text else TextEncoder(text_model, False, last_layers, lora_rank)
        self.text_project = nn.Sequential(
            nn.LayerNorm(text_dim),
            nn.Linear(text_dim, 2 * dim),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(2 * dim, dim),
        )
        self.log_scale = nn.Parameter(torch.tensor(-math.log(temperature)))
        # Of N² pairs N match: the sigmoid loss starts out with all pairs improbable (arXiv 2303.15343, §3.2).
        self.logit_bias = nn.Parameter(torch.tensor(-10.0)) if sigmoid else None

    def logit_scale(self) -> Tensor:
        """1 / temperature, at most 100.

        The parameter itself is brought back: clamping its value alone would leave it without gradient, stuck for good.
        """
        with torch.no_grad():
            self.log_scale.clamp_(max=math.log(MAX_LOGIT_SCALE))
        return self.log_scale.exp()

    def embed_audio(self, logmel_NTM: Tensor, frames_N: Tensor) -> Tensor:
        """Unit vectors of single crops, (N, D)."""
        return F.normalize(self.audio_project(self.audio_encoder(logmel_NTM, frames_N)).float(), dim=-1)

    def embed_text(self, text: Text) -> Tensor:
        """Unit vectors of texts, (N, D), from pooled vectors (N, B) or from {"input_ids", "attention_mask"} (N, L)."""
        if isinstance(text, Tensor):
            pooled_NB = text
        elif self.text_encoder is None:
            raise ValueError("this model's BERT is frozen and not part of it: give pooled vectors, not tokens")
        else:
            pooled_NB = self.text_encoder(text["input_ids"], text["attention_mask"])
        return F.normalize(self.text_project(pooled_NB).float(), dim=-1)
