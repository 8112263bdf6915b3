"""CLIP for audio and text: two encoders, two projections into one space and a learnable temperature.

Shapes: N songs, T frames, M mel bands, L samples or tokens, B width of pooled vectors, D size of the shared space.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.audio_encoder import AudioEncoder
from models.audio_front import AudioFront
from models.pretrained_audio import OWN, PretrainedAudio
from models.text_encoder import TextEncoder

MAX_LOGIT_SCALE = 100.0

Rows = dict[str, Tensor]


class ClipModel(nn.Module):
    """CLIP (Radford et al., arXiv 2103.00020) with audio for images; the article's multimodal pretraining (Q1).

    A frozen published encoder is part neither of this module nor of its checkpoint: the model then takes its pooled
    vectors, which are computed once (`data.text`, `data.audio.inputs`).

    Args:
        front: sample_rate, n_mels, win_length, hop_length and augmentation (`AudioFront`), for our own Transformer.
        audio: `model`, "transformer" with `width`, `layers`, `heads`, or the name of a published encoder with `frozen`,
            `last_layers`, `lora_rank` (`PretrainedAudio`) and `dim`, its width; both also `recompute`.
        text: `model`, `frozen`, `last_layers`, `lora_rank`, `recompute` (`TextEncoder`) and `dim`, its width.
        dim: D.
        dropout: in our Transformer and in the projections.
        temperature: initial value.
        sigmoid: add a logit bias, for the sigmoid loss.

    Raises:
        ValueError: an encoder cannot be built from its options.
    """

    def __init__(
        self,
        front: dict[str, Any],
        audio: dict[str, Any],
        text: dict[str, Any],
        dim: int,
        dropout: float,
        temperature: float,
        sigmoid: bool = False,
    ) -> None:
        super().__init__()
        audio, text = dict(audio), dict(text)
        audio_dim, text_dim = audio.pop("dim"), text.pop("dim")
        own = {name: audio.pop(name) for name in ("width", "layers", "heads") if name in audio}
        self.front: AudioFront | None = None
        self.audio_encoder: AudioEncoder | PretrainedAudio | None = None
        if audio["model"] == OWN:
            self.front = AudioFront(**front)
            self.audio_encoder = AudioEncoder(
                front["n_mels"], dropout=dropout, recompute=audio.get("recompute", False), **own
            )
            self.audio_project: nn.Module = nn.Linear(own["width"], dim)
        else:
            self.audio_encoder = None if audio.get("frozen", True) else PretrainedAudio(**audio)
            self.audio_project = projection(audio_dim, dim, dropout)
        self.text_encoder = None if text.get("frozen", True) else TextEncoder(**text)
        self.text_project = projection(text_dim, dim, dropout)
        self.log_scale = nn.Parameter(torch.tensor([-math.log(temperature)]))  # one axis: a scalar cannot be sharded
        # Only N of N² pairs match, so the sigmoid loss starts with all pairs improbable (arXiv 2303.15343, §3.2).
        self.bias = nn.Parameter(torch.tensor([-10.0])) if sigmoid else None

    def logit_scale(self) -> Tensor:
        """1 / temperature, at most 100.

        The parameter itself is clamped in place: beyond the clamp of a copy its gradient would be zero for good.
        """
        with torch.no_grad():
            self.log_scale.clamp_(max=math.log(MAX_LOGIT_SCALE))
        return self.log_scale.exp()[0]

    def logit_bias(self) -> Tensor | None:
        """Bias that the sigmoid loss adds to every logit; None without `sigmoid`."""
        return None if self.bias is None else self.bias[0]

    def embed_audio(self, crops: Rows) -> Tensor:
        """Unit vectors of single crops, (N, D).

        Crops are {"logmel", "frames"} or {"samples", "length"} (`AudioFront`); for a published encoder {"pooled"} if it
        is frozen, else the output of its `Extractor`.
        """
        if "pooled" in crops:
            pooled_NB = crops["pooled"]
        elif self.audio_encoder is None:
            raise ValueError("this model's audio encoder is frozen and not part of it: give its pooled vectors")
        else:
            pooled_NB = self.audio_encoder(*self.front(crops)) if self.front is not None else self.audio_encoder(crops)
        return F.normalize(self.audio_project(pooled_NB).float(), dim=-1)

    def embed_text(self, text: Rows) -> Tensor:
        """Unit vectors of texts, (N, D), from {"pooled"} (N, B) or {"input_ids", "attention_mask"} (N, W, L)."""
        if "pooled" in text:
            pooled_NB = text["pooled"]
        elif self.text_encoder is None:
            raise ValueError("this model's BERT is frozen and not part of it: give pooled vectors, not tokens")
        else:
            pooled_NB = self.text_encoder(text["input_ids"], text["attention_mask"])
        return F.normalize(self.text_project(pooled_NB).float(), dim=-1)


def projection(width: int, dim: int, dropout: float) -> nn.Module:
    """MLP from the pooled vectors of a published encoder to the shared space."""
    return nn.Sequential(
        nn.LayerNorm(width), nn.Linear(width, 2 * dim), nn.GELU(), nn.Dropout(dropout), nn.Linear(2 * dim, dim)
    )
