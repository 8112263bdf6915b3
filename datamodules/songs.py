"""Songs as audio crops and text: the DataModule of CLIP training and of embedding.

Shapes: N songs of a batch, C crops a song, T frames a crop, M mel bands, B BERT's width, W windows of a
text, L tokens of a window.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from configs.errors import UserError
from datamodules.arrays import AnyArray, BoolArray, FloatArray, IntArray
from datamodules.batches import Batch, EpochBatches, loader
from datamodules.catalogue import Catalogue
from datamodules.text import text_dim, text_numbers, text_vectors, token_batch, token_rows
from datamodules.text import text_variants as text_variants_of

FRAME_OPTIONS = ("sample_rate", "win_length", "hop_length", "n_mels")  # what a log-mel frame is
BERT_BATCH = 32

Item = dict[str, Any]


class SongDataModule(L.LightningDataModule):
    """Training: warm songs with audio and text. Validation: `cold_val` songs with both. Prediction: every song.

    Batches are dictionaries: `id` (N,) row in the catalogue; `logmel` (N, T, M) in training, (N, C, T, M) otherwise,
    float16; `frames`, how many of the T are real; `text`, pooled vectors (N, B) when BERT is frozen, else
    {"input_ids", "attention_mask"} (N, W, L); `text_id` (N,), equal for equal texts; `has_audio`, `has_text`.
    In training a song's text may be one of the `text_variants`, and `shown_id` (N,) tells which of these are equal; and
    each batch ends with up to `unpaired` warm songs that have only one of audio and text.
    """

    def __init__(
        self,
        folder: str | Path,
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
        workers: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if crops < 1 or crop_seconds <= 0 or batch_size < 1 or windows < 1 or max_tokens < 3:
            told = "crops, crop_seconds, batch_size and text.windows must be positive and text.max_tokens at least 3"
            raise UserError(told)
        self.catalogue = Catalogue.read(folder)
        self.batch_size, self.workers, self.seed = batch_size, workers, seed
        self.text_model, self.frozen_text = text_model, frozen_text
        self.max_tokens, self.windows = max_tokens, windows
        self.fields = list(text_fields)
        self.texts = text_variants_of(self.catalogue.songs, text_fields, text_variants, keep)
        self.unpaired = unpaired
        self.audio = {name: int(self.catalogue.manifest["audio"][name]) for name in FRAME_OPTIONS}
        crop_frames = max(1, round(crop_seconds * self.audio["sample_rate"] / self.audio["hop_length"]))
        self.crops = CropReader(self.catalogue, crop_frames, crops)
        self.has_text: BoolArray = np.array([text is not None for text in self.texts[0]])
        self.text_vectors: list[FloatArray] = []  # of the whole texts, and of each variant
        self.tokens: list[tuple[IntArray, IntArray]] = []

    def front_end(self) -> dict[str, Any]:
        """What the model must know of its input: the frame options, and the width of BERT's pooled vector."""
        return {**self.audio, "text_dim": text_dim(self.text_model)}

    def prepare_data(self) -> None:
        """Compute BERT's vectors once a machine, before the ranks read them."""
        if self.frozen_text:
            self._read_text_vectors()

    def setup(self, stage: str | None = None) -> None:
        """Read texts; when training starts, print how many warm songs take part.

        Raises:
            UserError: no song to train on, or none to validate with, has both audio and text.
        """
        if self.frozen_text:
            self.text_vectors = self._read_text_vectors()
        else:
            self.tokens = [token_rows(texts, self.text_model, self.max_tokens, self.windows) for texts in self.texts]
        self.text_ids = text_numbers(self.texts)
        if stage == "fit":
            warm, used, single = len(self.catalogue.rows("warm")), len(self.rows("warm")), len(self.single("warm"))
            self._print(
                f"CLIP trains on {used:,} of {warm:,} warm songs; {warm - used:,} lack audio or text, "
                f"{single if self.unpaired else 0:,} of these have the other and are negatives"
            )
            if used < 2 or not len(self.rows("cold_val")):
                held = len(self.rows("cold_val"))
                raise UserError(
                    f"{self.catalogue.folder}: CLIP needs songs with both audio and text ({' + '.join(self.fields)}); "
                    f"there are {used} to train on (warm) and {held} to validate with (cold_val)"
                )

    def rows(self, split: str) -> IntArray:
        """Songs of a split that have both audio and text."""
        rows = self.catalogue.rows(split)
        return rows[(self.crops.frames[rows] > 0) & self.has_text[rows]]

    def single(self, split: str) -> IntArray:
        """Songs of a split that have either audio or text."""
        rows = self.catalogue.rows(split)
        return rows[(self.crops.frames[rows] > 0) != self.has_text[rows]]

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
        """Every song of the catalogue, in order: fixed crops and text, with what is missing marked."""
        return self._loader(np.arange(self.catalogue.n_songs), "all")

    def _loader(self, rows: IntArray, view: str) -> DataLoader[Item]:
        rank, world = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        batches = EpochBatches(len(rows), self.batch_size, self.seed, rank, world, shuffle=view == "train")
        return loader(SongItems(self, rows, view), batches, self.workers)

    def _read_text_vectors(self) -> list[FloatArray]:
        cache = self.catalogue.folder / "text_cache"
        options = (self.text_model, self.max_tokens, BERT_BATCH, cache, self.windows)
        return [text_vectors(texts, *options) for texts in self.texts]

    def _print(self, line: str) -> None:
        if self.trainer is None or self.trainer.is_global_zero:
            print(line)


class CropReader:
    """Crops of the catalogue's log-mel shards."""

    def __init__(self, catalogue: Catalogue, crop_frames: int, crops: int) -> None:
        self.logmel = catalogue.logmel()
        self.crop_frames, self.crops = crop_frames, crops
        self.n_mels = int(catalogue.manifest["audio"]["n_mels"])
        columns = (catalogue.songs[name].to_numpy() for name in ("mel_shard", "mel_start", "mel_frames"))
        self.shard, self.start, self.frames = (column.astype(np.int64) for column in columns)
        if self.logmel is None:
            self.frames = np.zeros_like(self.frames)

    def random(self, rows: IntArray, rng: np.random.Generator) -> tuple[AnyArray, IntArray]:
        """One crop a song, uniformly placed: (N, T, M) float16 and how many of its frames are real (N,)."""
        room = np.maximum(self.frames[rows] - self.crop_frames, 0)
        return self._read(rows, rng.integers(0, room + 1))

    def fixed(self, rows: IntArray) -> tuple[AnyArray, IntArray]:
        """The C evenly spaced crops of each song: (N, C, T, M) float16 and real frames (N, C); no randomness."""
        room = np.maximum(self.frames[rows] - self.crop_frames, 0)
        share = np.linspace(0, 1, self.crops) if self.crops > 1 else np.array([0.5])
        return self._read(rows[:, None], np.rint(room[:, None] * share).astype(np.int64))

    def _read(self, rows: IntArray, offset: IntArray) -> tuple[AnyArray, IntArray]:
        real = np.minimum(self.frames[rows] - offset, self.crop_frames)
        crop = np.zeros((*offset.shape, self.crop_frames, self.n_mels), dtype=np.float16)
        if self.logmel is None:
            return crop, np.zeros_like(offset)
        first, step = self.start[rows] + offset, np.arange(self.crop_frames)
        for lines, at in self.logmel.by_shard(np.broadcast_to(self.shard[rows], offset.shape)):
            # Beyond the song's end any readable frame will do: it is overwritten by zero.
            crop[at] = lines[np.minimum(first[at][:, None] + step, len(lines) - 1)]
        crop[step >= real[..., None]] = 0
        return crop, real


class SongItems(Dataset[Item]):
    """Turns a whole `Batch` into tensors in one vectorised call (views: see `SongDataModule._loader`)."""

    def __init__(self, data: SongDataModule, rows: IntArray, view: str) -> None:
        self.rows, self.view, self.crops = rows, view, data.crops
        self.vectors, self.tokens = data.text_vectors, data.tokens
        self.text_ids, self.has_text = data.text_ids, data.has_text
        self.single = data.single("warm") if view == "train" and data.unpaired else np.zeros(0, dtype=np.int64)
        self.n_single = min(data.unpaired, len(self.single))

    def __getitem__(self, batch: Batch) -> Item:
        rows = self.rows[batch.rows]
        if self.view == "train":
            return self._training(rows, np.random.default_rng(batch.seed))
        item: Item = {"id": torch.from_numpy(rows)}
        if self.view != "text":
            item |= self._audio(rows, *self.crops.fixed(rows))
        if self.view != "audio":
            item |= self._text(rows, np.zeros_like(rows))
        return item

    def _training(self, rows: IntArray, rng: np.random.Generator) -> Item:
        if self.n_single:
            rows = np.concatenate([rows, rng.choice(self.single, self.n_single, replace=False)])
        variant = rng.integers(0, len(self.text_ids), len(rows))
        audio = self._audio(rows, *self.crops.random(rows, rng))
        return {"id": torch.from_numpy(rows)} | audio | self._text(rows, variant)

    def _audio(self, rows: IntArray, crop: AnyArray, frames: IntArray) -> Item:
        has_audio = torch.from_numpy(self.crops.frames[rows] > 0)
        return {"logmel": torch.from_numpy(crop), "frames": torch.from_numpy(frames), "has_audio": has_audio}

    def _text(self, rows: IntArray, variant: IntArray) -> Item:
        shown_id = pick(self.text_ids, rows, variant)
        ids = {"text_id": torch.from_numpy(self.text_ids[0][rows]), "shown_id": torch.from_numpy(shown_id)}
        text = self._pooled(rows, variant) if self.vectors else self._tokens(rows, variant)
        return ids | {"text": text, "has_text": torch.from_numpy(self.has_text[rows])}

    def _pooled(self, rows: IntArray, variant: IntArray) -> Tensor:
        return torch.from_numpy(np.nan_to_num(pick(self.vectors, rows, variant)))

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
