"""Batches: everybody gets what is theirs, whoever is at fault fails alone, and nothing is lost at the end."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import Future

import pytest

from serving.batching import Batcher


def test_what_comes_while_a_batch_is_worked_on_goes_together() -> None:
    began, go, sizes = threading.Event(), threading.Event(), []

    def work(given: Sequence[int]) -> list[int]:
        sizes.append(len(given))
        began.set()
        assert go.wait(10)
        return [one * one for one in given]

    batcher = Batcher(work, size=4)
    first = batcher.submit(0)
    assert began.wait(10)
    futures = [first, *(batcher.submit(n) for n in range(1, 10))]
    go.set()
    assert [future.result(10) for future in futures] == [n * n for n in range(10)]
    assert sizes == [1, 4, 4, 1]
    batcher.close()


def test_only_what_is_at_fault_fails() -> None:
    def work(given: Sequence[int]) -> list[float]:
        return [1 / one for one in given]

    batcher, hold = Batcher(work, size=8), threading.Lock()
    with hold:
        futures = [batcher.submit(n) for n in (1, 2, 0, 4)]
    assert [futures[n].result(10) for n in (0, 1, 3)] == [1, 0.5, 0.25]
    with pytest.raises(ZeroDivisionError):
        futures[2].result(10)
    assert batcher.submit(5).result(10) == 0.2, "the thread goes on"
    batcher.close()


def test_closing_finishes_what_was_submitted_and_takes_no_more() -> None:
    go = threading.Event()

    def work(given: Sequence[int]) -> Sequence[int]:
        assert go.wait(10)
        return given

    batcher = Batcher(work, size=2)
    futures = [batcher.submit(n) for n in range(7)]
    closing = threading.Thread(target=batcher.close)
    closing.start()
    go.set()
    closing.join(10)
    assert [future.result(0) for future in futures] == list(range(7))
    with pytest.raises(RuntimeError):
        batcher.submit(8)
    batcher.close()


def test_who_gave_up_costs_nothing() -> None:
    began, go, worked = threading.Event(), threading.Event(), []

    def work(given: Sequence[int]) -> Sequence[int]:
        worked.extend(given)
        began.set()
        assert go.wait(10)
        return given

    batcher = Batcher(work, size=2)
    first = batcher.submit(0)
    assert began.wait(10)
    gone: Future[int] = batcher.submit(1)
    assert gone.cancel()
    go.set()
    batcher.close()
    assert first.result(0) == 0 and worked == [0]
