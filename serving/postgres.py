"""The PostgreSQL database of a store, which several services may share: how it is opened, written and read, and what
its faults are called.

Transactions that write take turns (an advisory lock, let go of after the commit is visible). So rows are committed in
the order of their numbers, and who has read up to number n misses nothing that is written later: a watermark is safe.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

from configs.errors import UserError
from serving.store_errors import BUSY_SECONDS, Row, StoreError, UnsureError

try:
    import psycopg
    from psycopg.conninfo import conninfo_to_dict
    from psycopg_pool import ConnectionPool, PoolClosed, PoolTimeout
except ImportError:
    raise UserError("store=postgresql://… needs psycopg and Alembic: pip install -e '.[serve,postgres]'") from None

MIGRATIONS, VERSION_TABLE = Path(__file__).parent / "migrations", "firstplay_version"
LOCK = 0x46506C79  # of who writes, in this database
CONNECTIONS = 8  # of one service at most; one of them writes
CONNECT_SECONDS = 5.0  # that a request waits for a connection
GONE_SECONDS = 1.0  # that a server which is not reached is taken for gone
# a server that is gone without a word is noticed in half a minute
DEFAULTS: dict[str, Any] = {
    "connect_timeout": int(CONNECT_SECONDS), "application_name": "firstplay", "keepalives_idle": 10,
    "keepalives_interval": 5, "keepalives_count": 3, "tcp_user_timeout": 30_000,
}  # fmt: skip
# A commit is on disk before it is acknowledged, whatever the server's default; who hangs while writing lets others go.
ON_DISK = (
    "set_config('synchronous_commit', coalesce(nullif(current_setting('synchronous_commit'), 'off'), 'on'), false)"
)
SESSION = f"""
SELECT set_config('lock_timeout', '{BUSY_SECONDS:.0f}s', false),
    set_config('idle_in_transaction_session_timeout', '{3 * BUSY_SECONDS:.0f}s', false), {ON_DISK}
"""
MEND = {  # by the first characters of SQLSTATE
    "53100": "make room on the server's disk",
    "53": "the server has no more memory or connections",
    "55P03": "another service has been writing for too long",
    "57": "the server is stopping or starting",
    "58": "check the server's disk",
    "25006": "the server is read-only: name the one that is written",
    "42501": "the user of store= may not do this: grant it",
    "XX": "the server's data are damaged: look at its log",
    "08": "the server is not reached",
}
FAULTS = ("08", "40", "53", "55", "57", "58", "25006", "25P03", "42501", "XX")
logging.getLogger("psycopg.pool").setLevel(logging.ERROR)  # what it warns of is told by StoreError


class Connection:
    """A connection of psycopg that takes the statements of `serving.store`, in which `?` stands for a value."""

    def __init__(self, connection: psycopg.Connection[Row]) -> None:
        self.connection = connection

    def execute(self, query: str, values: Sequence[Any] = ()) -> psycopg.Cursor[Row]:
        """Run a statement."""
        return self.connection.execute(for_psycopg(query), values or None)

    def executemany(self, query: str, rows: Sequence[Sequence[Any]]) -> None:
        """Run a statement for each of the rows, which are sent together."""
        if rows:
            self.connection.cursor().executemany(for_psycopg(query), rows)

    def stream(self, query: str, values: Sequence[Any], size: int) -> Iterator[list[Row]]:
        """Rows of a query in pages; only a page of them is held here."""
        with self.connection.transaction(), self.connection.cursor(name="stream") as cursor:
            cursor.execute(for_psycopg(query), values)
            yield from iter(lambda: cursor.fetchmany(size), [])


@cache
def for_psycopg(query: str) -> Any:
    """A statement with psycopg's placeholders."""
    return query.replace("%", "%%").replace("?", "%s")


class Database:
    """The database at a URL, whose tables are made or brought up to date.

    Raises:
        UserError: the URL is none, or as `check`; the database is not changed then.
        StoreError: here and in every method, if the server is gone, full, read-only or broken. It is connected to
            again as soon as it answers.
    """

    shared = True  # others may write it

    def __init__(self, url: str) -> None:
        self.url, self.place, self.options = url, masked(url), options_of(url)
        self.gone_until = 0.0
        with faults_named(self.place):
            migrate(self.options, self.place)
            self.pool = ConnectionPool(
                kwargs=self.options | {"autocommit": True}, min_size=1, max_size=CONNECTIONS, timeout=CONNECT_SECONDS,
                reconnect_timeout=1.0, configure=prepare, check=ConnectionPool.check_connection, open=True,
            )  # fmt: skip

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """A connection in a transaction, which is committed at the end or leaves nothing; one at a time of all
        services.

        Raises:
            UnsureError: the connection was lost while it was committed.
        """
        with faults_named(self.place), self._connection() as connection:
            connection.execute("BEGIN")
            try:
                connection.execute("SELECT pg_advisory_xact_lock(%s)", (LOCK,))
                yield Connection(connection)
            except BaseException:
                with suppress(psycopg.Error):  # a server that is gone has done it
                    connection.execute("ROLLBACK")
                raise
            try:
                connection.execute("COMMIT")
            except psycopg.Error as error:
                raise UnsureError(f"{self.place} was lost while it was written ({one_line(error)})") from error

    def read(self, query: str, values: Row = ()) -> list[Row]:
        """All rows of a query."""
        with faults_named(self.place), self._connection() as connection:
            return Connection(connection).execute(query, values).fetchall()

    def close(self) -> None:
        """Let go of the server."""
        self.pool.close()

    @contextmanager
    def _connection(self) -> Iterator[psycopg.Connection[Row]]:
        """A connection of the pool. Who waits for one in vain lets the next callers not wait, so that no queue of them
        comes about while the server is gone."""
        if time.monotonic() < self.gone_until:
            raise PoolTimeout
        try:
            with self.pool.connection() as connection:
                yield connection
        except PoolTimeout:
            self.gone_until = time.monotonic() + GONE_SECONDS
            raise


def prepare(connection: psycopg.Connection[Row]) -> None:
    """Set what a new connection needs."""
    connection.execute(SESSION)


@contextmanager
def faults_named(place: str) -> Iterator[None]:
    """Faults of the server within raise StoreError; our own (a broken constraint, wrong SQL) pass as they are."""
    try:
        yield
    except PoolClosed:
        raise StoreError(f"{place} is closed: the service is stopping") from None
    except PoolTimeout as error:
        raise StoreError(f"{place} is not reached in {CONNECT_SECONDS:g} seconds: is its server up?") from error
    except psycopg.Error as error:
        state = error.sqlstate or ""
        gone = not state and isinstance(error, psycopg.OperationalError | psycopg.InterfaceError)
        if not gone and not state.startswith(FAULTS):
            raise
        mend = next((mend for start, mend in MEND.items() if state.startswith(start)), "try again")
        mend = "is the server up, and store= right?" if gone else mend
        raise StoreError(f"{place} cannot be written or read now ({one_line(error)}): {mend}") from error


def one_line(error: psycopg.Error) -> str:
    """What the server says, in one line; it names no password."""
    return " ".join((error.diag.message_primary or str(error)).split())


def options_of(url: str) -> dict[str, Any]:
    """Options of a connection.

    Raises:
        UserError: the URL is none; the reason of libpq may hold the password, and is not given.
    """
    try:
        options = conninfo_to_dict(url)
        if re.fullmatch(r"[0-9,]*", str(options.get("port") or "")) and "@" not in str(options.get("dbname")):
            return DEFAULTS | options | {"client_encoding": "utf8"}
    except psycopg.Error:
        pass
    raise UserError(
        "store=postgresql://…: this is no URL of PostgreSQL (postgresql://user@host:port/database?option=value; "
        "special characters of a password as %XX)"
    )


def masked(url: str) -> str:
    """A URL without its password and options."""
    options = options_of(url)
    user = f"{options['user']}@" if options.get("user") else ""
    port = f":{options['port']}" if options.get("port") else ""
    return f"postgresql://{user}{options.get('host') or ''}{port}/{options.get('dbname') or ''}"


def migrate(options: dict[str, Any], place: str) -> None:
    """Make the tables or bring them up to date, one service at a time, all or nothing.

    Raises:
        UserError: as `check`.
    """
    import sqlalchemy
    from alembic import command
    from alembic.config import Config

    engine = sqlalchemy.create_engine(
        "postgresql+psycopg://", creator=lambda: psycopg.connect(**options), poolclass=sqlalchemy.NullPool
    )
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    try:
        with engine.begin() as connection:
            connection.execute(sqlalchemy.text(f"SELECT pg_advisory_xact_lock({LOCK}), {ON_DISK}"))
            driver: Any = connection.connection.driver_connection
            check(driver, place)
            config.attributes |= {"connection": connection, "version_table": VERSION_TABLE}
            command.upgrade(config, "head")
    except sqlalchemy.exc.DBAPIError as error:
        raise error.orig if isinstance(error.orig, psycopg.Error) else error from None


def versions() -> list[str]:
    """Versions of the tables that are known here, the newest first."""
    from alembic.script import ScriptDirectory

    return [str(one.revision) for one in ScriptDirectory(str(MIGRATIONS)).walk_revisions()]


def check(connection: psycopg.Connection[Row], place: str) -> str | None:
    """Version of the tables; None where there is no table yet.

    Raises:
        UserError: they are another program's or of a later version, or the database does not hold all characters, or
            has not the schema.
    """
    encoding, schema, ours, tables = connection.execute(
        "SELECT current_setting('server_encoding'), current_schema(), to_regclass(%s) IS NOT NULL, "
        "(SELECT count(*) FROM pg_tables WHERE schemaname = current_schema())",
        (VERSION_TABLE,),
    ).fetchall()[0]
    if encoding != "UTF8":
        raise UserError(f"{place} has the encoding {encoding}: make a database with ENCODING 'UTF8'")
    if schema is None:
        raise UserError(f"{place} has no schema of the name in its options: CREATE SCHEMA makes it")
    if not ours:
        if tables:
            raise UserError(f"{place} is not a store but another program's database: choose another one, or a schema")
        return None
    (version,) = connection.execute(f"SELECT version_num FROM {VERSION_TABLE}").fetchall()[0]
    if version not in versions():
        newest = versions()[0]
        raise UserError(f"{place} is of a later FirstPlay (version {version}, here {newest}): install that one")
    return str(version)


@contextmanager
def reading(url: str) -> Iterator[Connection]:
    """A connection that reads a store, which services may be writing meanwhile; each statement for itself.

    Raises:
        UserError: there is no store, or as `check`.
    """
    place, options = masked(url), options_of(url)
    with faults_named(place), psycopg.connect(**options, autocommit=True) as connection:
        version = check(connection, place)
        if version is None:
            raise UserError(f"{place} is empty: no service has begun there (python -m serving store=…)")
        if version != versions()[0]:
            raise UserError(f"{place} is of an earlier FirstPlay: start a service once, which brings it up to date")
        yield Connection(connection)
