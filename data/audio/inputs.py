"""Turn crops into an audio tower's inputs, or into the vectors of a frozen audio encoder."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from configs.errors import UserError
from data.audio.crops import CropReader, Crops
from data.audio.vectors import Encode, RecordingVectors
from data.row_shards import ALONE, Ranks
from data.text import folder_state, or_user_error
from models.chunked import embed_crops, embed_in_fixed_batches
from models.pretrained_audio import OWN, Extractor, PretrainedAudio, audio_width

HEARD = ("sample_rate", "max_seconds")  # what of audio.* decides how samples are read

Inputs = Callable[[Crops], Crops]


def audio_dim(model: str) -> int:
    """Width of the vectors of a published audio encoder; 0 for our own Transformer, whose width is an option.

    Raises:
        UserError: it cannot be loaded.
    """
    return 0 if model == OWN else or_user_error(audio_width, model, "audio.model")


def audio_inputs(model: str, audio: dict[str, Any], crop_seconds: float) -> Inputs:
    """The function from a catalogue's crops, (N, …) or (N, C, …), to the inputs of an audio tower.

    Raises:
        UserError: a published encoder without samples, or with crops longer than it can hear, or that cannot be loaded.
    """
    if model == OWN:
        return dict  # takes the crops as they are
    if audio["store"] == "logmel":
        raise UserError(
            f"audio.model={model} makes its own frames from samples: prepare the catalogue with audio.store=samples"
        )
    extract = or_user_error(Extractor, model, "audio.model")
    if crop_seconds > extract.longest_seconds():
        raise UserError(
            f"model.crop_seconds={crop_seconds:g}: {model} hears at most {extract.longest_seconds():g} s at once"
        )
    return partial(from_samples, extract, int(audio["sample_rate"]))


def from_samples(extract: Extractor, sample_rate: int, crops: Crops) -> Crops:
    """A published encoder's inputs of crops of samples, in the shape (N,) or (N, C) that `length` has."""
    shape = crops["length"].shape
    made = extract(crops["samples"].flatten(0, -2), crops["length"].flatten(), sample_rate)
    return {name: values.view(*shape, *values.shape[1:]) for name, values in made.items()}


class FrozenAudio(RecordingVectors):
    """Vectors of the fixed crops under a frozen published encoder, the same in any batch to the last bit on a CPU.

    Raises:
        UserError: the encoder cannot be loaded, or the files cannot be written.
    """

    def __init__(self, reader: CropReader, model: str, inputs: Inputs, catalogue: Path, ranks: Ranks = ALONE) -> None:
        state = folder_state(model)
        what = ("" if state else model, state, reader.crop, reader.crops, *(reader.audio[name] for name in HEARD))
        encoder = partial(frozen_encoder, model, inputs)
        super().__init__(reader, audio_dim(model), what, encoder, catalogue, ranks=ranks)


def frozen_encoder(model: str, inputs: Inputs) -> Encode:
    """The function from crops to a published encoder's vectors of them."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    encoder = PretrainedAudio(model).to(device)

    def encode(crops: Crops) -> Tensor:
        given = {name: values.to(device) for name, values in inputs(crops).items()}
        return embed_crops(partial(embed_in_fixed_batches, encoder), given)

    return encode
