"""Read the prepared catalogue, which all three tasks share (written by `python -m pipeline.prepare`).

A song is its row number in `songs.parquet`, a user their row number in `users.parquet`; ids are strings.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from artifacts.folders import read_manifest
from configs import options
from configs.errors import UserError
from data.arrays import AnyArray, FloatArray, IntArray
from data.audio.recordings import step_type
from data.audio.shards import Shards

KIND = "catalogue"
AUDIO_STATS = "audio_stats"  # the field that is made of decoded audio
MADE_BY = options.MADE_BY[KIND]
HELD_OUT = ("val_pairs", "source")  # the only column of the pair tables that may hold held-out songs
NO_VALIDATION = (
    "no cold validation song has a listener who also listened to a known song: new songs can be scored, but no "
    "checkpoint of the song encoder could be chosen (to train: a larger split.cold_share or an earlier split.cutoff)"
)


class Catalogue:
    """A catalogue folder; each table is read on first access."""

    def __init__(self, folder: Path, manifest: dict[str, Any]) -> None:
        self.folder, self.manifest = folder, manifest

    @classmethod
    def read(cls, folder: str | Path) -> Catalogue:
        """Open a catalogue folder.

        Raises:
            UserError: the folder is missing or is not a catalogue.
        """
        return cls(Path(folder), read_manifest(folder, KIND, MADE_BY))

    @cached_property
    def songs(self) -> pl.DataFrame:
        """One row a song, with `split`, `popularity` and where its decoded audio is (docs/data.md)."""
        return self._table("songs")

    @cached_property
    def users(self) -> pl.DataFrame:
        """One row a user: `user_id` and profile columns."""
        return self._table("users")

    @cached_property
    def plays(self) -> pl.DataFrame:
        """Training plays, sorted by user and time: `user`, `song`, `strength` and the source's own columns.

        Raises:
            UserError: the table is damaged, or a play of a held-out song is in it.
        """
        table = self._table("plays")
        self._refuse_cold("plays", table["song"])
        return table

    @cached_property
    def cold_plays(self) -> pl.DataFrame:
        """Held-out plays of cold songs (both cold splits), for validation and evaluation."""
        return self._table("cold_plays")

    @property
    def n_songs(self) -> int:
        """Number of songs of all splits."""
        return self.songs.height

    @property
    def n_users(self) -> int:
        """Number of users."""
        return self.users.height

    def rows(self, split: str) -> IntArray:
        """Song indices of a split: "warm", "cold_val", "cold_test", or "cold" for the last two."""
        of_song = self.songs["split"]
        wanted = of_song != "warm" if split == "cold" else of_song == split
        return wanted.arg_true().to_numpy().astype(np.int64)

    def part(self, songs: IntArray) -> Catalogue:
        """Some of the songs, numbered anew in the order given, with their audio; plays and pairs are not for it."""
        part = Catalogue(self.folder, self.manifest)
        part.songs = self.songs[songs]
        return part

    def pairs(self, name: str = "pairs") -> tuple[IntArray, IntArray]:
        """(source, target) song indices of `pairs` (training positives) or `val_pairs`.

        Raises:
            UserError: the table is damaged, or a held-out song is in `pairs` or is a target of `val_pairs`.
        """
        table = self._table(name)
        self._refuse_cold(name, *(table[side] for side in ("source", "target") if (name, side) != HELD_OUT))
        return table["source"].to_numpy().astype(np.int64), table["target"].to_numpy().astype(np.int64)

    def features(self) -> dict[str, FloatArray]:
        """The user's own `feature_<name>` vectors, memory-mapped, (songs, dim); a missing row is NaN."""
        return read_features(self.folder / "features", self.n_songs)

    def audio_shards(self) -> Shards | None:
        """Decoded audio, memory-mapped (`audio_shard`, `audio_start`, `audio_length`); None if there is none.

        Raises:
            UserError: the folder was written by an earlier version, in another layout.
        """
        files = self.manifest.get("audio", {}).get("store") == "files"
        if "audio_shard" not in self.songs.columns or (files and "audio_mix" not in self.songs.columns):
            raise UserError(f"{self.folder} was made by an earlier version: make it again with: {MADE_BY}")
        shards = self.manifest.get("audio_shards")
        if not shards:
            return None
        folders = [self.folder / folder for folder in shards["folders"]]
        existing = next((folder for folder in folders if folder.is_dir()), folders[0])
        return Shards(existing, shards["names"], *step_type(self.manifest["audio"]))

    def audio_files(self) -> list[Path] | None:
        """Path of each song's recording if decoded audio is not kept (audio.store=files), else None."""
        if self.manifest["audio"].get("store") != "files":
            return None
        source = Path(self.manifest["source"])
        return [source / (path or "") for path in self.songs["audio_path"]]

    def _refuse_cold(self, name: str, *columns: pl.Series) -> None:
        """Raise UserError if a table of known songs contains a held-out one: the last guard against leakage."""
        is_cold = self.songs["split"] != "warm"
        for song in columns:
            cold = song.filter(is_cold.gather(song))
            if len(cold):
                raise UserError(
                    f"{self.folder / f'{name}.parquet'}: {len(cold)} rows name a held-out song, the first is "
                    f"{self.songs['song_id'][int(cold[0])]!r}; make the folder again with: {MADE_BY}"
                )

    def _table(self, name: str) -> pl.DataFrame:
        path = self.folder / f"{name}.parquet"
        try:
            return pl.read_parquet(path, glob=False)
        except (OSError, pl.exceptions.PolarsError) as error:
            raise UserError(f"{path}: cannot be read ({error}); make the folder again with: {MADE_BY}") from None


def first_genre(catalogue: Catalogue) -> AnyArray:
    """First genre of each song, "" without one."""
    return catalogue.songs["genres"].list.first().fill_null("").to_numpy()


def known_songs(catalogue: Catalogue) -> list[str]:
    """Ids of the songs with a training play."""
    played = (pl.col("split") == "warm") & (pl.col("popularity") > 0)
    return catalogue.songs.filter(played)["song_id"].to_list()


def held_out_listeners(catalogue: Catalogue, songs: IntArray) -> tuple[IntArray, IntArray]:
    """Distinct (song, user) pairs of the held-out plays of the given songs, without dislikes."""
    plays = catalogue.cold_plays.filter((pl.col("strength") > 0) & pl.col("song").is_in(pl.Series(songs)))
    plays = plays.select(pl.col("song", "user").cast(pl.Int64)).unique(maintain_order=True)
    return plays["song"].to_numpy(), plays["user"].to_numpy()


def read_features(folder: Path, n_songs: int) -> dict[str, FloatArray]:
    """Memory-map every `<name>.npy` of a folder.

    Raises:
        UserError: an array is damaged or does not have one row a song.
    """
    arrays: dict[str, FloatArray] = {}
    for path in sorted(folder.glob("*.npy")):
        try:
            array = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError) as error:
            raise UserError(f"{path}: not a readable array ({error})") from None
        if array.ndim != 2 or len(array) != n_songs:
            raise UserError(f"{path}: shape {array.shape}, expected ({n_songs}, dim): made from another catalogue?")
        arrays[path.stem] = array
    return arrays
