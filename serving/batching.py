"""Dynamic batching: items submitted while a batch is processed form the next batch.

No item waits for a batch to fill: a single one is processed at once, and batches grow under load. The queue is bounded
by the limit of requests in flight (`serving.limits`).
"""

from __future__ import annotations

import queue
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

Given = TypeVar("Given")
Made = TypeVar("Made")


class Batcher(Generic[Given, Made]):
    """A thread that calls `work` on batches of up to `size` submitted items.

    The items of a failed batch are retried one by one, so that only faulty ones fail.
    """

    def __init__(self, work: Callable[[Sequence[Given]], Sequence[Made]], size: int) -> None:
        self.work, self.size = work, size
        self.waiting: queue.SimpleQueue[tuple[Given, Future[Made]]] = queue.SimpleQueue()
        self.thread = ThreadPoolExecutor(1, "batches")

    def submit(self, given: Given) -> Future[Made]:
        """Queue an item; returns a future of its result.

        Raises:
            RuntimeError: the batcher is closed.
        """
        future: Future[Made] = Future()
        self.waiting.put((given, future))
        self.thread.submit(self._next)  # which finds nothing if an earlier batch took this item too
        return future

    def close(self) -> None:
        """Process the submitted items, and stop."""
        self.thread.shutdown()

    def _next(self) -> None:
        batch: list[tuple[Given, Future[Made]]] = []
        while len(batch) < self.size and not self.waiting.empty():
            given, future = self.waiting.get()
            if future.set_running_or_notify_cancel():
                batch.append((given, future))
        if batch:
            self._answer(batch)

    def _answer(self, batch: list[tuple[Given, Future[Made]]]) -> None:
        try:
            made = self.work([given for given, _ in batch])
        except Exception as error:
            if len(batch) == 1:
                batch[0][1].set_exception(error)
            else:
                for item in batch:
                    self._answer([item])
            return
        for (_, future), result in zip(batch, made, strict=True):
            future.set_result(result)
