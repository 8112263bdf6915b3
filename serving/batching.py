"""Dynamic batching: items submitted while a batch is processed form the next batch.

No item waits for a batch to fill: a single one is processed at once, and batches grow under load. The queue is bounded
by the limit of requests in flight (`serving.limits`).
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any, Generic, TypeVar

Given = TypeVar("Given")
Made = TypeVar("Made")


class Batcher(Generic[Given, Made]):
    """A thread that calls `work` on batches of up to `size` submitted items.

    The items of a failed batch are retried one by one, so that only faulty ones fail.
    """

    def __init__(self, work: Callable[[Sequence[Given]], Sequence[Made]], size: int) -> None:
        self.work, self.size = work, size
        self.waiting: queue.SimpleQueue[tuple[Given, Future[Made]] | None] = queue.SimpleQueue()
        self.thread = threading.Thread(target=self._run, name="batches", daemon=True)
        self.closed, self.lock = False, threading.Lock()
        self.thread.start()

    def submit(self, given: Given) -> Future[Made]:
        """Queue an item; returns a future of its result.

        Raises:
            RuntimeError: the batcher is closed.
        """
        future: Future[Made] = Future()
        with self.lock:
            if self.closed:
                raise RuntimeError("closed")
            self.waiting.put((given, future))
        return future

    def close(self) -> None:
        """Process the submitted items, and stop."""
        with self.lock:
            if not self.closed:
                self.closed = True
                self.waiting.put(None)
        self.thread.join()

    def _run(self) -> None:
        last = False
        while not last:
            batch: list[Any] = [self.waiting.get()]
            while len(batch) < self.size and batch[-1] is not None and not self.waiting.empty():
                batch.append(self.waiting.get())
            last = batch[-1] is None
            # cancelled items are not processed
            pending = [item for item in batch if item is not None and item[1].set_running_or_notify_cancel()]
            if pending:
                self._answer(pending)

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
