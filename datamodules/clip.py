"""Songs as audio crops and text: the DataModule of CLIP training and of embedding.

Shapes: N songs of a batch, C crops a song, B BERT's width, W windows of a text, L tokens of a window.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from configs.errors import UserError
from data.arrays import AnyArray, BoolArray, FloatArray, IntArray
from data.audio.crops import CropReader
from data.audio.inputs import FrozenAudio, audio_dim, audio_inputs
from data.catalogue import Catalogue
from data.row_shards import RowShards
from data.text import text_dim, text_numbers, text_vectors, token_batch, token_rows
from data.text import text_variants as text_variants_of
from datamodules.batches import Batch, ShardBatches, batches_of, loader, ranks_of
from datamodules.catalogue import CatalogueDataModule
from models.pretrained_audio import OWN

FRAME_OPTIONS = ("sample_rate", "win_length", "hop_length", "n_mels")  # what a log-mel frame is
BERT_BATCH = 32

Item = dict[str, Any]


class ClipDataModule(CatalogueDataModule):
    """Batches of songs' audio crops and text.

    Training: warm songs with audio and text. Validation: `cold_val` songs with both. Prediction: every song.

    Batches are dictionaries: `id` (N,) row in the catalogue; `audio`, one crop a song (N, …) in training and C of them
    (N, C, …) otherwise: {"logmel", "frames"} or {"samples", "length"} as `data.audio.crops` gives them, what a
    published audio encoder takes, or {"pooled"}, its vectors, when it is frozen; `text`, {"pooled"} (N, B) when BERT is
    frozen, else {"input_ids", "attention_mask"} (N, W, L); `text_id` (N,), equal for equal texts; `has_audio`,
    `has_text`.
    In training a song's text may be one of the `text_variants`, and `shown_id` (N,) tells which of these are equal; and
    each batch ends with up to `unpaired` warm songs that have only one of audio and text.
    """

    def __init__(
        self,
        data: str | Path | Catalogue | CatalogueDataModule,
        batch_size: int = 128,
        text_model: str = "minilm",
        text_fields: Sequence[str] = ("title", "lyrics"),
        max_tokens: int = 128,
        frozen_text: bool = True,
        windows: int = 1,
        text_variants: int = 0,
        keep: float = 0.65,
        unpaired: int = 0,
        crop_seconds: float = 4.0,
        crops: int = 3,
        audio_model: str = OWN,
        frozen_audio: bool = True,
        workers: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__(data, batch_size=batch_size, workers=workers, seed=seed)
        self.text_model, self.frozen_text = text_model, frozen_text
        self.max_tokens, self.windows = max_tokens, windows
        self.text_fields = list(text_fields)
        self.shards: RowShards | None = None  # where the vectors of songs are kept that are predicted
        self.allow_zero_length_dataloader_with_multiple_devices = True  # a rank whose shards are all there
        self.texts = text_variants_of(self.catalogue.songs, text_fields, text_variants, keep)
        self.unpaired = unpaired
        self.audio = {name: int(self.catalogue.manifest["audio"][name]) for name in FRAME_OPTIONS}
        self.crops = CropReader(self.catalogue, crop_seconds, crops)
        if crop_seconds * self.audio["sample_rate"] < self.audio["win_length"]:
            raise UserError(f"model.crop_seconds={crop_seconds:g} is shorter than a window of audio.win_length samples")
        self.audio_model = audio_model
        self.pooled_audio = frozen_audio and audio_model != OWN
        self.inputs = audio_inputs(audio_model, self.crops.audio, crop_seconds)
        self.audio_vectors: FrozenAudio | None = None
        self.has_text: BoolArray = np.array([text is not None for text in self.texts[0]])
        self.text_vectors: list[FloatArray] = []  # of the whole texts, and of each variant
        self.tokens: list[tuple[IntArray, IntArray]] = []

    def widths(self) -> dict[str, int]:
        """Width of what a CLIP model's towers get: pooled vectors of BERT, and of a published audio encoder."""
        return {"text": text_dim(self.text_model), "audio": audio_dim(self.audio_model)}

    def setup(self, stage: str | None = None) -> None:
        """Read texts, and compute the vectors of frozen encoders, which the ranks share; when training starts, print
        how many warm songs take part.

        Raises:
            UserError: no song to train on, or none to validate with, has both audio and text.
        """
        if self.frozen_text:
            self.text_vectors = self._read_text_vectors()
        else:
            self.tokens = [token_rows(texts, self.text_model, self.max_tokens, self.windows) for texts in self.texts]
        if self.pooled_audio:
            made = (self.audio_model, self.inputs, self.catalogue.folder, ranks_of(self))
            self.audio_vectors = FrozenAudio(self.crops, *made)
            ranks_of(self).wait()
        self.text_ids = text_numbers(self.texts)
        if stage == "fit":
            warm, used, single = len(self.catalogue.rows("warm")), len(self.rows("warm")), len(self.single("warm"))
            held = len(self.rows("cold_val"))
            if self.trainer is None or self.trainer.is_global_zero:
                print(
                    f"CLIP trains on {used:,} of {warm:,} warm songs; {warm - used:,} lack audio or text, "
                    f"{single if self.unpaired else 0:,} of these have the other and are negatives"
                )
            if used < 2 or not held:
                raise UserError(
                    f"{self.catalogue.folder}: CLIP needs songs with both audio and text "
                    f"({' + '.join(self.text_fields)}); there are {used} to train on (warm) and {held} to validate "
                    "with (cold_val)"
                )

    def rows(self, split: str) -> IntArray:
        """Songs of a split that have both audio and text."""
        rows = self.catalogue.rows(split)
        return rows[(self.crops.length[rows] > 0) & self.has_text[rows]]

    def single(self, split: str) -> IntArray:
        """Songs of a split that have either audio or text."""
        rows = self.catalogue.rows(split)
        return rows[(self.crops.length[rows] > 0) != self.has_text[rows]]

    def val_positives(self) -> tuple[IntArray, IntArray]:
        """(query song, item song): the text of a song must find its own recording, no other."""
        rows = self.rows("cold_val")
        return rows, rows

    def train_dataloader(self) -> DataLoader[Item]:
        """Random crops of warm songs, with their text."""
        return self._loader(self.rows("warm"), "train")

    def val_dataloader(self) -> list[DataLoader[Item]]:
        """[audio to be found, texts that look for it]."""
        rows = self.rows("cold_val")
        return [self._loader(rows, "audio"), self._loader(rows, "text")]

    def predict_dataloader(self) -> DataLoader[Item]:
        """Every song of the catalogue, in order: fixed crops and text, with what is missing marked.

        With `shards`: the songs of this rank's shards that nobody has made yet.
        """
        rows = np.arange(self.catalogue.n_songs)
        if self.shards is None:
            return self._loader(rows, "all")
        left = [self.shards.rows(shard) for shard in self.shards.left(ranks_of(self))]
        return loader(SongItems(self, rows, "all"), ShardBatches(left, self.batch_size, self.seed), self.workers)

    def _loader(self, rows: IntArray, view: str) -> DataLoader[Item]:
        batches = batches_of(self, len(rows), self.batch_size, shuffle=view == "train")
        return loader(SongItems(self, rows, view), batches, self.workers)

    def _read_text_vectors(self) -> list[FloatArray]:
        cache = self.catalogue.folder / "text_cache"
        options = (self.text_model, self.max_tokens, BERT_BATCH, cache, self.windows, ranks_of(self))
        return [text_vectors(texts, *options) for texts in self.texts]


class SongItems(Dataset[Item]):
    """Turns a whole `Batch` into tensors in one vectorised call; `view`: "train", "audio", "text" or "all"."""

    def __init__(self, data: ClipDataModule, rows: IntArray, view: str) -> None:
        self.rows, self.view, self.crops = rows, view, data.crops
        self.inputs, self.audio_vectors = data.inputs, data.audio_vectors
        self.vectors, self.tokens = data.text_vectors, data.tokens
        self.text_ids, self.has_text = data.text_ids, data.has_text
        self.single = data.single("warm") if view == "train" and data.unpaired else np.zeros(0, dtype=np.int64)
        self.n_single = min(data.unpaired, len(self.single))

    def __getitem__(self, batch: Batch) -> Item:
        rows, rng = self.rows[batch.rows], None
        variant = np.zeros_like(rows)
        if self.view == "train":
            rng = np.random.default_rng(batch.seed)
            rows = np.concatenate([rows, rng.choice(self.single, self.n_single, replace=False)])
            variant = rng.integers(0, len(self.text_ids), len(rows))
        item: Item = {"id": torch.from_numpy(rows)}
        if self.view != "text":
            item |= self._audio(rows, rng)
        if self.view != "audio":
            item |= self._text(rows, variant)
        return item

    def _audio(self, rows: IntArray, rng: np.random.Generator | None) -> Item:
        """Random crops in training, else the fixed ones."""
        if self.audio_vectors is not None:
            vectors_NCW = self.audio_vectors[rows]
            has_audio = torch.from_numpy(np.isfinite(vectors_NCW[:, 0, 0]))
            pooled = torch.from_numpy(np.nan_to_num(vectors_NCW))
            if rng is not None:
                pooled = pooled[torch.arange(len(rows)), rng.integers(0, pooled.shape[1], len(rows))]
            return {"audio": {"pooled": pooled}, "has_audio": has_audio}
        crops = self.crops.fixed(rows) if rng is None else self.crops.random(rows, rng)
        # A file that is read now for the first time may turn out to be bad (audio.store=files).
        real = crops["frames" if "frames" in crops else "length"]
        return {"audio": self.inputs(crops), "has_audio": real.view(len(rows), -1).amax(dim=1) > 0}

    def _text(self, rows: IntArray, variant: IntArray) -> Item:
        if self.vectors:
            text = {"pooled": torch.from_numpy(np.nan_to_num(pick(self.vectors, rows, variant)))}
        else:
            text = self._tokens(rows, variant)
        numbers = {
            "text_id": self.text_ids[0][rows],
            "shown_id": pick(self.text_ids, rows, variant),
            "has_text": self.has_text[rows],
        }
        return {"text": text} | {name: torch.from_numpy(values) for name, values in numbers.items()}

    def _tokens(self, rows: IntArray, variant: IntArray) -> dict[str, Tensor]:
        lengths = pick([one for _, one in self.tokens], rows, variant)
        ids = pick([ids for ids, _ in self.tokens], rows, variant)
        if self.view == "train":  # evaluation keeps one shape for all batches: a vector does not depend on its batch
            windows, width = max(1, int((lengths > 0).sum(axis=1).max())), max(1, int(lengths.max()))
            lengths, ids = lengths[:, :windows], ids[:, :windows, :width]
        return token_batch(ids, lengths)


def pick(tables: Sequence[AnyArray], rows: IntArray, variant: IntArray) -> AnyArray:
    """Row `rows[n]` of table `variant[n]` for each n; what a smaller table lacks is zero."""
    sizes = np.max([table.shape[1:] for table in tables], axis=0).astype(int)
    picked = np.zeros((len(rows), *sizes), dtype=tables[0].dtype)
    for number in np.unique(variant):
        at, table = np.flatnonzero(variant == number), tables[number]
        where: Any = (at, *(slice(size) for size in table.shape[1:]))
        picked[where] = table[rows[at]]
    return picked
