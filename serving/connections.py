"""Connections that are given up: one whose request does not come, and one that does not take its answer."""

from __future__ import annotations

import asyncio
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol


class Connection(H11Protocol):
    """uvicorn's connection, which by itself waits for ever; a body's time is kept by `serving.limits`.

    Args:
        seconds: from the connection's begin, or the last answer's end, until the next request's head is there; and for
            the other side to take anything of what it has asked for.
    """

    def __init__(self, *args: Any, seconds: float, **named: Any) -> None:
        super().__init__(*args, **named)
        self.seconds = seconds
        self.head: asyncio.TimerHandle | None = None
        self.taken: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """It begins."""
        super().connection_made(transport)
        self._expect_head()

    def handle_events(self) -> None:
        """Something came, or an answer is complete and something may have come before."""
        super().handle_events()
        self._expect_head()

    def _expect_head(self) -> None:
        if self.conn.their_state is not h11.IDLE:
            cancel(self.head)
            self.head = None
        elif self.head is None:
            self.head = self.loop.call_later(self.seconds, self.transport.abort)

    def pause_writing(self) -> None:
        """More is ready to be sent than is taken."""
        super().pause_writing()
        self._expect_less(self.transport.get_write_buffer_size() + 1)

    def _expect_less(self, before: int) -> None:
        left = self.transport.get_write_buffer_size()
        if left >= before:
            self.transport.abort()
        else:
            self.taken = self.loop.call_later(self.seconds, self._expect_less, left)

    def resume_writing(self) -> None:
        """It was taken."""
        super().resume_writing()
        cancel(self.taken)

    def connection_lost(self, exc: Exception | None) -> None:
        """It has ended."""
        cancel(self.head)
        cancel(self.taken)
        super().connection_lost(exc)


def cancel(timer: asyncio.TimerHandle | None) -> None:
    """Stop a timer, if there is one."""
    if timer is not None:
        timer.cancel()
