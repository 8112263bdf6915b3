"""The parts of a trained model that a service calls, each as one function of named tensors (ONNX, torch.export).

    clip       audio: a crop → its vector       text: token ids → vector
    i2i        song: fields → vector
    boundary   item: fields → vector            user, boundary: profile and history → vector

Shapes: n rows of a batch; `size` of its other free axes (frames, tokens, places of a history).
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
from models.song_encoder import FieldEmbedding, SongEncoder
from models.text_encoder import TextEncoder
from models.towers import UserTower

Batch = dict[str, Tensor]
Axes = dict[str, dict[int, str]]  # input → names of its axes of free size; the others are fixed

SONGS = "songs."  # before the name of a song's field, which may be called anything: no other input begins so
ROWS = {0: "crops"}  # the free axis of every audio input
ABSENT = 0.2  # chance that a drawn value is missing
LEAST_FRAMES = 2 * SCALES[-1] + 1  # what torch.export finds out of `mel_statistics`: two stretches, and one frame
USUAL = 9  # no size of 0 or 1, which torch would hold for fixed


class Part(nn.Module):
    """One call of a model, a dict of named tensors → vectors, as a module: that is what torch.export takes.

    Args:
        modules: whose weights the call uses, and no others: they go into the program.
        call: batch → vectors (rows, D).
        axes: which axes are free.
        draw: (n, size) → a random batch, with missing values where the model knows any.
        sizes: the least `size` of a batch that every program takes, and the one that it is traced with.
    """

    def __init__(
        self,
        modules: Sequence[nn.Module | None],
        call: Callable[[Batch], Tensor],
        axes: Axes,
        draw: Callable[[int, int], Batch],
        sizes: tuple[int, int] = (1, USUAL),
    ) -> None:
        super().__init__()
        self.used = nn.ModuleList(module for module in modules if module is not None)
        self.call, self.axes, self.draw, self.sizes = call, axes, draw, sizes

    def forward(self, given: Batch) -> Tensor:
        """Vectors of a batch."""
        return self.call(given)

    def batch(self, n: int, size: int) -> Batch:
        """A random batch, the same for the same numbers."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1000 * n + size)
            drawn = self.draw(n, size)
        return {name: drawn[name] for name in self.axes}


def parts_of(model: Any, config: dict[str, Any]) -> dict[str, Part]:
    """All parts of a model, by name, from its export's config.json.

    The packaged or published BERT and musicnn of a clip model become a part of its parts where they are frozen. Other
    published audio encoders do not: a frozen one's part takes its pooled vectors.

    Raises:
        UserError: an encoder cannot be loaded.
    """
    if config["task"] == "i2i":
        return {"song": song_part(model)}
    if config["task"] == "boundary":
        return {
            "item": song_part(model.item),
            "user": user_part(model.user),
            "boundary": user_part(model.boundary),
        }
    return {"audio": audio_part(model, config), "text": text_part(model, config)}


def song_part(encoder: SongEncoder) -> Part:
    """Fields of songs → their vectors."""
    return Part(
        [encoder],
        lambda given: encoder(fields_of(given)),
        song_axes(encoder.embedding),
        lambda n, size: draw_songs(encoder.embedding, n, size),
    )


def user_part(tower: UserTower) -> Part:
    """Profiles and histories of users → their vectors, or their boundaries."""
    categories: list[Any] = list(tower.categories)
    sizes = torch.tensor([table.num_embeddings for table in categories])
    one, two = {0: "users"}, {0: "users", 1: "places"}
    axes = song_axes(tower.embedding) | {"codes": one, "numbers": one, "history": two, "mask": two, "strength": two}

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


def fields_of(given: Batch) -> Batch:
    """The fields of songs in a batch, by their own names."""
    return {name.removeprefix(SONGS): value for name, value in given.items() if name.startswith(SONGS)}


def song_axes(embedding: FieldEmbedding) -> Axes:
    """Free axes of songs' fields."""
    dense = {SONGS + name: {0: "songs"} for name in embedding.dense_dims}
    return dense | {SONGS + name: {0: "songs", 1: "values"} for name in embedding.vocab_sizes}


def draw_songs(embedding: FieldEmbedding, n: int, values: int) -> Batch:
    """Random fields of n songs, with so many category values each."""
    found = {
        SONGS + name: torch.randn(n, width).masked_fill(torch.rand(n, 1) < ABSENT, torch.nan)
        for name, width in embedding.dense_dims.items()
    }
    return found | {
        SONGS + name: torch.randint(0, size, (n, values)) * (torch.rand(n, 1) > ABSENT)
        for name, size in embedding.vocab_sizes.items()
    }


def text_part(model: Any, config: dict[str, Any]) -> Part:
    """Token ids → vectors, BERT included; in windows where the model was trained with several."""
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
    """Crops → vectors, from what the catalogue keeps of a recording; or from a frozen encoder's pooled vectors."""
    tower, call = config["model"]["audio"], model.embed_audio
    if tower["model"] == MUSICNN:
        model.audio_encoder = model.audio_encoder or or_user_error(PretrainedAudio, MUSICNN, "audio.model")
    used = [model.front, model.audio_encoder, model.audio_project]
    if model.audio_encoder is None:
        return Part(used, call, {"pooled": ROWS}, lambda n, _: {"pooled": torch.randn(n, tower["dim"])})
    if model.front is None and tower["model"] != MUSICNN:
        made = extracted(config)
        return Part(used, call, dict.fromkeys(made, ROWS), lambda n, _: draw_like(made, n))
    sizes = LEAST_FRAMES, 2 * LEAST_FRAMES
    if model.front is None:
        sizes = musicnn.WINDOW, 2 * musicnn.PATCH * musicnn.HOP  # traced with two patches
    elif config["audio"]["store"] == "logmel":
        axes, bands = {"logmel": ROWS | {1: "frames"}, "frames": ROWS}, model.front.log_mel.filters_FM.shape[1]
        return Part(used, call, axes, lambda n, size: draw_frames(n, size, bands), sizes)
    else:
        sizes = (LEAST_FRAMES - 1) * model.front.log_mel.hop_length, LEAST_FRAMES * 2 * model.front.log_mel.hop_length
    return Part(used, call, {"samples": ROWS | {1: "samples"}, "length": ROWS}, draw_samples, sizes)


def draw_frames(n: int, size: int, bands: int) -> Batch:
    """Random log-mel frames, of which a random number is real."""
    return {"logmel": torch.randn(n, size, bands), "frames": torch.randint(0, size + 1, (n,))}


def draw_samples(n: int, size: int) -> Batch:
    """White noise, of which a random number of samples is real; the rest is zero, as `data.audio.crops` has it."""
    length_N = torch.randint(size // 2, size + 1, (n,))
    noise_NL = torch.randint(-(2**14), 2**14, (n, size))
    return {"samples": (noise_NL * (torch.arange(size) < length_N[:, None])).to(torch.int16), "length": length_N}


def extracted(config: dict[str, Any]) -> Batch:
    """What the extractor of a published audio encoder makes of one crop: names, dtypes and shapes."""
    extract = or_user_error(Extractor, config["model"]["audio"]["model"], "audio.model")
    rate, seconds = config["audio"]["sample_rate"], config["prepared"]["crop_seconds"]
    samples_NL = torch.zeros(1, round(rate * seconds), dtype=torch.int16)
    return extract(samples_NL, torch.tensor([samples_NL.shape[1]]), rate)


def draw_like(made: Batch, n: int) -> Batch:
    """Random inputs of n crops: numbers, and masks of what is real."""
    shapes = {name: (n, *one.shape[1:]) for name, one in made.items()}
    masks = {name: (torch.rand(shape) > ABSENT).to(made[name]) for name, shape in shapes.items()}
    return masks | {name: torch.randn(shapes[name]) for name in made if made[name].is_floating_point()}
