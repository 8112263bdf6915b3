"""The SQLite file of a store: its tables, how it is opened, written and read, and what its faults are called.

A write-ahead log with an fsync at each commit: what is committed survives kill -9 and power loss, and nobody who reads
waits for it to be written.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from threading import Lock

from configs.errors import UserError
from serving.store_errors import BUSY_SECONDS, Row, StoreError

FILE = "songs.sqlite"
WAL_BYTES = 64 << 20  # the log is cut to this when it has grown beyond it

MEND = {
    sqlite3.SQLITE_FULL: "make room on the disk",
    sqlite3.SQLITE_IOERR: "check the disk, its quota and limits on the size of files",
    **dict.fromkeys((sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN), "the folder and its files must be writable"),
    sqlite3.SQLITE_BUSY: "another program is writing it",
    sqlite3.SQLITE_CORRUPT: "stop the service and put a copy back",
}
APPLICATION, VERSION = 0x46506C79, 4  # in the file's header: whose it is, and the version of TABLES
# Rows are numbered in the order of arrival. Songs and their deletions are one log: a number is of one or of the other.
# Plays are never deleted, nor is what users have said of being named: their numbers have no gaps.
PLAYS = """
CREATE TABLE plays (
    number INTEGER PRIMARY KEY,
    user_id TEXT NOT NULL,
    song_id TEXT NOT NULL,  -- of an accepted song or of the catalogue
    played_at INTEGER NOT NULL,  -- microseconds since 1970, UTC
    completed INTEGER,  -- here and below, null: not known
    favourited INTEGER,
    disliked INTEGER,
    skipped INTEGER,
    source_song_id TEXT
);
"""
DELETIONS = "CREATE TABLE deletions (number INTEGER PRIMARY KEY, song_id TEXT NOT NULL);"
OPT_OUTS = """
CREATE TABLE opt_outs (  -- the last row of a user holds
    number INTEGER PRIMARY KEY,
    user_id TEXT NOT NULL,
    opted_out INTEGER NOT NULL,
    at INTEGER NOT NULL  -- microseconds since 1970, UTC
);
CREATE INDEX opt_outs_by_user ON opt_outs (user_id, number);
"""
TABLES = f"""
BEGIN IMMEDIATE;
CREATE TABLE songs (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    song_id TEXT NOT NULL UNIQUE,
    about TEXT NOT NULL,  -- JSON
    seconds REAL,
    added_at TEXT NOT NULL
);
{DELETIONS}
CREATE TABLE audio (song INTEGER PRIMARY KEY REFERENCES songs ON DELETE CASCADE, flac BLOB NOT NULL);
CREATE TABLE features (
    number INTEGER PRIMARY KEY,
    song INTEGER NOT NULL REFERENCES songs ON DELETE CASCADE,
    made_by TEXT NOT NULL,
    vectors BLOB NOT NULL,  -- safetensors
    UNIQUE (song, made_by)
);
{PLAYS}
{OPT_OUTS}
-- song_ids: JSON, of the songs that were made; of plays, those that were rejected: [row, sentence]
CREATE TABLE keys (key TEXT PRIMARY KEY, digest TEXT NOT NULL, song_ids TEXT NOT NULL, at REAL NOT NULL);
CREATE INDEX keys_by_age ON keys (at);
PRAGMA application_id = {APPLICATION};
PRAGMA user_version = {VERSION};
COMMIT;
"""
TO_NEXT = {
    # a mark that was not given was false
    1: f"ALTER TABLE plays RENAME TO plays_1; {PLAYS} INSERT INTO plays SELECT * FROM plays_1; DROP TABLE plays_1;",
    # a deletion left no trace
    2: DELETIONS,
    3: OPT_OUTS,
}  # from each earlier version


class Connection(sqlite3.Connection):
    """A connection that gives long answers in pages."""

    def stream(self, query: str, values: Row, size: int) -> Iterator[list[Row]]:
        """Rows of a query in pages."""
        found = self.execute(query, values)
        return iter(lambda: found.fetchmany(size), [])


class Database:
    """The file of a store in `folder`, which is made if it is not there: one connection writes, others read.

    Raises:
        UserError: another service has it, or as `check`; the file is not changed then.
        StoreError: here and in every method, if the disk is full, read-only or broken.
    """

    shared = False  # no other service writes it

    def __init__(self, folder: str | Path) -> None:
        self.path = Path(folder) / FILE
        self.place = str(self.path)
        self.lock, self.closed = Lock(), False
        self.held = hold(self.path.parent)
        with ExitStack() as undo, faults_named(self.path):
            undo.callback(os.close, self.held)
            self.writer = open_to_write(self.path)
            undo.pop_all()

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """The writing connection in a transaction, which is committed at the end or leaves nothing."""
        with self.lock, faults_named(self.path):
            self.check_open()
            self.writer.execute("BEGIN IMMEDIATE")
            try:
                yield self.writer
                self.writer.execute("COMMIT")
            except BaseException:
                if self.writer.in_transaction:  # a full disk may have ended it already
                    self.writer.execute("ROLLBACK")
                raise

    def read(self, query: str, values: Row = ()) -> list[Row]:
        """All rows of a query, by a connection of its own."""
        self.check_open()
        with faults_named(self.path), closing(connect(self.path)) as connection:
            return connection.execute(query, values).fetchall()

    def check_open(self) -> None:
        """Raise StoreError after `close`."""
        if self.closed:
            raise StoreError(f"{self.path} is closed: the service is stopping")

    def close(self) -> None:
        """End it, and put what the log holds into the file as far as nobody is reading it."""
        with self.lock:
            if self.closed:
                return
            self.closed = True
            with suppress(sqlite3.Error):  # what is in the log is safe there too
                self.writer.execute("PRAGMA wal_checkpoint")
            self.writer.close()
            os.close(self.held)


@contextmanager
def faults_named(path: Path) -> Iterator[None]:
    """Faults of the disk within raise StoreError; our own (a broken constraint, wrong SQL) pass as they are."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        code = getattr(error, "sqlite_errorcode", None)  # its lowest byte is the kind; 1 is wrong SQL
        if type(error) not in (sqlite3.DatabaseError, sqlite3.OperationalError) or code == sqlite3.SQLITE_ERROR:
            raise
        mend = MEND.get((code or 0) & 0xFF, "try again")
        raise StoreError(f"{path} cannot be written or read now ({error}): {mend}") from error


def hold(folder: Path) -> int:
    """Make a folder and keep other services out of it, until the descriptor that is returned is closed.

    Not by a lock on the database: SQLite's own would go when its descriptor is closed.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        held = os.open(folder, os.O_RDONLY)
    except OSError as error:
        raise StoreError(f"{folder} cannot hold a store ({error.strerror}): choose another store=") from error
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(held)
        raise UserError(f"another service uses the store {folder}: stop it, or choose another store=") from None
    return held


def connect(path: Path, write: bool = False) -> Connection:
    """A connection that any thread may use, one at a time; without `write` it changes nothing and makes no file."""
    uri = f"{path.resolve().as_uri()}?mode={'rwc' if write else 'ro'}"
    connection = sqlite3.connect(
        uri, uri=True, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False, factory=Connection
    )
    if write:
        log = ("journal_mode = WAL", "synchronous = FULL", f"journal_size_limit = {WAL_BYTES}")
        for pragma in (*log, "foreign_keys = ON"):
            connection.execute(f"PRAGMA {pragma}")
    return connection


def open_to_write(path: Path) -> Connection:
    """The writing connection of a store, which is made if it is not there.

    Raises:
        UserError: as `check`; the file is not changed then.
    """
    new = not path.exists()
    if not new:
        with closing(connect(path)) as connection:  # a writing one would already put the log into the file
            new = check(connection, path)
    connection = connect(path, write=True)
    if new:
        connection.executescript(TABLES)
    for version in range(connection.execute("PRAGMA user_version").fetchone()[0], VERSION):
        connection.executescript(f"BEGIN IMMEDIATE; {TO_NEXT[version]} PRAGMA user_version = {version + 1}; COMMIT;")
    return connection


def check(connection: sqlite3.Connection, path: Path) -> bool:
    """Whether the file has no table yet: its maker was ended before they were committed.

    All pages are read, but SQLite keeps no checksums: a wrong byte within a text or a recording is not seen.

    Raises:
        UserError: it is damaged, another program's, or of a later version.
    """
    try:
        header = (connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version"))
        application, version = header
        empty = not connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        if application != APPLICATION and not empty:
            raise UserError(f"{path} is not a store but another program's database: choose another folder")
        if version > VERSION:
            raise UserError(f"{path} is of a later FirstPlay (version {version}, here {VERSION}): install that one")
        found = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    except sqlite3.DatabaseError as error:
        if isinstance(error, sqlite3.OperationalError):
            raise
        found = str(error)
    if found != "ok":
        reason = " ".join(found.split())
        raise UserError(f"{path} is damaged ({reason}) and was left as it is: put a copy back, or move it away")
    return empty


@contextmanager
def reading(folder: str | Path) -> Iterator[Connection]:
    """A connection that reads the store of a folder.

    Raises:
        UserError: there is no store, or as `check`.
    """
    path = Path(folder) / FILE
    if not path.is_file():
        raise UserError(f"{folder} is not a store: it has no {FILE} (made by: python -m serving store={folder})")
    with faults_named(path), closing(connect(path)) as file:
        if check(file, path):
            raise UserError(f"{path} is empty: its service was ended before it had begun")
        if file.execute("PRAGMA user_version").fetchone()[0] < VERSION:
            raise UserError(f"{path} is of an earlier FirstPlay: start its service once, which brings it up to date")
        yield file
