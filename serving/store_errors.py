"""What both databases of a store share: what a row is, how long they wait, and what their faults are called."""

from __future__ import annotations

from typing import Any

from configs.errors import UserError

BUSY_SECONDS = 10.0  # how long a lock of another process is waited for
Row = tuple[Any, ...]


class StoreError(UserError):
    """The store could not be written or read (disk full, read-only, I/O error); nothing of the call is kept."""


class UnsureError(StoreError):
    """It is not known whether the store has kept what it was given."""
