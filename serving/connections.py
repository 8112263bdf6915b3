"""Time out connections that send no request, or that do not read their answer."""

from __future__ import annotations

import asyncio
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol


class Connection(H11Protocol):
    """uvicorn's connection with timeouts, which uvicorn lacks; `serving.limits` has those of bodies.

    Args:
        seconds: timeout of receiving the next request's head, from the start of the connection or the end of the last
            answer; and of the client reading any part of an answer.
    """

    def __init__(self, *args: Any, seconds: float, **named: Any) -> None:
        super().__init__(*args, **named)
        self.seconds = seconds
        self.head: asyncio.TimerHandle | None = None
        self.taken: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start waiting for the first head."""
        super().connection_made(transport)
        self._expect_head()

    def handle_events(self) -> None:
        """Restart or stop waiting for a head, after data has arrived or an answer is complete."""
        super().handle_events()
        self._expect_head()

    def _expect_head(self) -> None:
        if self.conn.their_state is not h11.IDLE:
            cancel(self.head)
            self.head = None
        elif self.head is None:
            self.head = self.loop.call_later(self.seconds, self.transport.abort)

    def pause_writing(self) -> None:
        """Start waiting for the client to read, since the write buffer is full."""
        super().pause_writing()
        self._expect_less(self.transport.get_write_buffer_size() + 1)

    def _expect_less(self, before: int) -> None:
        left = self.transport.get_write_buffer_size()
        if left >= before:
            self.transport.abort()
        else:
            self.taken = self.loop.call_later(self.seconds, self._expect_less, left)

    def resume_writing(self) -> None:
        """Stop waiting for the client to read."""
        super().resume_writing()
        cancel(self.taken)

    def connection_lost(self, exc: Exception | None) -> None:
        """Cancel the timers of an ended connection."""
        cancel(self.head)
        cancel(self.taken)
        super().connection_lost(exc)


def cancel(timer: asyncio.TimerHandle | None) -> None:
    """Stop a timer, if there is one."""
    if timer is not None:
        timer.cancel()
