"""Which database a store has, SQLite in a folder or PostgreSQL at a URL; and what reads rows of either."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from serving import sqlite
from serving.store_errors import Row

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def is_url(place: str | Path) -> bool:
    """Whether a store is a database of PostgreSQL."""
    return str(place).startswith(("postgresql://", "postgres://"))


def place_of(place: str | Path) -> str:
    """What a store is called: its folder in full, its URL without a password."""
    if is_url(place):
        from serving.postgres import masked  # here and below: psycopg need not be installed

        return masked(str(place))
    return str(Path(place).resolve())


def open_database(place: str | Path) -> Any:
    """The database of a store: at a URL of PostgreSQL, else in a folder."""
    if is_url(place):
        from serving.postgres import Database as Postgres

        return Postgres(str(place))
    return sqlite.Database(place)


def reading(place: str | Path) -> AbstractContextManager[Any]:
    """A connection that reads a store, which a service may be writing meanwhile.

    Raises:
        UserError: there is no store, or it is damaged or of another version.
    """
    if is_url(place):
        from serving.postgres import reading as reading_postgres

        return reading_postgres(str(place))
    return sqlite.reading(place)


def pages(fetch: Callable[[int], list[Row]], after: int = 0) -> Iterator[list[Row]]:
    """Pages of rows, their number first: `fetch(n)` gives those that follow row n.

    Each page is a read of its own, so a slow reader keeps no version of the file alive and the log can be emptied.
    """
    while rows := fetch(after):
        yield rows
        after = rows[-1][0]


def since_epoch(at: datetime) -> timedelta:
    """Time since 1970, exactly; in UTC where it has no time zone."""
    return (at if at.tzinfo else at.replace(tzinfo=UTC)) - EPOCH
