"""Parts of a trained model that a service calls, each a function of named tensors for ONNX and torch.export.

    clip       audio: a crop → its vector       text: token ids → vector
    i2i        song: fields → vector
    boundary   item: fields → vector            user, boundary: profile and history → vector
    rank       score: features, fields of songs and histories of pairs → score, a vector of one number

Shapes: n rows of a batch; `size` of its other dynamic axes (frames, tokens, length of a history).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from data.text import or_user_error
from models import musicnn
from models.audio_encoder import SCALES
from models.pretrained_audio import MUSICNN, Extractor, PretrainedAudio
from models.ranker import SIGNALS, RankNetwork
from models.song_encoder import FieldEmbedding, SongEncoder
from models.text_encoder import TextEncoder
from models.towers import UserTower

Batch = dict[str, Tensor]
Axes = dict[str, dict[int, str]]  # input → names of its dynamic axes; the others are static

SONGS = "songs."  # prefix of a song's fields, whose names are arbitrary; no other input has it
ROWS = {0: "crops"}  # the dynamic axis of every audio input
ABSENT = 0.2  # probability that a drawn value is missing
MIN_FRAMES = 2 * SCALES[-1] + 1  # minimum that torch.export infers from `mel_statistics`: two segments and a frame
TRACED = 9  # size to trace with; torch specialises on 0 and 1


class Part(nn.Module):
    """A function of a model, named tensors → vectors, as a module that torch.export can trace.

    Args:
        modules: exactly those whose weights the function uses; they go into the program.
        call: batch → vectors (rows, D).
        axes: dynamic axes of each input.
        draw: (n, size) → a random batch, with missing values if the model supports them.
        sizes: the minimum `size` of a batch that every program takes, and the one to trace with.
    """

    def __init__(
        self,
        modules: Sequence[nn.Module | None],
        call: Callable[[Batch], Tensor],
        axes: Axes,
        draw: Callable[[int, int], Batch],
        sizes: tuple[int, int] = (1, TRACED),
    ) -> None:
        super().__init__()
        self.used = nn.ModuleList(module for module in modules if module is not None)
        self.call, self.axes, self.draw, self.sizes = call, axes, draw, sizes

    def forward(self, given: Batch) -> Tensor:
        """Vectors of a batch."""
        return self.call(given)

    def batch(self, n: int, size: int) -> Batch:
        """Draw a random batch, deterministic in (n, size)."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1000 * n + size)
            drawn = self.draw(n, size)
        return {name: drawn[name] for name in self.axes}


def parts_of(model: Any, config: dict[str, Any]) -> dict[str, Part]:
    """Build all parts of a model, by name, from its export's config.json.

    A clip model's frozen text encoder and musicnn are loaded into its parts. Other frozen audio encoders are not: their
    part takes pooled vectors.

    Raises:
        UserError: an encoder cannot be loaded.
    """
    if config["task"] == "i2i":
        return {"song": song_part(model)}
    if config["task"] == "rank":
        return {"score": score_part(model)}
    if config["task"] == "boundary":
        return {
            "item": song_part(model.item),
            "user": user_part(model.user),
            "boundary": user_part(model.boundary),
        }
    return {"audio": audio_part(model, config), "text": text_part(model, config)}


def song_part(encoder: SongEncoder) -> Part:
    """Part: fields of songs → their vectors."""
    return Part(
        [encoder],
        lambda given: encoder(fields_of(given)),
        song_axes(encoder.embedding),
        lambda n, size: draw_songs(encoder.embedding, n, size),
    )


def user_part(tower: UserTower) -> Part:
    """Part: profiles and histories of users → their vectors or boundaries."""
    categories: list[Any] = list(tower.categories)
    sizes = torch.tensor([table.num_embeddings for table in categories])
    rows, histories = {0: "users"}, {0: "users", 1: "places"}
    axes = song_axes(tower.embedding) | {"codes": rows, "numbers": rows}
    axes |= {"history": histories, "mask": histories, "strength": histories}

    def draw(n: int, size: int) -> Batch:
        numbers_NK = torch.randn(n, tower.get_buffer("number_mean").shape[0])
        mask_NT = torch.rand(n, size) > ABSENT
        mask_NT[1:2] = False  # the second user has no history
        return draw_songs(tower.embedding, size + 2, n + 1) | {
            "codes": (torch.rand(n, len(sizes)) * sizes).long(),
            "numbers": numbers_NK.masked_fill(torch.rand_like(numbers_NK) < ABSENT, torch.nan),
            "history": torch.randint(0, size + 2, (n, size)),
            "mask": mask_NT,
            "strength": torch.randint(-1, 4, (n, size)).float(),
        }

    def call(given: Batch) -> Tensor:
        user = {name: value for name, value in given.items() if not name.startswith(SONGS)}
        vectors: Tensor = tower(user | {"songs": fields_of(given)})
        return vectors

    return Part([tower], call, axes, draw)


def score_part(network: RankNetwork) -> Part:
    """Part: pairs of a new song and a user → their scores."""
    sizes = torch.tensor([table.num_embeddings for table in network.codes if isinstance(table, torch.nn.Embedding)])
    pairs, histories = {0: "pairs"}, {0: "users", 1: "places"}
    axes = song_axes(network.embedding) | {"new": {0: "new_songs"}}
    axes |= dict.fromkeys(("history", "mask", "signal"), histories)
    axes |= dict.fromkeys(("numbers", *(["codes"] if len(sizes) else []), "song", "row"), pairs)

    def draw(n: int, size: int) -> Batch:
        songs, new, users = size + 3, n + 1, n + 2
        numbers_NF = torch.randn(n, len(network.number_mean))
        mask_RT = torch.rand(users, size) > ABSENT
        mask_RT[1:2] = False  # the second user has no history
        return draw_songs(network.embedding, songs, n + 1) | {
            "numbers": numbers_NF.masked_fill(torch.rand_like(numbers_NF) < ABSENT, torch.nan),
            "codes": (torch.rand(n, len(sizes)) * sizes).long(),
            "new": torch.randint(0, songs, (new,)),
            "song": torch.randint(0, new, (n,)),
            "row": torch.randint(0, users, (n,)),
            "history": torch.randint(0, songs, (users, size)),
            "mask": mask_RT,
            "signal": torch.randint(0, SIGNALS, (users, size)),
        }

    def call(given: Batch) -> Tensor:
        pairs = {name: value for name, value in given.items() if not name.startswith(SONGS)}
        return network.score(pairs | {"songs": fields_of(given)}).unsqueeze(1)

    return Part([network], call, axes, draw)


def fields_of(given: Batch) -> Batch:
    """Select the fields of songs from a batch, without their prefix."""
    return {name.removeprefix(SONGS): value for name, value in given.items() if name.startswith(SONGS)}


def song_axes(embedding: FieldEmbedding) -> Axes:
    """Dynamic axes of songs' fields."""
    dense = {SONGS + name: {0: "songs"} for name in embedding.dense_dims}
    return dense | {SONGS + name: {0: "songs", 1: "values"} for name in embedding.vocab_sizes}


def draw_songs(embedding: FieldEmbedding, n: int, values: int) -> Batch:
    """Draw random fields of n songs, with `values` category values each."""
    dense = {
        SONGS + name: torch.randn(n, width).masked_fill(torch.rand(n, 1) < ABSENT, torch.nan)
        for name, width in embedding.dense_dims.items()
    }
    return dense | {
        SONGS + name: torch.randint(0, size, (n, values)) * (torch.rand(n, 1) > ABSENT)
        for name, size in embedding.vocab_sizes.items()
    }


def text_part(model: Any, config: dict[str, Any]) -> Part:
    """Part: token ids → vectors, BERT included; in windows if the model was trained with several."""
    model.text_encoder = model.text_encoder or or_user_error(TextEncoder, config["model"]["text"]["model"])
    words, windows = model.text_encoder.bert.config.vocab_size, config["prepared"].get("windows", 1)
    free = {0: "texts", 1 if windows == 1 else 2: "tokens"}

    def draw(n: int, size: int) -> Batch:
        shape = (n, size) if windows == 1 else (n, windows, size)
        mask = (torch.rand(shape) > ABSENT).long()
        mask[1:2] = 0  # the second text is empty
        return {"input_ids": torch.randint(0, words, shape), "attention_mask": mask}

    modules = [model.text_encoder, model.text_project]
    return Part(modules, model.embed_text, {"input_ids": free, "attention_mask": free}, draw)


def audio_part(model: Any, config: dict[str, Any]) -> Part:
    """Part: crops as the catalogue stores them, or a frozen encoder's pooled vectors → vectors."""
    tower, call = config["model"]["audio"], model.embed_audio
    if tower["model"] == MUSICNN:
        model.audio_encoder = model.audio_encoder or or_user_error(PretrainedAudio, MUSICNN, "audio.model")
    used = [model.front, model.audio_encoder, model.audio_project]
    if model.audio_encoder is None:
        return Part(used, call, {"pooled": ROWS}, lambda n, _: {"pooled": torch.randn(n, tower["dim"])})
    if model.front is None and tower["model"] != MUSICNN:
        example = extracted(config)
        return Part(used, call, dict.fromkeys(example, ROWS), lambda n, _: draw_like(example, n))
    sizes = MIN_FRAMES, 2 * MIN_FRAMES
    if model.front is None:
        sizes = musicnn.WINDOW, 2 * musicnn.PATCH * musicnn.HOP  # traced with two patches
    elif config["audio"]["store"] == "logmel":
        axes, bands = {"logmel": ROWS | {1: "frames"}, "frames": ROWS}, model.front.log_mel.filters_FM.shape[1]
        return Part(used, call, axes, lambda n, size: draw_frames(n, size, bands), sizes)
    else:
        sizes = (MIN_FRAMES - 1) * model.front.log_mel.hop_length, MIN_FRAMES * 2 * model.front.log_mel.hop_length
    return Part(used, call, {"samples": ROWS | {1: "samples"}, "length": ROWS}, draw_samples, sizes)


def draw_frames(n: int, size: int, bands: int) -> Batch:
    """Draw random log-mel frames, a random number of them real."""
    return {"logmel": torch.randn(n, size, bands), "frames": torch.randint(0, size + 1, (n,))}


def draw_samples(n: int, size: int) -> Batch:
    """Draw white noise of random length, zero-padded as by `data.audio.crops`."""
    length_N = torch.randint(size // 2, size + 1, (n,))
    noise_NL = torch.randint(-(2**14), 2**14, (n, size))
    return {"samples": (noise_NL * (torch.arange(size) < length_N[:, None])).to(torch.int16), "length": length_N}


def extracted(config: dict[str, Any]) -> Batch:
    """Extractor output of a published audio encoder for one crop, for names, dtypes and shapes."""
    extract = or_user_error(Extractor, config["model"]["audio"]["model"], "audio.model")
    rate, seconds = config["audio"]["sample_rate"], config["prepared"]["crop_seconds"]
    samples_NL = torch.zeros(1, round(rate * seconds), dtype=torch.int16)
    return extract(samples_NL, torch.tensor([samples_NL.shape[1]]), rate)


def draw_like(example: Batch, n: int) -> Batch:
    """Draw random inputs of n crops: floats, and masks of real positions."""
    shapes = {name: (n, *value.shape[1:]) for name, value in example.items()}
    masks = {name: (torch.rand(shape) > ABSENT).to(example[name]) for name, shape in shapes.items()}
    return masks | {name: torch.randn(shapes[name]) for name in example if example[name].is_floating_point()}
