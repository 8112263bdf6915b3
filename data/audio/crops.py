"""Crops of a catalogue's recordings: from shards of log-mel frames or samples, or straight from the files.

Shapes: N songs, C crops a song, T frames or L samples a crop, M mel bands. A step along time is a frame or a sample.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from typing import Any

import numpy as np
import torch
from torch import Tensor

from data.arrays import AnyArray, FloatArray, IntArray
from data.audio.recordings import SILENCE, Place, as_int16, decode_part, step_type
from data.audio.shards import windows
from data.audio.sound_files import AudioError
from data.catalogue import Catalogue

Crops = dict[str, Tensor]


def crop_length(audio: dict[str, Any], seconds: float) -> int:
    """Steps of a crop of what a catalogue with these `audio` options keeps."""
    per_second = int(audio["sample_rate"]) / (int(audio["hop_length"]) if audio["store"] == "logmel" else 1)
    return max(1, round(seconds * per_second))


def evenly_spaced(length_N: IntArray, crop: int, crops: int) -> IntArray:
    """First steps of the C evenly spaced crops of recordings, (N, C); one crop is in the middle."""
    share_C = np.linspace(0, 1, crops) if crops > 1 else np.array([0.5])
    return np.rint(np.maximum(length_N - crop, 0)[:, None] * share_C).astype(np.int64)


def fixed_crops(recordings: Sequence[AnyArray], audio: dict[str, Any], seconds: float, crops: int) -> Crops:
    """The crops of N recordings in memory, each (steps, width), as `CropReader.fixed` gives those of a catalogue."""
    length_N, crop = np.array([len(one) for one in recordings]), crop_length(audio, seconds)
    offset_NC = evenly_spaced(length_N, crop, crops)
    first_NC = (np.cumsum(length_N) - length_N)[:, None] + offset_NC
    real_NC = np.minimum(length_N[:, None] - offset_NC, crop)
    found = windows(np.concatenate(recordings), first_NC.ravel(), real_NC.ravel(), crop)
    return named(found.reshape(*real_NC.shape, crop, -1), real_NC, audio)


def named(crop: AnyArray, real: IntArray, audio: dict[str, Any]) -> Crops:
    """Crops (…, steps, width), of which `real` (…) steps are real, under the names of a catalogue of these options."""
    names, found = (("logmel", "frames"), crop) if audio["store"] == "logmel" else (("samples", "length"), crop[..., 0])
    return dict(zip(names, (torch.from_numpy(found), torch.from_numpy(real)), strict=True))


class CropReader:
    """Crops of one length: {"logmel" (…, T, M) float16, "frames" (…)} or {"samples" (…, L) int16, "length" (…)}.

    `seconds` None: all are as long as the longest recording. What a song has too little of is zero, and the second
    entry says how much is real: 0 for a song without audio. The random crops are one a song, (N, …), the fixed ones C,
    (N, C, …).
    """

    def __init__(self, catalogue: Catalogue, seconds: float | None, crops: int) -> None:
        self.audio = catalogue.manifest["audio"]
        self.is_logmel = self.audio["store"] == "logmel"
        self.shards, self.paths = catalogue.audio_shards(), catalogue.audio_files()
        columns = (catalogue.songs[name].to_numpy() for name in ("audio_shard", "audio_start", "audio_length"))
        self.shard, self.start, self.length = (column.astype(np.int64) for column in columns)
        if self.shards is None and self.paths is None:
            self.length = np.zeros_like(self.length)
        longest = int(self.length.max(initial=1))
        self.crop = longest if seconds is None else crop_length(self.audio, seconds)
        self.crops = crops
        self.mix = catalogue.songs["audio_mix"].to_list() if self.paths is not None else None
        self.failed: set[int] = set()

    def random(self, rows: IntArray, rng: np.random.Generator) -> Crops:
        """One crop a song, uniformly placed."""
        room = np.maximum(self.length[rows] - self.crop, 0)
        return self._read(rows, rng.integers(0, room + 1))

    def fixed(self, rows: IntArray) -> Crops:
        """The C evenly spaced crops of each song; no randomness."""
        return self._read(rows[:, None], evenly_spaced(self.length[rows], self.crop, self.crops))

    def of_shard(self, number: int) -> CropReader:
        """The same crops of every recording in a shard, whether the catalogue has it or not, in their order there."""
        assert self.shards is not None
        table = self.shards.recordings(number)
        reader = copy(self)
        reader.start, reader.length = table["start"].to_numpy(), table["length"].to_numpy()
        reader.shard = np.full(table.height, number)
        return reader

    def _read(self, rows: IntArray, offset: IntArray) -> Crops:
        real = np.minimum(self.length[rows] - offset, self.crop)
        rows = np.broadcast_to(rows, offset.shape)
        if self.paths is not None:
            crop, real = self._from_files(rows, offset, real)
        else:
            crop = self._from_shards(rows, offset, real)
        return named(crop, real, self.audio)

    def _from_shards(self, rows: IntArray, offset: IntArray, real: IntArray) -> AnyArray:
        dtype, width = step_type(self.audio)
        crop = np.zeros((*offset.shape, self.crop, width), dtype=dtype)
        if self.shards is None:
            return crop
        first = self.start[rows] + offset
        for steps, at in self.shards.by_shard(self.shard[rows]):
            crop[at] = windows(steps, first[at], real[at], self.crop)
        return crop

    def _from_files(self, rows: IntArray, offset: IntArray, real: IntArray) -> tuple[AnyArray, IntArray]:
        shape = offset.shape
        crop_NCL: AnyArray = np.zeros((len(rows), offset.size // len(rows), self.crop), dtype=np.int16)
        real_NC, offset_NC = real.reshape(crop_NCL.shape[:2]).copy(), offset.reshape(crop_NCL.shape[:2])
        for song, row in enumerate(rows.reshape(len(rows), -1)[:, 0].tolist()):
            waves = self._stretches(row, offset_NC[song].tolist(), real_NC[song].tolist())
            real_NC[song] = [len(wave) for wave in waves]
            for place, wave in enumerate(waves):
                crop_NCL[song, place, : len(wave)] = as_int16(wave)
        return crop_NCL.reshape(*shape, self.crop, 1), real_NC.reshape(shape)

    def _stretches(self, row: int, offsets: list[int], lengths: list[int]) -> list[FloatArray]:
        """A song's crops from its file; none at all, and a line on the screen, if it cannot be read or is silent."""
        assert self.paths is not None and self.mix is not None
        options: dict[str, Any] = {name: self.audio[name] for name in ("sample_rate", "max_seconds")}
        places, path = list(zip(offsets, lengths, strict=True)), self.paths[row]
        try:
            place = Place(int(self.start[row]), tuple(self.mix[row] or ()))
            waves = [decode_part(path, **options, place=place, first=at, count=n) for at, n in places if n > 0]
            if waves and max(np.abs(wave).max(initial=0) for wave in waves) < SILENCE:
                raise AudioError("silent")
        except AudioError as error:
            if row not in self.failed:
                print(f"{path}: {error.reason}; the song goes on without audio")
            self.failed.add(row)
            waves = []
        return waves or [np.zeros(0, dtype=np.float32)] * len(places)
