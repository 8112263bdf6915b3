"""I2I DataModule: verified pairs with uniform global negatives, and songs drawn uniformly for the contrastive part."""

from __future__ import annotations

import math
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from scipy import sparse
from torch.utils.data import DataLoader, Dataset

from configs.errors import UserError
from data.arrays import AnyArray, IntArray
from data.catalogue import NO_VALIDATION, Catalogue, held_out_listeners, known_songs
from data.fields import SongFields
from data.item_pairs.verification import listening_matrix
from datamodules.batches import Batch, batches_of, loader
from datamodules.catalogue import CatalogueDataModule
from datamodules.listening import Listening


class PairBatches(Dataset[Any]):
    """Batches of N pairs, M uniform negatives shared by them, S songs drawn uniformly over the warm catalogue, and the
    listening of some users (`datamodules.listening`) if there is one.

    `fields` holds each distinct song of the batch once; the first `whole` of them are of the pairs, the negatives or
    the histories, the others are there for their views alone. `at` says which are the sources, the targets and the
    negatives, in this order, `drawn` which the drawn songs, and `listening["at"]` which those of the histories.
    The warm catalogue includes songs without any play. Cold validation and test songs are not among `songs`.
    `drawn_ids` are equal where songs are no negatives of each other (`same`).
    `log_q` is the log of how often each of target + negatives is expected among the candidates: drawn, or in the batch.
    """

    def __init__(
        self,
        fields: SongFields,
        pairs: tuple[IntArray, IntArray],
        songs: IntArray,
        negatives: int,
        drawn: int,
        residual_codes: IntArray,
        in_batch: bool = False,
        listening: Listening | None = None,
        chance: AnyArray | None = None,
        same: IntArray | None = None,
    ) -> None:
        self.fields, self.songs, self.residual_codes = fields, songs, residual_codes
        self.same = np.arange(len(residual_codes)) if same is None else same
        self.listening, self.chance = listening, chance
        self.source, self.target = pairs
        self.negatives, self.drawn = negatives, drawn
        share = np.bincount(self.target, minlength=len(residual_codes)) / max(1, len(self.target))
        self.share = share if in_batch else np.zeros_like(share)

    def __getitem__(self, batch: Batch) -> dict[str, Any]:
        rng = np.random.default_rng(batch.seed)
        source, target = self.source[batch.rows], self.target[batch.rows]
        negatives, drawn = rng.choice(self.songs, self.negatives), rng.choice(self.songs, self.drawn, p=self.chance)
        known = np.concatenate([target, negatives])
        expected = self.negatives / len(self.songs) + len(target) * self.share[known]
        heard, listening = self.listening.draw(rng) if self.listening is not None else (known[:0], {})
        songs, whole, (at, at_heard, at_drawn) = distinct([np.concatenate([source, known]), heard], drawn)
        item = {
            "fields": self.fields.gather(songs),
            "whole": whole,
            "at": torch.from_numpy(at),
            "residual": torch.from_numpy(np.concatenate([np.zeros_like(source), self.residual_codes[known]])),
            "source": torch.from_numpy(source),
            "target": torch.from_numpy(target),
            "negatives": torch.from_numpy(negatives),
            "log_q": torch.from_numpy(np.log(expected).astype(np.float32)),
            "drawn": torch.from_numpy(at_drawn),
            "drawn_ids": torch.from_numpy(self.same[drawn]),
            "views_seed": int(np.random.SeedSequence(batch.seed[:3]).generate_state(1)[0]),  # the same on all ranks
        }
        if self.listening is not None:
            residual = torch.from_numpy(self.residual_codes[heard])
            item["listening"] = {"at": torch.from_numpy(at_heard), "residual": residual, **listening}
        return item


def distinct(parts: list[IntArray], last: IntArray) -> tuple[IntArray, int, list[IntArray]]:
    """Each song once, those of `parts` first; how many these are; and where each part, and `last`, has its songs."""
    everything = [*parts, last]
    songs, at = np.unique(np.concatenate(everything), return_inverse=True)
    later = np.ones(len(songs), dtype=bool)
    later[at[: len(at) - len(last)]] = False
    order = np.argsort(later, kind="stable")
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    ends = np.cumsum([len(part) for part in everything])[:-1]
    return songs[order], int((~later).sum()), np.split(place[at], ends)


def automatic_batch_size(n_pairs: int, steps: int = 32, least: int = 64, most: int = 2048) -> int:
    """Pairs of a batch such that an epoch has `steps` steps at least, where there are enough pairs for that."""
    return min(most, max(least, n_pairs // steps))


class I2IDataModule(CatalogueDataModule):
    """Batches of the I2I task.

    Args:
        batch_size: pairs of a batch; 0: `automatic_batch_size`.
        known: ids of the songs that have residual embeddings; None for all songs with a training play.
    """

    residual_codes: IntArray

    def __init__(
        self,
        data: str | Path | CatalogueDataModule,
        batch_size: int = 0,
        bcl_batch_size: int = 256,
        negatives: int = 512,
        known: list[str] | None = None,
        in_batch: bool = False,
        bcl_sampling: str = "uniform",
        draws: float = 0.0,
        artist_negatives: bool = True,
        users: int = 0,
        history: int = 100,
        candidates: int = 2048,
        workers: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__(data, batch_size=batch_size, workers=workers, seed=seed)
        self.in_batch, self.users, self.history, self.candidates = in_batch, users, history, candidates
        self.bcl_batch_size, self.bcl_sampling, self.negatives = bcl_batch_size, bcl_sampling, negatives
        self.draws, self.artist_negatives = draws, artist_negatives
        self.known = known_songs(self.catalogue) if known is None else known
        self.residual_codes = places(self.catalogue.songs["song_id"], self.known)

    @property
    def residual_size(self) -> int:
        """Number of residual codes: one a known song, and 0 for all others."""
        return len(self.known) + 1

    @cached_property
    def listening(self) -> sparse.csr_matrix:
        """(users, songs): strongest training signal of each user on each known song."""
        return listening_matrix(self.catalogue.plays, self.catalogue.n_users, self.catalogue.n_songs)

    def train_dataloader(self) -> DataLoader[Any]:
        """Pairs, negatives and uniformly drawn songs."""
        pairs, chance, listening = self.catalogue.pairs(), None, None
        batch_size = self.batch_size or automatic_batch_size(len(pairs[0]))
        batches = batches_of(self, len(pairs[0]), batch_size, shuffle=True)
        if self.bcl_sampling == "popularity":
            plays = self.catalogue.songs["popularity"].to_numpy()[self.warm].astype(np.float64)
            chance = plays / plays.sum()
        if self.users:
            listening = Listening(self.listening, self.warm, self.users, self.history, self.candidates)
        per_step = self.bcl_batch_size
        if self.draws > 0:
            per_step = math.ceil(self.draws * len(self.warm) / (len(batches) * batches.world_size))
        same = None if self.artist_negatives else songs_or_artists(self.catalogue)
        drawn = (self.warm, self.negatives, per_step)
        dataset = PairBatches(self.fields, pairs, *drawn, self.residual_codes, self.in_batch, listening, chance, same)
        return loader(dataset, batches, self.workers)

    def val_dataloader(self) -> list[DataLoader[Any]]:
        """Loader 0: warm songs to index; loader 1: cold validation songs that ask.

        Raises:
            UserError: there is nothing to validate with.
        """
        if not len(self.val_positives()[0]):
            raise UserError(f"{self.catalogue.folder}: {NO_VALIDATION}")
        return [self.songs_loader(self.warm), self.songs_loader(self.catalogue.rows("cold_val"))]

    def val_positives(self) -> tuple[IntArray, IntArray]:
        """(cold validation song, warm song with the same listeners)."""
        return self.catalogue.pairs("val_pairs")

    def val_listeners(self) -> tuple[IntArray, IntArray]:
        """(cold validation song, user who listened to it)."""
        return held_out_listeners(self.catalogue, self.catalogue.rows("cold_val"))


def songs_or_artists(catalogue: Catalogue) -> IntArray:
    """A number (S,) that songs of one artist share; a song without an artist has one of its own."""
    artist = pl.col("artist_id").rank("dense").cast(pl.Int64)
    return catalogue.songs.select(artist.fill_null(pl.int_range(pl.len()) + pl.len())).to_series().to_numpy()


def places(songs: pl.Series, known: list[str]) -> IntArray:
    """Row of each song's residual embedding: its place in `known`, counted from 1; 0 for a song that is not there."""
    ids = pl.DataFrame({"song_id": pl.Series(known, dtype=pl.String)}).with_row_index("code", offset=1)
    codes = songs.to_frame("song_id").join(ids, on="song_id", how="left", maintain_order="left")["code"]
    return codes.fill_null(0).to_numpy().astype(np.int64)
