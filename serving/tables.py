"""The tables of a store, and whether a file is one."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from configs.errors import UserError

APPLICATION, VERSION = 0x46506C79, 1  # in the file's header: whose it is, and the version of TABLES
# Rows are numbered in the order of arrival. Songs may be deleted, and AUTOINCREMENT gives no number of theirs twice;
# plays are never deleted: their numbers have no gaps.
TABLES = f"""
BEGIN IMMEDIATE;
CREATE TABLE songs (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    song_id TEXT NOT NULL UNIQUE,
    about TEXT NOT NULL,  -- JSON
    seconds REAL,
    added_at TEXT NOT NULL
);
CREATE TABLE audio (song INTEGER PRIMARY KEY REFERENCES songs ON DELETE CASCADE, flac BLOB NOT NULL);
CREATE TABLE features (
    number INTEGER PRIMARY KEY,
    song INTEGER NOT NULL REFERENCES songs ON DELETE CASCADE,
    made_by TEXT NOT NULL,
    vectors BLOB NOT NULL,  -- safetensors
    UNIQUE (song, made_by)
);
CREATE TABLE plays (
    number INTEGER PRIMARY KEY,
    user_id TEXT NOT NULL,
    song_id TEXT NOT NULL,  -- of an accepted song or of the catalogue
    played_at INTEGER NOT NULL,  -- microseconds since 1970, UTC
    completed INTEGER NOT NULL,
    favourited INTEGER NOT NULL,
    disliked INTEGER NOT NULL,
    skipped INTEGER NOT NULL,
    source_song_id TEXT
);
-- song_ids: JSON, of the songs that were made; of plays, those that were rejected: [row, sentence]
CREATE TABLE keys (key TEXT PRIMARY KEY, digest TEXT NOT NULL, song_ids TEXT NOT NULL, at REAL NOT NULL);
CREATE INDEX keys_by_age ON keys (at);
PRAGMA application_id = {APPLICATION};
PRAGMA user_version = {VERSION};
COMMIT;
"""


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
