"""Encode new songs: their features, song vectors and item vectors, and tags guessed from their sound.

The models of a service folder, and the functions by which pipeline.embed, pipeline.index and pipeline.audience encode a
whole catalogue.

Shapes: N songs, W width of a feature, D vector size.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from configs.embedding import TFIDF
from configs.errors import UserError
from data.arrays import AnyArray, FloatArray
from data.audio.crops import fixed_crops
from data.audio.inputs import audio_inputs
from data.audio.recordings import resample, to_steps
from data.audio.statistics import recording_statistics
from data.catalogue import AUDIO_STATS
from data.contract.columns import ABOUT
from data.derived_fields import DERIVED
from data.fields import CATEGORIES, UNKNOWN, Codes, Vocabulary, codes_of, value_codes
from data.simple_songs import Values, texts_of, values_of
from data.text import or_user_error, read_as, token_batch, token_rows
from data.tfidf import CharacterTfidf, load_tfidf
from export.model import load
from models.chunked import embed_crops, embed_recordings
from models.packaged import resolve_model
from models.packed_bert import packed
from models.pretrained_audio import OWN, PretrainedAudio
from models.processor import has_bfloat16
from models.text_encoder import TextEncoder, load_tokenizer
from retrieval.queries import centred, word_vectors
from serving.refusals import Refused

GUESSES = 5  # tags guessed of a song

Features = dict[str, FloatArray]  # by name, (W,) of one song or (N, W); NaN where the song lacks it


@dataclass
class Content:
    """A song as it is received: words, tags and day of release, mono samples, and dense fields that the caller made."""

    about: dict[str, Any]
    wave: FloatArray | None = None
    given: Features = field(default_factory=dict)
    rate: int | None = None  # Hz of the samples; None: as the model hears


class Encoder:
    """The models of a service folder (`pipeline.service`), ready to encode.

    `precision` is that of a BERT's products: float32, or bfloat16 where the processor has it.

    Raises:
        UserError: a model cannot be loaded, or the processor has no such products.
    """

    def __init__(self, folder: Path, manifest: dict[str, Any], precision: str = "float32") -> None:
        if precision == "bfloat16" and not has_bfloat16():
            raise UserError("precision=bfloat16: this processor has no such products; use float32")
        self.dtype: torch.dtype = getattr(torch, precision)
        self.manifest, self.audio = manifest, manifest["audio"]
        self.song: Any
        self.song, config = load(folder / "i2i", check=False)
        self.song_codes = category_codes(config["vocabulary"]["songs"])
        self.widths: dict[str, int] = dict(config["model"]["dense_dims"])
        self.item: Any = None
        self.item_codes: dict[str, Codes] = {}
        if manifest["boundary"]:
            self.towers: Any
            self.towers, config = load(folder / "boundary", check=False)
            self.item = self.towers.item
            codes = category_codes(config["vocabulary"]["songs"])
            self.item_codes = self.song_codes if codes == self.song_codes else codes  # trained on one catalogue
            self.profile_vocabulary: Vocabulary = config["vocabulary"]["users"]
            self.history: int = config["trained_with"]["model"]["history"]
            self.widths |= config["model"]["dense_dims"]
        self.clip: Any = None
        if manifest["clip"]:
            self.clip, config = load(folder / "clip", check=False)
            self.prepared = config["prepared"]
            self.labels_LD: FloatArray = np.load(folder / "labels.npy")
            self.widths |= dict.fromkeys(("clip_audio", "clip_text"), self.labels_LD.shape[1])
            model, seconds = self.prepared["audio_model"], self.prepared["crop_seconds"]
            self.inputs = audio_inputs(model, self.audio, seconds)
            frozen = model != OWN and self.prepared["frozen_audio"]
            self.ears: Any = or_user_error(PretrainedAudio, model, "audio.model").eval() if frozen else None
        self.read: Any = manifest["text"] or (read_as(self.prepared) if self.clip is not None else None)
        self.reading = threading.Lock()  # a tokenizer keeps in itself where it is to cut
        self.tokenizer: Any = None
        self.bert: Any = None
        self.characters: CharacterTfidf | None = None
        if self.read and self.read["model"] == TFIDF:
            self.characters = load_tfidf(folder / "features")
        elif self.read and or_user_error(resolve_model, self.read["model"]) == self.read["model"]:
            self.load_text()  # no checksum has shown that it can be loaded, as one does for a packaged model
        fields, words = ("clip_audio", "clip_text") if self.clip is not None else ("text",), folder / "words"
        self.worded = fields if self.read and words.exists() else ()  # what texts are compared with
        self.centres_FD: Any = np.load(words / "centres.npy") if self.worded else None
        made = repr((manifest["clip"], manifest["text"], sorted(self.widths.items())))
        self.fingerprint = hashlib.sha256(made.encode()).hexdigest()[:16]  # of what makes the features

    @property
    def hears(self) -> bool:
        """Whether these models use a song's sound."""
        return self.clip is not None or AUDIO_STATS in self.widths

    def load_text(self) -> None:
        """Load the tokenizer and the frozen text encoder if there are such and they are not; takes two seconds.

        Raises:
            UserError: they cannot be loaded.
        """
        with self.reading:
            if self.read and self.characters is None and self.tokenizer is None:
                if self.manifest["text"]:
                    self.bert = or_user_error(TextEncoder, self.read["model"]).eval()
                    self.bert.bert = packed(self.bert.bert, self.dtype)
                self.tokenizer = or_user_error(load_tokenizer, self.read["model"])

    @torch.inference_mode()
    def features(self, songs: Sequence[Content]) -> Features:
        """Dense fields of N songs, each (N, W); NaN where a song lacks one.

        Raises:
            Refused: a given one is none of this model's: another came into use since the song was checked.
        """
        found = {name: np.full((len(songs), width), np.nan, dtype=np.float32) for name, width in self.widths.items()}
        heard = [at for at, song in enumerate(songs) if song.wave is not None]
        if self.hears and heard:
            steps = self._steps([songs[at] for at in heard])
            if self.clip is not None:
                found["clip_audio"][heard] = self._hear(steps)
            if AUDIO_STATS in found:
                found[AUDIO_STATS][heard] = recording_statistics(steps, self.audio)
        self._read(songs, found)
        for at, song in enumerate(songs):
            for name, vector in song.given.items():
                if self.widths.get(name) != len(vector):
                    detail = f"another model came into use, which has no such feature {name!r}: try again"
                    raise Refused(503, detail)
                found[name][at] = vector
        return found

    @torch.inference_mode()
    def vectors(self, features: Features, about: Sequence[dict[str, Any]]) -> tuple[FloatArray, FloatArray | None]:
        """Song vectors (N, D) and item vectors (N, D), the latter None without a boundary model."""
        values = values_of(about, self.song_codes.keys() | self.item_codes.keys())
        codes = encode_values(values, self.song_codes)
        song_ND = self.song(dense(features, self.song.embedding.dense_dims) | codes).numpy()
        if self.item is None:
            return song_ND, None
        if self.item_codes is not self.song_codes:
            codes = encode_values(values, self.item_codes)
        return song_ND, self.item(dense(features, self.item.embedding.dense_dims) | codes).numpy()

    def of_song(self, features: Features, about: Sequence[dict[str, Any]]) -> dict[str, Tensor]:
        """Fields of songs that the song encoder reads."""
        return fields(features, about, self.song.embedding.dense_dims, self.song_codes)

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

    @torch.inference_mode()
    def phrases(self, texts: Sequence[str]) -> FloatArray:
        """Unit vectors of texts, (Q, D), to be compared with `words_of` songs; NaN where most of one is unknown."""
        if self.characters is not None:
            return centred(self.characters.vectors(texts), self.centres_FD[-1])
        text, known_Q = self._text(texts)
        vectors_QD = (self.clip.embed_text(text) if self.clip is not None else text["pooled"]).numpy()
        return np.where(known_Q[:, None], centred(vectors_QD, self.centres_FD[-1]), np.nan).astype(np.float32)

    def words_of(self, songs: Sequence[Features]) -> FloatArray:
        """What texts are compared with, of N songs by their features, (N, D); NaN for one that has nothing of it."""
        lacking = {name: np.full(self.widths[name], np.nan, dtype=np.float32) for name in self.worded}
        fields = [np.stack([one.get(name, lacking[name]) for one in songs]) for name in self.worded]
        return word_vectors(fields, self.centres_FD)

    def says_nothing(self, content: Content) -> bool:
        """Whether a song has nothing that any model uses; what follows from other columns is too little alone."""
        for name, codes in (*self.song_codes.items(), *self.item_codes.items()):
            given = content.about.get(name) if name not in DERIVED else None
            values = given if isinstance(given, list) else [given]
            if any(codes.get(value, UNKNOWN) > UNKNOWN for value in values):
                return False
        return not (content.given or (self.hears and content.wave is not None) or any(self._texts([content])))

    def _steps(self, songs: Sequence[Content]) -> list[AnyArray]:
        """What a catalogue would keep of songs with a recording."""
        own, heard = int(self.audio["sample_rate"]), []
        for song in songs:
            assert song.wave is not None
            heard.append(to_steps(resample(song.wave, song.rate or own, own), self.audio))
        return heard

    def _hear(self, heard: Sequence[AnyArray]) -> FloatArray:
        """clip_audio of recordings, (N, D)."""
        crops = self.inputs(fixed_crops(heard, self.audio, self.prepared["crop_seconds"], self.prepared["crops"]))
        if self.ears is not None:
            crops = {"pooled": embed_crops(self.ears, crops)}
        return np.asarray(embed_recordings(self.clip.embed_audio, crops).numpy())

    def _texts(self, songs: Sequence[Content]) -> list[str | None]:
        known = [name for name in self.read["fields"] if name in ABOUT] if self.read else []
        if not known:
            return [None] * len(songs)
        return texts_of([song.about for song in songs], known)

    def _read(self, songs: Sequence[Content], found: Features) -> None:
        """text and clip_text of the songs that have words."""
        texts = self._texts(songs)
        has = [at for at, text in enumerate(texts) if text]
        if not has:
            return
        if self.characters is not None:
            if "text" in found:
                found["text"][has] = self.characters.vectors([texts[at] for at in has])
            return
        text, _ = self._text([texts[at] for at in has])
        if self.bert is not None and "text" in found:
            found["text"][has] = text["pooled"].numpy()
        if self.clip is not None:
            found["clip_text"][has] = self.clip.embed_text(text).numpy()

    def _text(self, texts: Sequence[str | None]) -> tuple[dict[str, Tensor], AnyArray]:
        """Texts as CLIP's text tower reads them: by the frozen text encoder if there is one, else tokens; and whether
        the tokenizer knows at least half of each."""
        options = (self.read["model"], self.read["max_tokens"], self.read["windows"])
        self.load_text()
        with self.reading:
            ids_NWL, lengths_NW = token_rows(texts, *options, self.tokenizer)
        text = token_batch(ids_NWL, lengths_NW)
        read_NWL = text["attention_mask"].numpy() > 0
        known_N = (read_NWL & ~np.isin(ids_NWL, self.tokenizer.all_special_ids)).sum(axis=(1, 2))
        unknown_N = (read_NWL & (ids_NWL == self.tokenizer.unk_token_id)).sum(axis=(1, 2))
        if self.bert is not None:
            text = {"pooled": self.bert(text["input_ids"], text["attention_mask"])}
        return text, known_N >= np.maximum(unknown_N, 1)


def fields(
    features: Features, about: Sequence[dict[str, Any]], dense_dims: dict[str, int], codes: dict[str, Codes]
) -> dict[str, Tensor]:
    """Inputs of a song encoder, as `data.fields.SongFields.gather` gives them: dense fields and category codes."""
    return dense(features, dense_dims) | encode_values(values_of(about, codes), codes)


def dense(features: Features, dense_dims: dict[str, int]) -> dict[str, Tensor]:
    """The dense fields of songs."""
    return {name: torch.from_numpy(np.asarray(features[name], dtype=np.float32)) for name in dense_dims}


def encode_values(values: dict[str, Values], codes: dict[str, Codes]) -> dict[str, Tensor]:
    """Codes (N, MAX_VALUES) of the category fields of songs."""
    return {name: torch.from_numpy(value_codes(name, values[name], of)) for name, of in codes.items()}


def category_codes(vocabulary: Vocabulary) -> dict[str, Codes]:
    """The codes of each category field."""
    return {name: codes_of(values) for name, values in vocabulary.items() if name in CATEGORIES}
