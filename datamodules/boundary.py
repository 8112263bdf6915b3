"""U2I DataModule: labelled plays with drawn negatives, each with its user's profile and history at that moment.

Shapes: B training plays, T history places, M songs scored for a play (its own song and the negatives).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from configs.errors import UserError
from data.arrays import FloatArray, IntArray, group_starts
from data.catalogue import held_out_listeners
from data.fields import SongFields, Vocabulary
from data.profiles import Profile, read_profile
from datamodules.batches import Batch, batches_of, loader
from datamodules.catalogue import CatalogueDataModule
from datamodules.histories import Histories
from retrieval.distinct import distinct

VAL_PAIRS = 1 << 20  # (song, user) pairs at most that the boundary is validated on


def labels(plays: pl.DataFrame, positives: str) -> FloatArray:
    """Label of each play, (plays,): 1 positive, 0 negative.

    A disliked play is negative. With `positives="liked"` so is one explicitly not completed, unless it was favourited.
    An unknown flag speaks against no play: without flags every play is positive, as with `positives="played"`.
    """
    disliked = pl.col("disliked").fill_null(False)
    skipped = (~pl.col("completed")).fill_null(False) & ~pl.col("favourited").fill_null(False)
    negative = disliked | skipped if positives == "liked" else disliked
    return plays.select((~negative).cast(pl.Float32).alias("label"))["label"].to_numpy()


def draw_others(
    song_P: IntArray, song_L: IntArray, user_L: IntArray, users: IntArray, n: int, rng: np.random.Generator
) -> tuple[IntArray, IntArray]:
    """Draw n users who did not listen, uniformly and with replacement, for each of P songs.

    Args:
        song_P: the songs; one may come more than once.
        song_L: song of each known (song, listener) pair, which are distinct.
        user_L: its listener.
        users: whom to draw from, ascending.
        n: draws for each of P.
        rng: draws.

    Returns:
        (users drawn, for which of P). A song that all listened to has none.
    """
    names, of_P = np.unique(song_P, return_inverse=True)
    met = np.isin(song_L, names) & np.isin(user_L, users)
    of_L, at_L = np.searchsorted(names, song_L[met]), np.searchsorted(users, user_L[met])
    order = np.lexsort((at_L, of_L))
    of_L, at_L = of_L[order], at_L[order]
    start = group_starts(of_L, len(names))
    free_P = len(users) - np.diff(start)[of_P]
    possible = np.repeat(np.flatnonzero(free_P), n)
    rank = rng.integers(0, free_P[possible])
    # the r-th of those who did not listen stands after as many listeners as have at most r such users before them
    before_L = at_L - (np.arange(len(at_L)) - start[of_L])
    asked, width = of_P[possible], len(users) + 1
    passed = np.searchsorted(of_L * width + before_L, asked * width + rank, side="right") - start[asked]
    return users[rank + passed], possible


class UserBatches(Dataset[Any]):
    """Users in order: row numbers, profiles, and histories at the end of training time."""

    def __init__(self, fields: SongFields, profile: Profile, histories: Histories, users: IntArray) -> None:
        self.fields, self.profile, self.histories, self.users = fields, profile, histories, users

    def __getitem__(self, batch: Batch) -> dict[str, Any]:
        users = self.users[batch.rows]
        history = self.histories.latest(users)
        history["songs"] = self.fields.gather(history["songs"])
        return {"id": torch.from_numpy(users), **self.profile.gather(users), **history}


class InteractionBatches(Dataset[Any]):
    """A user batch (`models.towers`) for B plays, with `items`, `item`, `label`, `weight` and `log_q`, each (B, M).

    `items` are the fields of distinct songs, `item` says which of them are a play's own song and its negatives, in this
    order. Negatives are drawn uniformly over the warm catalogue, by popularity, or from the batch's other plays; or
    mixed, half from the batch and half uniformly, these being the same for all plays (Yang et al., WWW 2020). A drawn
    song that the user has played has weight 0, and so have all drawn songs of a negative play; a positive play weighs
    what its strength does. `log_q` is the log of Q, how much more often than uniformly a song is drawn. A negative play
    weighs Q: so it keeps its say against the drawn ones, and a score taken less log Q settles where it would with
    uniform draws. Where a batch has fewer songs than are to be drawn from it, each counts for more. The profile of
    a share of the plays' users, `profile_dropout`, is hidden: users who come to a service later have none.
    """

    def __init__(
        self,
        fields: SongFields,
        profile: Profile,
        histories: Histories,
        label: FloatArray,
        songs: IntArray,
        negatives: int,
        sampling: str = "uniform",
        strengths: Sequence[float] = (1.0, 1.0, 1.0),
        profile_dropout: float = 0.0,
    ) -> None:
        self.fields, self.profile, self.histories = fields, profile, histories
        self.label, self.songs, self.negatives, self.sampling = label, songs, negatives, sampling
        self.profile_dropout = profile_dropout
        self.worth = np.array(strengths, dtype=np.float32)[np.clip(histories.strength.astype(int) - 1, 0, 2)]
        # a song without plays is drawn uniformly or not at all, and is no play's own
        plays = np.maximum(np.bincount(histories.song, minlength=histories.n_songs), 1)
        self.by_plays = plays * len(songs) / len(histories.song)  # Q of songs drawn by their plays

    def __getitem__(self, batch: Batch) -> dict[str, Any]:
        rng = np.random.default_rng(batch.seed)
        rows, histories = batch.rows, self.histories
        user, label_B1 = histories.user[rows], self.label[rows][:, None]
        drawn, share = self._draw(rows, rng)
        weight = label_B1 * ~histories.played(user, drawn) * self.negatives / max(1, drawn.shape[1])
        history = histories.before(rows)
        history["songs"] = self.fields.gather(history["songs"])
        song_BM = np.concatenate([histories.song[rows][:, None], drawn], axis=1)
        items, item = np.unique(song_BM, return_inverse=True)
        q_BM = share * self.by_plays[song_BM] + 1 - share
        own_B1 = np.where(label_B1 > 0, self.worth[rows][:, None], q_BM[:, :1])
        return {
            **self.profile.gather(user, rng.random(len(rows)) < self.profile_dropout),
            **history,
            "items": self.fields.gather(items),
            "item": torch.from_numpy(item.reshape(song_BM.shape)),
            "label": torch.from_numpy(np.concatenate([label_B1, np.zeros_like(weight)], axis=1)),
            "weight": torch.from_numpy(np.concatenate([own_B1, weight], axis=1).astype(np.float32)),
            "log_q": torch.from_numpy(np.log(q_BM).astype(np.float32)),
        }

    def _draw(self, rows: IntArray, rng: np.random.Generator) -> tuple[IntArray, float]:
        """Draw negatives of each play, (B, negatives or fewer), and say which share of them is drawn by plays."""
        shape = (len(rows), self.negatives)
        if self.sampling == "uniform":
            return rng.choice(self.songs, shape), 0.0
        if self.sampling == "popularity":
            return rng.choice(self.histories.song, shape), 1.0
        shared = self.negatives // 2 if self.sampling == "mixed" else 0
        shifts = 1 + rng.permutation(len(rows) - 1)[: self.negatives - shared]  # fewer where the batch is smaller
        others = self.histories.song[rows[(np.arange(len(rows))[:, None] + shifts) % len(rows)]]
        drawn = np.hstack([others, np.broadcast_to(rng.choice(self.songs, shared), (len(rows), shared))])
        return drawn, others.shape[1] / max(1, drawn.shape[1])


class BoundaryDataModule(CatalogueDataModule):
    """Batches of the boundary task.

    Raises:
        UserError: there is no training play, or no play counts as positive.
    """

    def __init__(
        self,
        data: str | Path | CatalogueDataModule,
        batch_size: int = 512,
        negatives: int = 4,
        history: int = 50,
        positives: str = "liked",
        sampling: str = "uniform",
        strengths: Sequence[float] = (1.0, 1.0, 1.0),
        profile_dropout: float = 0.0,
        profile_vocabulary: Vocabulary | None = None,
        workers: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__(data, batch_size=batch_size, workers=workers, seed=seed)
        self.drawing = negatives, sampling, strengths, profile_dropout
        folder, plays = self.catalogue.folder, self.catalogue.plays
        if plays.is_empty():
            raise UserError(f"{folder}: no play of a known song, so there is no user to learn from")
        self.histories = Histories(plays, self.catalogue.n_users, self.catalogue.n_songs, history, seed)
        self.label = labels(self.histories.table, positives)
        if not self.label.any():
            raise UserError(f"{folder}: none of {len(self.label)} plays is positive; try objective.positives=played")
        self.active = np.flatnonzero(np.diff(self.histories.start))  # users with training plays
        self.profile = read_profile(self.catalogue.users, self.active, profile_vocabulary)

    def train_dataloader(self) -> DataLoader[Any]:
        """One row a training play."""
        parts = (self.fields, self.profile, self.histories, self.label, self.warm)
        dataset = InteractionBatches(*parts, *self.drawing)
        return loader(dataset, batches_of(self, len(self.label), self.batch_size, shuffle=True), self.workers)

    def val_dataloader(self) -> list[DataLoader[Any]]:
        """Loader 0: cold validation songs to index; loader 1: their listeners, and users drawn beside these.

        Raises:
            UserError: nobody has played a cold validation song.
        """
        listeners = self.val_positives()[0]
        if not len(listeners):
            raise UserError(f"{self.catalogue.folder}: no held-out play of a cold validation song to choose a model by")
        users = distinct(listeners, self.val_pairs[1])
        return [self.songs_loader(self.catalogue.rows("cold_val")), self.users_loader(users)]

    def val_positives(self) -> tuple[IntArray, IntArray]:
        """(user, cold validation song that they played and did not dislike)."""
        song, user = held_out_listeners(self.catalogue, self.catalogue.rows("cold_val"))
        order = np.lexsort((song, user))
        return user[order], song[order]

    @cached_property
    def val_pairs(self) -> tuple[IntArray, IntArray, FloatArray]:
        """(cold validation song, user, label): the pairs that the boundary is validated on, the same in every epoch.

        Each listener is a positive. Beside them stand as many negatives as in training, drawn uniformly among the users
        with training plays who did not listen to that song. Of more than VAL_PAIRS, a sample of the listeners is taken.
        """
        user_L, song_L = self.val_positives()
        rng, n = np.random.default_rng(self.seed), self.drawing[0]
        chosen = np.sort(rng.permutation(len(song_L))[: max(1, VAL_PAIRS // (1 + n))])
        song_P, user_P = song_L[chosen], user_L[chosen]
        drawn, of = draw_others(song_P, song_L, user_L, self.active, n, rng)
        label = np.repeat(np.array([1, 0], dtype=np.float32), [len(song_P), len(drawn)])
        return np.r_[song_P, song_P[of]], np.r_[user_P, drawn], label

    def users_loader(self, users: IntArray, batch_size: int = 1024) -> DataLoader[Any]:
        """`id` and user batch of the given users, in order, with histories at the end of training time."""
        dataset = UserBatches(self.fields, self.profile, self.histories, users)
        return loader(dataset, batches_of(self, len(users), batch_size, shuffle=False))

    def number_statistics(self) -> tuple[Tensor, Tensor]:
        """Centre and spread of each profile number over users with training plays."""
        return self.profile.number_statistics(self.active)
