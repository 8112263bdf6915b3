"""Dynamic batches: whoever comes while a batch is worked on goes into the next one together.

Nobody waits for a batch to fill up: one that comes alone is worked on at once, and under load batches grow by
themselves. How many may wait is bounded by the requests in flight (`serving.limits`).
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
    """One thread that calls `work` on up to `size` of what has been submitted meanwhile.

    A batch that fails is tried one by one, so that only what is at fault fails.
    """

    def __init__(self, work: Callable[[Sequence[Given]], Sequence[Made]], size: int) -> None:
        self.work, self.size = work, size
        self.waiting: queue.SimpleQueue[tuple[Given, Future[Made]] | None] = queue.SimpleQueue()
        self.thread = threading.Thread(target=self._run, name="batches", daemon=True)
        self.closed, self.lock = False, threading.Lock()
        self.thread.start()

    def submit(self, given: Given) -> Future[Made]:
        """What `work` will have made of it.

        Raises:
            RuntimeError: closed.
        """
        future: Future[Made] = Future()
        with self.lock:
            if self.closed:
                raise RuntimeError("closed")
            self.waiting.put((given, future))
        return future

    def close(self) -> None:
        """Finish what has been submitted, and end."""
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
            # a caller that gave up meanwhile costs nothing
            wanted = [one for one in batch if one is not None and one[1].set_running_or_notify_cancel()]
            if wanted:
                self._answer(wanted)

    def _answer(self, batch: list[tuple[Given, Future[Made]]]) -> None:
        try:
            made = self.work([given for given, _ in batch])
        except Exception as error:
            if len(batch) == 1:
                batch[0][1].set_exception(error)
            else:
                for one in batch:
                    self._answer([one])
            return
        for (_, future), result in zip(batch, made, strict=True):
            future.set_result(result)
