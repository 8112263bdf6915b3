"""Published audio encoders as the audio tower: feature extraction from samples, and one vector a crop.

Shapes: N crops, L samples, I positions of an extractor's output, S tokens, W the encoder's width.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from models import musicnn
from models.audio_front import FULL_SCALE
from models.audio_functions import functional
from models.pretrained import Published, load_pretrained

KIND = "audio model"
OWN, MUSICNN = "transformer", "musicnn"  # not loaded through transformers
INPUTS = ("input_values", "input_features", "attention_mask", "is_longer")  # inputs of the encoders of transformers
SHORTEST = 0.1  # seconds: extractors need at least one window

Inputs = dict[str, Tensor]


class PretrainedAudio(Published):
    """`musicnn`, or any audio `AutoModel` (wav2vec 2.0, HuBERT, AST, Whisper's encoder, CLAP's audio tower): (N, W).

    With an `attention_mask` from the extractor, real tokens are averaged; otherwise the encoder's pooled output is
    used, or the mean of all tokens.
    """

    def load(self, model: str) -> Any:
        """Load musicnn, or the encoder of a model of transformers."""
        self.encoder: Any = musicnn.load_musicnn() if model == MUSICNN else load_encoder(model)
        return self.encoder

    def forward(self, crops: Inputs) -> Tensor:
        """Vectors (N, W) from the output of `Extractor` for N crops."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            if "samples" in crops:
                vector_NW: Tensor = self.encoder(crops["samples"].float() / FULL_SCALE, crops["length"])
                return vector_NW
            output = self.encoder(**crops)
            tokens_NSW, pooled_NW = output.last_hidden_state, getattr(output, "pooler_output", None)
            if "attention_mask" not in crops:
                return tokens_NSW.mean(dim=1) if pooled_NW is None else pooled_NW
            real_NS = token_mask(crops["attention_mask"], tokens_NSW.shape[1]).to(tokens_NSW.dtype)
            return torch.einsum("nsw,ns->nw", tokens_NSW, real_NS) / real_NS.sum(dim=1, keepdim=True)


def load_encoder(model: str) -> Any:
    """Load the audio encoder of a published model, without a text tower or a decoder."""
    whole = load_pretrained("AutoModel", model, KIND)
    if getattr(whole.config, "is_encoder_decoder", False):
        whole = whole.get_encoder()
    encoder = getattr(whole, "audio_model", whole)  # CLAP has a text tower too
    # DDP stops at weights without a gradient: those of layers dropped at random (LayerDrop, each rank another one), and
    # the mask embedding of the model's own pretraining.
    for name in ("layerdrop", "encoder_layerdrop"):
        if hasattr(encoder.config, name):
            setattr(encoder.config, name, 0.0)
        if isinstance(getattr(encoder, "layerdrop", None), float):
            encoder.layerdrop = 0.0
    if getattr(encoder, "masked_spec_embed", None) is not None:
        encoder.masked_spec_embed.requires_grad_(False)
        encoder.config.apply_spec_augment = False
    return encoder


class Extractor:
    """Samples → inputs of the `PretrainedAudio` of the same name, in one shape for all crops; runs on the CPU.

    Raises:
        ValueError: the extractor cannot be loaded.
    """

    def __init__(self, model: str) -> None:
        self.extract: Any = None if model == MUSICNN else load_pretrained("AutoFeatureExtractor", model, KIND)
        self.sample_rate = musicnn.RATE if self.extract is None else int(self.extract.sampling_rate)

    def longest_seconds(self) -> float:
        """Longest crop that the encoder takes whole, in seconds; infinity without a limit."""
        samples = getattr(self.extract, "n_samples", None) or getattr(self.extract, "nb_max_samples", None)
        if samples is not None:
            return float(samples / self.sample_rate)
        frames = getattr(self.extract, "max_length", None)  # AST: frames of 10 ms, the last window 25 ms long
        return float("inf") if frames is None else (10 * frames + 15) / 1000

    def __call__(self, samples_NL: Tensor, length_N: Tensor, sample_rate: int) -> Inputs:
        """Inputs of N int16 crops at `sample_rate` Hz, of which the first `length_N` samples are real."""
        if self.extract is None and sample_rate == self.sample_rate:
            return {"samples": samples_NL, "length": length_N}
        wave_NL = samples_NL.float() / FULL_SCALE
        if sample_rate != self.sample_rate:
            wave_NL = functional.resample(wave_NL, sample_rate, self.sample_rate)
        longest = wave_NL.shape[1]
        real_N = length_N * longest // samples_NL.shape[1]
        if self.extract is None:
            samples_NL = (wave_NL * FULL_SCALE).round().clamp(-FULL_SCALE, FULL_SCALE - 1).to(torch.int16)
            return {"samples": samples_NL, "length": real_N}
        options: dict[str, Any] = {"sampling_rate": self.sample_rate, "return_tensors": "pt"}
        if getattr(self.extract, "return_attention_mask", None) is not None:
            options |= {"return_attention_mask": True}
        if self.longest_seconds() == float("inf"):  # the others pad to their own length
            options |= {"padding": "max_length", "max_length": longest}
        shortest = min(round(SHORTEST * self.sample_rate), longest)
        waves = [wave_L[: max(n, shortest)].numpy() for wave_L, n in zip(wave_NL, real_N.tolist(), strict=True)]
        extracted = self.extract(waves, **options)
        return {name: extracted[name] for name in INPUTS if name in extracted}


def token_mask(mask_NI: Tensor, tokens: int) -> Tensor:
    """Resample a mask of I positions to S tokens, spread evenly over them; the first token is always True."""
    mask_NS = F.interpolate(mask_NI[:, None].float(), size=tokens, mode="nearest")[:, 0] > 0
    return mask_NS | (torch.arange(tokens, device=mask_NI.device) == 0)


@cache
def audio_width(model: str) -> int:
    """Size of a model's vector, from its configuration alone.

    Raises:
        ValueError: the configuration cannot be loaded.
    """
    if model == MUSICNN:
        return musicnn.WIDTH
    config = load_pretrained("AutoConfig", model, KIND)
    return int(getattr(config, "audio_config", config).hidden_size)
