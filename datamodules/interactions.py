"""U2I DataModule: labelled plays with uniform negatives, each with its user's profile and history at that moment.

Shapes: B training plays, T history places, M songs scored for a play (its own song and the negatives).
Nobody sees his own future: a history ends strictly before the play's time. No target is in its own history.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import lightning as L
import numpy as np
import polars as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from configs.errors import UserError
from datamodules.arrays import BoolArray, FloatArray, IntArray, group_starts, is_member
from datamodules.batches import Batch, EpochBatches, loader
from datamodules.catalogue import Catalogue
from datamodules.fields import SongFields, Vocabulary, read_fields
from datamodules.pairs import SongBatches
from datamodules.profile import Profile, read_profile

NOBODY = -1  # target of a history that is not cut for any song


class Listening:
    """Training plays grouped by user, and which of them a history may hold. Arrays are in play order, (plays,).

    Where plays have times, a history is the latest plays before a moment; an undated play is then in no training
    history, since it may be the future. Where no play has a time, it is the user's other plays, in a seeded order.
    """

    def __init__(self, plays: pl.DataFrame, n_users: int, n_songs: int, length: int, seed: int = 0) -> None:
        self.dated = plays["played_at"].null_count() < plays.height
        if not self.dated:  # the table's own order is that of the song numbers, and `length` would keep the last ones
            by_user = np.lexsort((np.random.default_rng(seed).random(plays.height), plays["user"].to_numpy()))
            plays = plays[by_user]
        self.table, self.length, self.n_songs = plays, length, n_songs
        self.user = plays["user"].to_numpy().astype(np.int64)
        self.song = plays["song"].to_numpy().astype(np.int64)
        self.strength = plays["strength"].to_numpy().astype(np.float32)
        self.start = group_starts(self.user, n_users)
        undated = np.bincount(self.user[plays["played_at"].is_null().to_numpy()], minlength=n_users)
        self.first_dated = self.start[:-1] + undated  # undated plays come first (prepare sorts nulls so)
        time = plays["played_at"].cast(pl.Int64).fill_null(np.iinfo(np.int64).min).to_numpy()
        changes = np.append(True, (np.diff(self.user) != 0) | (np.diff(time) != 0))
        self.moment = np.maximum.accumulate(np.where(changes, np.arange(len(self.user)), 0))  # first play at that time
        self.pairs = np.unique(self.user * n_songs + self.song)

    def before(self, rows: IntArray) -> dict[str, Any]:
        """Histories of training plays: what the user had played strictly before, without the play's own song."""
        user = self.user[rows]
        if self.dated:
            end = self.moment[rows]
            count = end - self.first_dated[user]
            return self._histories(lambda place: end[:, None] - 1 - place, count, self.song[rows])
        start, n = self.start[user][:, None], np.diff(self.start)[user][:, None]
        after = rows[:, None] - start + 1
        return self._histories(lambda place: start + (after + place) % n, n[:, 0] - 1, self.song[rows])

    def latest(self, users: IntArray) -> dict[str, Any]:
        """Histories at the end of training time."""
        end, count = self.start[users + 1], np.diff(self.start)[users]
        return self._histories(lambda place: end[:, None] - 1 - place, count, np.full(len(users), NOBODY))

    def played(self, user_B: IntArray, song_BM: IntArray) -> BoolArray:
        """Whether the users have played the songs in training, (B, M)."""
        return is_member(user_B[:, None] * self.n_songs + song_BM, self.pairs)

    def _histories(
        self, position: Callable[[IntArray], IntArray], count_B: IntArray, target_B: IntArray
    ) -> dict[str, Any]:
        """Distinct songs `songs` (S,), and (B, T) `history` (positions into them), `mask`, `strength`."""
        count_B = np.clip(count_B, 0, self.length)
        place = np.arange(max(1, count_B.max(initial=0)))  # never of width 0: the mask says what is there
        at_BT = np.where(place < count_B[:, None], position(place), 0)
        mask_BT = (place < count_B[:, None]) & (self.song[at_BT] != target_B[:, None])
        songs, history = np.unique(np.where(mask_BT, self.song[at_BT], self.song[0]), return_inverse=True)
        return {
            "songs": songs,
            "history": torch.from_numpy(history.reshape(mask_BT.shape)),
            "mask": torch.from_numpy(mask_BT),
            "strength": torch.from_numpy(np.where(mask_BT, self.strength[at_BT], 0).astype(np.float32)),
        }


def labels(plays: pl.DataFrame, positives: str) -> FloatArray:
    """y of each play, (plays,): 1 positive, 0 negative.

    A disliked play is negative. With `positives="liked"` so is one explicitly not completed, unless it was favourited.
    An unknown flag speaks against no play: without flags every play is positive, as with `positives="played"`.
    """
    disliked = pl.col("disliked").fill_null(False)
    skipped = (~pl.col("completed")).fill_null(False) & ~pl.col("favourited").fill_null(False)
    negative = disliked | skipped if positives == "liked" else disliked
    return plays.select((~negative).cast(pl.Float32).alias("label"))["label"].to_numpy()


class UserBatches(Dataset[Any]):
    """Users in order: row numbers, profiles, and histories at the end of training time."""

    def __init__(self, fields: SongFields, profile: Profile, listening: Listening, users: IntArray) -> None:
        self.fields, self.profile, self.listening, self.users = fields, profile, listening, users

    def __getitem__(self, batch: Batch) -> dict[str, Any]:
        users = self.users[batch.rows]
        history = self.listening.latest(users)
        history["songs"] = self.fields.gather(history["songs"])
        return {"id": torch.from_numpy(users), **self.profile.gather(users), **history}


class InteractionBatches(Dataset[Any]):
    """A user batch (`models.towers`) for B plays, with `items`, `label` (B, M) and `weight` (B, M).

    `items` are the fields of B·M songs: for each play its own song, then uniform negatives over the warm catalogue.
    A drawn song that the user has played has weight 0, and so have all drawn songs of a negative play.
    """

    def __init__(
        self,
        fields: SongFields,
        profile: Profile,
        listening: Listening,
        label: FloatArray,
        songs: IntArray,
        negatives: int,
    ) -> None:
        self.fields, self.profile, self.listening = fields, profile, listening
        self.label, self.songs, self.negatives = label, songs, negatives

    def __getitem__(self, batch: Batch) -> dict[str, Any]:
        rng = np.random.default_rng(batch.seed)
        rows, listening = batch.rows, self.listening
        user, label_B1 = listening.user[rows], self.label[rows][:, None]
        drawn = rng.choice(self.songs, (len(rows), self.negatives))
        weight = label_B1 * ~listening.played(user, drawn)
        history = listening.before(rows)
        history["songs"] = self.fields.gather(history["songs"])
        items_BM = np.concatenate([listening.song[rows][:, None], drawn], axis=1)
        return {
            **self.profile.gather(user),
            **history,
            "items": self.fields.gather(items_BM.ravel()),
            "label": torch.from_numpy(np.concatenate([label_B1, np.zeros_like(weight)], axis=1)),
            "weight": torch.from_numpy(np.concatenate([np.ones_like(label_B1), weight], axis=1)),
        }


class InteractionDataModule(L.LightningDataModule):
    """Batches of the boundary task from a catalogue folder and, if given, a feature folder.

    Raises:
        UserError: there is no training play, or no play counts as positive.
    """

    def __init__(
        self,
        data: str,
        features: str | None = None,
        use: list[str] | None = None,
        min_count: int = 2,
        batch_size: int = 512,
        negatives: int = 4,
        history: int = 50,
        positives: str = "liked",
        workers: int = 0,
        seed: int = 0,
        vocabulary: Vocabulary | None = None,
        profile_vocabulary: Vocabulary | None = None,
    ) -> None:
        super().__init__()
        self.batch_size, self.negatives, self.workers, self.seed = batch_size, negatives, workers, seed
        self.catalogue = Catalogue.read(data)
        self.fields = read_fields(self.catalogue, features, use or [], min_count, vocabulary)
        self.warm = self.catalogue.rows("warm")
        if self.catalogue.plays.is_empty():
            raise UserError(f"{data}: no play of a known song, so there is no user to learn from")
        self.listening = Listening(
            self.catalogue.plays, self.catalogue.n_users, self.catalogue.n_songs, history, self.seed
        )
        self.label = labels(self.listening.table, positives)
        if not self.label.any():
            raise UserError(f"{data}: none of {len(self.label)} plays is positive; try objective.positives=played")
        self.active = np.flatnonzero(np.diff(self.listening.start))  # users with training plays
        self.profile = read_profile(self.catalogue.users, self.active, profile_vocabulary)

    def train_dataloader(self) -> DataLoader[Any]:
        """One row a training play."""
        parts = (self.fields, self.profile, self.listening, self.label, self.warm, self.negatives)
        return loader(
            InteractionBatches(*parts), self._batches(len(self.label), self.batch_size, shuffle=True), self.workers
        )

    def val_dataloader(self) -> list[DataLoader[Any]]:
        """Loader 0: cold validation songs to index; loader 1: their listeners.

        Raises:
            UserError: nobody has played a cold validation song.
        """
        listeners = np.unique(self.val_positives()[0])
        if not len(listeners):
            raise UserError(f"{self.catalogue.folder}: no held-out play of a cold validation song to choose a model by")
        return [self.songs_loader(self.catalogue.rows("cold_val")), self.users_loader(listeners)]

    def val_positives(self) -> tuple[IntArray, IntArray]:
        """(user, cold validation song that he played and did not dislike)."""
        in_val = (self.catalogue.songs["split"] == "cold_val").gather(self.catalogue.cold_plays["song"])
        found = self.catalogue.cold_plays.filter(in_val & (pl.col("strength") > 0)).select("user", "song").unique()
        found = found.sort("user", "song")
        return found["user"].to_numpy().astype(np.int64), found["song"].to_numpy().astype(np.int64)

    def songs_loader(self, songs: IntArray, batch_size: int = 1024) -> DataLoader[Any]:
        """`id` and `fields` of the given songs, in order."""
        nobody = np.zeros(self.catalogue.n_songs, dtype=np.int64)  # no song has a memory here
        return loader(SongBatches(self.fields, songs, nobody), self._batches(len(songs), batch_size, shuffle=False))

    def users_loader(self, users: IntArray, batch_size: int = 1024) -> DataLoader[Any]:
        """`id` and user batch of the given users, in order, with histories at the end of training time."""
        dataset = UserBatches(self.fields, self.profile, self.listening, users)
        return loader(dataset, self._batches(len(users), batch_size, shuffle=False))

    def dense_statistics(self) -> dict[str, tuple[Tensor, float]]:
        """Centre and overall scale of each dense song field over warm songs."""
        return self.fields.dense_statistics(self.warm)

    def number_statistics(self) -> tuple[Tensor, Tensor]:
        """Centre and spread of each profile number over users with training plays."""
        return self.profile.number_statistics(self.active)

    def _batches(self, n: int, batch_size: int, shuffle: bool) -> EpochBatches:
        trainer = self.trainer
        rank, world_size = (trainer.global_rank, trainer.world_size) if trainer else (0, 1)
        return EpochBatches(n, batch_size, self.seed, rank, world_size, shuffle)
