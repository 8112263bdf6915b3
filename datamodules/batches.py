"""Cut an epoch into batches, in one way for every task.

A batch is a function of (seed, epoch, step, rank) and of nothing else: no global random state, no worker state.
That is what makes a resumed run continue exactly, and what lets a dataset build its whole batch in one
vectorised call.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from data.arrays import IntArray
from data.row_shards import ALONE, Ranks


class Batch(NamedTuple):
    """Which rows make a batch, and the seed of everything random in it."""

    rows: IntArray
    seed: tuple[int, ...]


class EpochBatches(Sampler[Batch]):
    """Yields `Batch`es of row numbers 0 … n−1, a fresh permutation each epoch.

    In training (`shuffle=True`) all ranks get the same number of full batches: the permutation is wrapped around to a
    multiple of `batch_size × world_size`, so no rank waits for another and contrastive batches have one size. In
    evaluation rows are dealt in order, each once, but for a rank that would get nothing: it has the last row (rows are
    merged by id).

    An epoch that was cut goes on after the rows it has seen (`go_on`), also with another number of ranks: each row is
    seen once in it, but for those that fill up its last batch.
    """

    def __init__(
        self, n: int, batch_size: int, seed: int = 0, rank: int = 0, world_size: int = 1, shuffle: bool = True
    ) -> None:
        if n < 1 or batch_size < 1:
            raise ValueError(f"need at least one row and a positive batch size, got n={n}, batch_size={batch_size}")
        self.n, self.seed, self.rank, self.world_size, self.shuffle = n, seed, rank, world_size, shuffle
        self.batch_size = min(batch_size, max(1, n // world_size)) if shuffle else batch_size
        self.epoch = 0
        self.seen = (0, 0)  # (epoch, rows) seen by all ranks in training, written by `callbacks.checkpoint.Progress`
        self.start = (0, 0)  # (epoch, rows) that a resumed run has seen

    def go_on(self, epoch: int, rows: int) -> None:
        """Skip the first rows of that epoch."""
        self.seen = self.start = (epoch, rows)

    def rows_done(self) -> int:
        """Number of rows of the current epoch that a resumed run has seen."""
        return self.start[1] if self.start[0] == self.epoch else 0

    def steps_done(self) -> int:
        """Number of batches of the current epoch that are done already."""
        return len(self) - -(-max(0, self.n - self.rows_done()) // (self.batch_size * self.world_size))

    def rows_after(self, step: int) -> int:
        """Number of rows of the current epoch that all ranks have seen after `step` of its batches."""
        return self.rows_done() + (step - self.steps_done()) * self.batch_size * self.world_size

    def set_epoch(self, epoch: int) -> None:
        """Choose the permutation (called by Lightning at the start of every epoch)."""
        self.epoch = epoch

    def __len__(self) -> int:
        if self.shuffle:
            return -(-self.n // (self.batch_size * self.world_size))
        return -(-len(self._in_order()) // self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        if not self.shuffle:
            yield from self._batches(self._in_order(), 0)
            return
        order = np.random.default_rng((self.seed, self.epoch)).permutation(self.n)
        done, seen = self.steps_done(), self.rows_done()
        # filled up from the start of the permutation, also where the run goes on in its middle
        order = np.resize(order, seen + (len(self) - done) * self.batch_size * self.world_size)[seen:]
        yield from self._batches(order[self.rank :: self.world_size], done)

    def _batches(self, order: IntArray, first: int) -> Iterator[Batch]:
        for at in range(0, len(order), self.batch_size):
            step = first + at // self.batch_size
            yield Batch(order[at : at + self.batch_size], (self.seed, self.epoch, step, self.rank))

    def _in_order(self) -> IntArray:
        return np.arange(min(self.rank, self.n - 1), self.n, self.world_size)


class ShardBatches(Sampler[Batch]):
    """Yields `Batch`es of the rows of some shards, in order; no batch has rows of two shards."""

    def __init__(self, shards: list[slice], batch_size: int, seed: int = 0) -> None:
        self.shards, self.batch_size, self.seed = shards, batch_size, seed

    def __len__(self) -> int:
        return sum(-(-(rows.stop - rows.start) // self.batch_size) for rows in self.shards)

    def __iter__(self) -> Iterator[Batch]:
        for rows in self.shards:
            for at in range(rows.start, rows.stop, self.batch_size):
                yield Batch(np.arange(at, min(at + self.batch_size, rows.stop)), (self.seed, at))


class EpochLoader(DataLoader[Any]):
    """A DataLoader that begins an epoch at its first batch.

    Lightning asks a resumed run for its iterator before it has restored the number of the epoch; worker processes would
    then prefetch batches of epoch 0.
    """

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        yield from super().__iter__()

    sampler: EpochBatches

    def state_dict(self) -> dict[str, Any]:
        """Epoch and rows seen in it, which Lightning puts into a checkpoint."""
        epoch, rows = self.sampler.seen
        return {"epoch": epoch, "rows": rows}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from the epoch and rows of a checkpoint."""
        self.sampler.go_on(state["epoch"], state["rows"])


def batches_of(data: Any, n: int, batch_size: int, shuffle: bool) -> EpochBatches:
    """Deal n rows to the rank of a DataModule, by its `seed`; without a trainer there is one rank."""
    ranks = ranks_of(data)
    return EpochBatches(n, batch_size, data.seed, ranks.rank, ranks.size, shuffle)


def ranks_of(data: Any) -> Ranks:
    """Which rank of how many a DataModule is in; without a trainer there is one."""
    if data.trainer is None:
        return ALONE
    return Ranks(data.trainer.global_rank, data.trainer.world_size, data.trainer.strategy.barrier)


def loader(dataset: Dataset[Any], batches: Sampler[Batch], workers: int = 0) -> DataLoader[Any]:
    """A DataLoader whose dataset turns a whole `Batch` into tensors in one call."""
    return EpochLoader(
        dataset,
        sampler=batches,
        batch_size=None,
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=torch.cuda.is_available(),
        generator=torch.Generator(),  # else every new iterator would take a number from torch's own randomness
    )
