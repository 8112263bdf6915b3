"""Batches are a function of (seed, epoch, step, rank): every row, once, on one rank, the same on every run."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from torch.utils.data import Dataset

from data.arrays import group_starts, is_member
from datamodules.batches import Batch, EpochBatches, loader

SHAPES = list(itertools.product([1, 2, 5, 12, 37], [1, 4, 10, 100], [1, 2, 3, 5]))  # n, batch size, world size


def epoch(n: int, size: int, world: int, number: int = 0, shuffle: bool = True, seed: int = 7) -> list[list[Batch]]:
    """The batches of every rank."""
    ranks = [EpochBatches(n, size, seed, rank, world, shuffle) for rank in range(world)]
    for sampler in ranks:
        sampler.set_epoch(number)
    return [list(sampler) for sampler in ranks]


@pytest.mark.parametrize(("n", "size", "world"), SHAPES)
def test_training_covers_every_row_in_equal_full_batches(n: int, size: int, world: int) -> None:
    ranks = epoch(n, size, world)
    lengths = {len(batches) for batches in ranks}
    assert lengths == {len(EpochBatches(n, size, 7, 0, world))}, "a rank with fewer batches would hang the others"
    widths = {len(batch.rows) for batches in ranks for batch in batches}
    assert len(widths) == 1 and widths.pop() <= size
    steps = [np.concatenate([batch.rows for batch in step]) for step in zip(*ranks, strict=True)]
    rows = np.concatenate(steps)
    assert set(rows) == set(range(n)) and len(rows) - n < len(steps[0]), "too many repeats"
    if n >= world:
        assert all(len(np.unique(step)) == len(step) for step in steps), "a song twice in one contrastive batch"


@pytest.mark.parametrize(("n", "size", "world"), SHAPES)
def test_evaluation_deals_every_row_once_in_order(n: int, size: int, world: int) -> None:
    ranks = epoch(n, size, world, shuffle=False)
    assert [len(batches) for batches in ranks] == [len(EpochBatches(n, size, 7, r, world, False)) for r in range(world)]
    dealt = [np.concatenate([batch.rows for batch in batches]) for batches in ranks]  # no rank without a batch
    assert sorted(np.concatenate(dealt[:n])) == list(range(n))
    assert all((np.diff(rows) > 0).all() for rows in dealt)
    assert all(rows.tolist() == [n - 1] for rows in dealt[n:]), "a copy to gather with, which is merged by its id"
    assert all(0 < len(batch.rows) <= size for batches in ranks for batch in batches)


def test_same_epoch_same_batches_and_nothing_else_matters() -> None:
    np.random.seed(1)
    first = epoch(37, 5, 2, number=3)
    np.random.seed(2)
    again = epoch(37, 5, 2, number=3)
    for a, b in zip(itertools.chain(*first), itertools.chain(*again), strict=True):
        assert a.seed == b.seed and np.array_equal(a.rows, b.rows)


def test_order_changes_with_epoch_and_seed() -> None:
    def order(**options: int) -> list[int]:
        return [int(row) for batch in epoch(37, 5, 1, **options)[0] for row in batch.rows]

    assert len({tuple(order(number=number, seed=seed)) for number in range(4) for seed in range(4)}) == 16


def test_batch_seeds_never_repeat() -> None:
    batches = [b for number in range(3) for b in itertools.chain(*epoch(37, 5, 3, number=number))]
    assert len({np.random.default_rng(batch.seed).integers(1 << 62) for batch in batches}) == len(batches)


class Echo(Dataset[Any]):
    def __getitem__(self, batch: Batch) -> tuple[list[int], int]:
        return batch.rows.tolist(), int(np.random.default_rng(batch.seed).integers(1 << 30))


def test_loader_workers_change_nothing() -> None:
    """Two processes give the batches of none, in the same order, with the same randomness."""
    here, there = (list(loader(Echo(), EpochBatches(23, 4, seed=1), workers)) for workers in (0, 2))
    assert here == there and len(here) == 6


@pytest.mark.parametrize(("n", "size"), [(0, 4), (4, 0)])
def test_nothing_to_deal_is_refused(n: int, size: int) -> None:
    with pytest.raises(ValueError, match="at least one row"):
        EpochBatches(n, size)


def test_group_starts_and_is_member_against_loops() -> None:
    rng = np.random.default_rng(0)
    groups = np.sort(rng.integers(0, 9, 40))
    starts = group_starts(groups, 9)
    assert [(groups == g).sum() for g in range(9)] == np.diff(starts).tolist() and starts[-1] == 40
    keys, known = rng.integers(-5, 30, (6, 7)), np.unique(rng.integers(0, 25, 10))
    assert is_member(keys, known).tolist() == [[key in set(known.tolist()) for key in row] for row in keys.tolist()]
    assert not is_member(keys, known[:0]).any()


@pytest.mark.parametrize(("n", "size", "world"), SHAPES)
def test_a_cut_epoch_goes_on_with_the_very_batches_that_were_left(n: int, size: int, world: int) -> None:
    """The same rows, steps and seeds, on every rank; the next epoch is whole."""
    full = epoch(n, size, world, 3)
    for cut in range(len(full[0]) + 1):
        for rank in range(world):
            sampler = EpochBatches(n, size, 7, rank, world)
            sampler.set_epoch(3)
            rows = sampler.rows_after(cut)
            assert rows == cut * sampler.batch_size * world
            resumed = EpochBatches(n, size, 7, rank, world)
            resumed.go_on(3, rows)
            resumed.set_epoch(3)
            left = full[rank][cut:]
            got = list(resumed)
            assert [(one.rows.tolist(), one.seed) for one in got] == [(one.rows.tolist(), one.seed) for one in left]
            assert resumed.steps_done() == cut and resumed.rows_after(len(resumed)) == sampler.rows_after(len(sampler))
            resumed.set_epoch(4)
            whole = epoch(n, size, world, 4)[rank]
            assert [(one.rows.tolist(), one.seed) for one in resumed] == [(b.rows.tolist(), b.seed) for b in whole]


@pytest.mark.parametrize(("before", "after"), [(1, 2), (2, 1), (2, 3), (3, 2), (5, 1), (1, 5)])
@pytest.mark.parametrize("cut", [0, 1, 2, 3])
def test_with_other_ranks_the_rows_that_were_left_are_seen_once(before: int, after: int, cut: int) -> None:
    n, size = 101, 6
    seen = np.concatenate([batch.rows for rank in epoch(n, size, before, 2) for batch in rank[:cut]] or [[]])
    samplers = [EpochBatches(n, size, 7, rank, after) for rank in range(after)]
    for sampler in samplers:
        sampler.go_on(2, cut * size * before)
        sampler.set_epoch(2)
    ranks = [list(sampler) for sampler in samplers]
    assert len({len(batches) for batches in ranks}) == 1 and {len(b.rows) for rank in ranks for b in rank} == {size}
    done = samplers[0].steps_done()
    assert [batch.seed[2] for batch in ranks[0]] == list(range(done, len(samplers[0])))
    rows = np.concatenate([np.concatenate([batch.rows for batch in step]) for step in zip(*ranks, strict=True)])
    left = n - len(seen)
    assert set(rows) | set(seen) == set(range(n))
    repeats = np.bincount(np.concatenate([rows, seen]).astype(int), minlength=n) - 1
    assert repeats.sum() == len(rows) - left < size * after, "but for those that fill up the last batch"
    second = samplers[0].rows_after(done + 1)
    assert second == cut * size * before + size * after
