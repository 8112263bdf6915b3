"""Vectors that an earlier catalogue's songs have: a song whose text and recording are as they were keeps its own.

Shapes: S songs of the catalogue, D numbers of a vector.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from artifacts.fingerprints import CONTENT
from artifacts.folders import read_manifest
from configs.errors import UserError
from data.arrays import FloatArray, IntArray
from data.catalogue import Catalogue, read_features
from data.fields import FEATURES
from data.text import song_texts

AUDIO = "clip_audio"  # the vectors of recordings
STEP = 65_536  # rows that are copied at a time


@dataclass(frozen=True)
class Earlier:
    """Vectors of an earlier catalogue's songs, each array (songs, D), and the row in them of each song of today's.

    Row −1: the song must be embedded.
    """

    arrays: dict[str, FloatArray]
    row_S: IntArray

    @property
    def new(self) -> IntArray:
        """The songs that must be embedded."""
        return np.flatnonzero(self.row_S < 0)

    def write(self, new: dict[str, FloatArray], folder: Path) -> dict[str, FloatArray]:
        """Write the vectors of all songs to NAME.npy, given those of the new ones in their order; memory-mapped."""
        return {name: self._write(name, new.get(name), folder / f"{name}.npy") for name in self.arrays or new}

    def _write(self, name: str, new: FloatArray | None, path: Path) -> FloatArray:
        wide = self.arrays[name] if new is None else new
        shape = (len(self.row_S), wide.shape[1])
        vectors: FloatArray = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=shape)
        done = 0
        for at in range(0, len(self.row_S), STEP):
            part, row = vectors[at : at + STEP], self.row_S[at : at + STEP]
            is_new = row < 0
            if not is_new.all():
                part[~is_new] = self.arrays[name][row[~is_new]]
            if new is not None:
                part[is_new] = new[done : done + int(is_new.sum())]
            done += int(is_new.sum())
        return vectors


def nothing_earlier(catalogue: Catalogue) -> Earlier:
    """Every song must be embedded."""
    return Earlier({}, np.full(catalogue.n_songs, -1))


def earlier_vectors(
    folder: str | None, catalogue: Catalogue, fields: Sequence[str], heard: bool, made_of: Callable[[Catalogue], str]
) -> Earlier:
    """Find the songs of a catalogue that are as they were in an earlier one, and their vectors.

    Args:
        folder: the earlier one's features; None: every song must be embedded.
        catalogue: today's.
        fields: columns whose text the encoder reads.
        heard: whether it hears the recordings.
        made_of: the fingerprint of the features that today's encoder makes of a catalogue.

    Raises:
        UserError: the features are damaged, or were made by another encoder, or their catalogue is gone, has changed
            since, or is of a version that kept no checksums of recordings.
    """
    if folder is None:
        return nothing_earlier(catalogue)
    manifest = read_manifest(folder, *FEATURES)
    before = Catalogue.read(manifest["data"])
    if manifest.get(CONTENT) != made_of(before):
        raise UserError(
            f"earlier={folder} was made by another encoder, by a version that read texts otherwise, or its catalogue "
            f"{before.folder} has changed since: leave earlier= out, and all songs are embedded"
        )
    then, now = (_read_by_encoder(one, fields, heard) for one in (before, catalogue))
    columns = [name for name in now.columns if name != "song_id"]
    arrays = _arrays(Path(folder), before.n_songs, manifest["songs_with"])
    then = then.with_row_index("row").filter(_is_whole(then, arrays))
    found = now.join(then, on="song_id", how="left", maintain_order="left")
    same = pl.all_horizontal(
        pl.col("row").is_not_null(), *(pl.col(n).eq_missing(pl.col(f"{n}_right")) for n in columns)
    )
    row = found.select(pl.when(same).then(pl.col("row").cast(pl.Int64)).otherwise(-1))["row"]
    return Earlier(arrays, row.to_numpy())


def _arrays(folder: Path, n_songs: int, names: Collection[str]) -> dict[str, FloatArray]:
    """The arrays that the encoder made; others may lie beside them.

    Raises:
        UserError: one is gone or damaged.
    """
    found = read_features(folder, n_songs)
    if missing := [name for name in names if name not in found]:
        raise UserError(f"earlier={folder} lacks {', '.join(missing)}: leave earlier= out, and all songs are embedded")
    return {name: found[name] for name in names}


def _is_whole(songs: pl.DataFrame, arrays: dict[str, FloatArray]) -> pl.Series:
    """Which songs have a vector of their recording, if there is one; with audio.store=files it may have been away."""
    if "audio_length" not in songs.columns:
        return pl.repeat(True, songs.height, eager=True)
    return (songs["audio_length"] == 0) | pl.Series(np.isfinite(arrays[AUDIO][:, 0]))


def _read_by_encoder(catalogue: Catalogue, fields: Sequence[str], heard: bool) -> pl.DataFrame:
    """What an encoder reads of each song, as columns beside its id."""
    songs = catalogue.songs
    table = songs.select("song_id", pl.Series("text", song_texts(songs, fields), dtype=pl.String))
    if not heard:
        return table
    has_checksum = "audio_content" in songs.columns
    told = songs["audio_content"] if has_checksum else pl.Series("audio_content", [None] * songs.height, pl.Int64)
    if unknown := int(((songs["audio_length"] > 0) & told.is_null()).sum()):
        raise UserError(
            f"{catalogue.folder}: {unknown:,} recordings have no checksum, as an earlier version left them: leave "
            "earlier= out, or prepare the catalogue again (with another audio.cache where that does not help)"
        )
    store = catalogue.manifest["audio"]["store"]  # vectors of frames differ a little from those of samples
    return table.with_columns(songs["audio_length"], told, pl.lit(store).alias("store"))
