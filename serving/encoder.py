"""What comes in with a new song → its features, its song vector, its item vector, and tags guessed from its sound.

The same models and the same steps as pipeline.embed, pipeline.index and pipeline.audience take, for songs that come one
at a time.

Shapes: N songs, C crops a song, T lines (frames or samples) of width M, W width of a feature, D vector size.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
import torch.nn.functional as F
from torch import Tensor

from data.arrays import FloatArray, IntArray
from data.audio.crops import Crops, evenly_spaced, lines_a_second
from data.audio.inputs import audio_inputs
from data.audio.recordings import lines_of, resample
from data.contract.columns import ABOUT
from data.fields import CATEGORIES, MAX_VALUES, UNKNOWN, Vocabulary
from data.text import or_user_error, read_as, song_texts, token_batch, token_rows
from export.model import load
from models.bert import frozen_text_encoder
from models.pretrained_audio import OWN, PretrainedAudio
from models.text_encoder import load_tokenizer

GUESSES = 5  # tags guessed of a song

Features = dict[str, FloatArray]  # by name, (W,) of one song or (N, W); NaN where the song lacks it
Codes = dict[str, dict[str, int]]  # of the values of each category field


class Unfit(Exception):  # noqa: N818
    """A dense field that was given is none of this model's: another came into use since it was looked at."""


@dataclass
class Content:
    """A song as it comes in: words and tags (`ABOUT`), mono samples, and dense fields that the caller made himself."""

    about: dict[str, Any]
    wave: FloatArray | None = None
    given: Features = field(default_factory=dict)
    rate: int | None = None  # Hz of the samples; None: as the model hears


class Encoder:
    """The models of a service folder (`pipeline.service`), ready to encode.

    Raises:
        UserError: a model cannot be loaded.
    """

    def __init__(self, folder: Path, manifest: dict[str, Any]) -> None:
        self.manifest, self.audio = manifest, manifest["audio"]
        self.song: Any
        self.song, config = load(folder / "i2i", check=False)
        self.song_codes = codes_of(config["vocabulary"]["songs"])
        self.widths: dict[str, int] = dict(config["model"]["dense_dims"])
        self.item: Any = None
        if manifest["boundary"]:
            self.towers: Any
            self.towers, config = load(folder / "boundary", check=False)
            self.item = self.towers.item
            self.item_codes = codes_of(config["vocabulary"]["songs"])
            self.profile_vocabulary: Vocabulary = config["vocabulary"]["users"]
            self.history: int = config["trained_with"]["model"]["history"]
            self.widths |= config["model"]["dense_dims"]
        self.clip: Any = None
        self.bert: Any = or_user_error(frozen_text_encoder, manifest["text"]["model"]) if manifest["text"] else None
        if manifest["clip"]:
            self.clip, config = load(folder / "clip", check=False)
            self.prepared = config["prepared"]
            self.labels_LD: FloatArray = np.load(folder / "labels.npy")
            self.widths |= dict.fromkeys(("clip_audio", "clip_text"), self.labels_LD.shape[1])
            model, seconds = self.prepared["audio_model"], self.prepared["crop_seconds"]
            self.inputs = audio_inputs(model, self.audio, seconds)
            frozen = model != OWN and self.prepared["frozen_audio"]
            self.ears: Any = or_user_error(PretrainedAudio, model, "audio.model").eval() if frozen else None
        self.read: Any = manifest["text"]
        if self.clip is not None and self.read is None:
            self.read = read_as(self.prepared)
        self.tokenizer = or_user_error(load_tokenizer, self.read["model"]) if self.read else None
        self.tokenizing = threading.Lock()  # it keeps in itself where it is to cut
        made = repr((manifest["clip"], manifest["text"], sorted(self.widths.items())))
        self.fingerprint = hashlib.sha256(made.encode()).hexdigest()[:16]  # of what makes the features

    @property
    def hears(self) -> bool:
        """Whether a song's sound says anything to these models."""
        return self.clip is not None

    @torch.inference_mode()
    def features(self, songs: Sequence[Content]) -> Features:
        """Dense fields of N songs, each (N, W); NaN where a song lacks one.

        Raises:
            Unfit: a given one.
        """
        found = {name: np.full((len(songs), width), np.nan, dtype=np.float32) for name, width in self.widths.items()}
        heard = [at for at, song in enumerate(songs) if song.wave is not None]
        if self.hears and heard:
            found["clip_audio"][heard] = self._hear([self._wave(songs[at]) for at in heard])
        self._read(songs, found)
        for at, song in enumerate(songs):
            for name, vector in song.given.items():
                if self.widths.get(name) != len(vector):
                    raise Unfit(name)
                found[name][at] = vector
        return found

    @torch.inference_mode()
    def vectors(self, features: Features, about: Sequence[dict[str, Any]]) -> tuple[FloatArray, FloatArray | None]:
        """Song vectors (N, D) and item vectors (N, D), the latter None without a boundary model."""
        song_ND = self.song(fields(features, about, self.song.embedding.dense_dims, self.song_codes)).numpy()
        if self.item is None:
            return song_ND, None
        of_item = fields(features, about, self.item.embedding.dense_dims, self.item_codes)
        return song_ND, self.item(of_item).numpy()

    def guess(self, features: Features) -> list[dict[str, Any]]:
        """The tags nearest to one song's sound, or to its words where there is no sound; none without a CLIP model."""
        if self.clip is None:
            return []
        known = [features[name] for name in ("clip_audio", "clip_text") if np.isfinite(features[name]).all()]
        if not known:
            return []
        score_L = self.labels_LD @ known[0]
        best = np.argsort(-score_L, kind="stable")[:GUESSES]
        return [{"label": self.manifest["labels"][at], "score": float(score_L[at])} for at in best]

    def says_nothing(self, content: Content) -> bool:
        """Whether no model would see anything of a song."""
        codes = [self.song_codes, *([self.item_codes] if self.item is not None else [])]
        if any((encode([content.about], name, of[name]) > UNKNOWN).any() for of in codes for name in of):
            return False
        return not (content.given or (self.hears and content.wave is not None) or any(self._texts([content])))

    def _hear(self, waves: Sequence[Any]) -> FloatArray:
        """clip_audio of recordings, (N, D): the mean over their crops, at length 1."""
        crops = join([self._crops(wave) for wave in waves])
        n, c = next(iter(crops.values())).shape[:2]
        rows = {name: values.flatten(0, 1) for name, values in self.inputs(crops).items()}
        if self.ears is not None:
            rows = {"pooled": self.ears(rows)}
        vector_ND = self.clip.embed_audio(rows).view(n, c, -1).mean(dim=1)
        return np.asarray(F.normalize(vector_ND, dim=-1).numpy())

    def _wave(self, song: Content) -> Any:
        """The samples of a song at the rate that the model hears."""
        own = int(self.audio["sample_rate"])
        return song.wave if song.wave is None else resample(song.wave, song.rate or own, own)

    def _crops(self, wave: FloatArray) -> Crops:
        """The evenly spaced crops of a recording, as `data.audio.crops.CropReader.fixed` cuts them, (1, C, …)."""
        logmel = self.audio["store"] == "logmel"
        lines_TM = lines_of(wave, self.audio)
        crop, count = max(1, round(self.prepared["crop_seconds"] * lines_a_second(self.audio))), self.prepared["crops"]
        offsets = evenly_spaced(np.array([len(lines_TM)]), crop, count)[0]
        crops = np.zeros((1, count, crop, lines_TM.shape[1]), dtype=lines_TM.dtype)
        real = np.minimum(len(lines_TM) - offsets, crop)
        for at, (offset, length) in enumerate(zip(offsets, real, strict=True)):
            crops[0, at, :length] = lines_TM[offset : offset + length]
        found = crops if logmel else crops[..., 0]
        names = ("logmel", "frames") if logmel else ("samples", "length")
        return dict(zip(names, (torch.from_numpy(found), torch.from_numpy(real[None])), strict=True))

    def _texts(self, songs: Sequence[Content]) -> list[str | None]:
        known = [name for name in self.read["fields"] if name in ABOUT] if self.read else []
        return song_texts(about_table([song.about for song in songs]), known) if known else [None] * len(songs)

    def _read(self, songs: Sequence[Content], found: Features) -> None:
        """text and clip_text of the songs that have words."""
        texts = self._texts(songs)
        has = [at for at, text in enumerate(texts) if text]
        if not has:
            return
        options = (self.read["model"], self.read["max_tokens"], self.read["windows"])
        with self.tokenizing:
            rows = token_rows([texts[at] for at in has], *options, self.tokenizer)
        text: dict[str, Tensor] = token_batch(*rows)
        if self.bert is not None:
            text = {"pooled": self.bert(text["input_ids"], text["attention_mask"])}
            if "text" in found:
                found["text"][has] = text["pooled"].numpy()
        if self.clip is not None:
            found["clip_text"][has] = self.clip.embed_text(text).numpy()


def about_table(about: Sequence[dict[str, Any]]) -> pl.DataFrame:
    """Words and tags of songs as a table with the columns of `ABOUT`."""
    return pl.DataFrame({name: [one.get(name) for one in about] for name in ABOUT}, schema=ABOUT)


def fields(
    features: Features, about: Sequence[dict[str, Any]], dense_dims: dict[str, int], codes: Codes
) -> dict[str, Tensor]:
    """What a song encoder takes: dense fields and category codes."""
    dense = {name: torch.from_numpy(np.asarray(features[name], dtype=np.float32)) for name in dense_dims}
    return dense | {name: torch.from_numpy(encode(about, name, of)) for name, of in codes.items()}


def codes_of(vocabulary: Vocabulary) -> Codes:
    """The code of each value, as `data.fields.encode` has it."""
    return {name: dict(zip(v, range(UNKNOWN + 1, UNKNOWN + 1 + len(v)), strict=True))
            for name, v in vocabulary.items() if name in CATEGORIES}  # fmt: skip


def encode(about: Sequence[dict[str, Any]], name: str, codes: dict[str, int]) -> IntArray:
    """`data.fields.encode` for a few songs, of which it makes no table: (N, MAX_VALUES)."""
    found: IntArray = np.zeros((len(about), MAX_VALUES), dtype=np.int64)
    for row, one in zip(found, about, strict=True):
        values = one.get(name)
        values = [values] if isinstance(values, str) else values or []
        of_song = {codes.get(value, UNKNOWN) for value in values if value is not None}
        row[: len(of_song)] = sorted(of_song, key=lambda code: (code == UNKNOWN, code))[:MAX_VALUES]
    return found


def join(crops: Sequence[Crops]) -> Crops:
    """Crops of songs as one batch."""
    return {name: torch.cat([one[name] for one in crops]) for name in crops[0]}
