"""What the service must not lose: the songs and plays that it accepted, in an SQLite file or in PostgreSQL.

A call that returns is committed and on disk; one that raises has changed nothing. Threads may call as they like: one
writes at a time, readers wait for nobody. One process serves a store in a file; several may share one in PostgreSQL,
and each follows what the others write: there are three logs, of songs and their deletions, of plays and of opt-outs,
whose rows are numbered without gaps in the order of their commits. Statements are written once, in the SQL of both
databases.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from data.arrays import FloatArray
from data.contract.columns import DAY_OF_RELEASE
from serving.database import EPOCH, open_database, pages, since_epoch
from serving.refusals import Refused
from serving.store_errors import Row, StoreError

SONGS, PLAYS = 200, 5000  # rows read at a time
KEY_SECONDS = 24 * 3600.0  # that a key is remembered at least
FASTER = "another request with this Idempotency-Key was faster: ask again"
MICROSECOND = timedelta(microseconds=1)
# Features of the encoder that is asked for, else the last that were made.
READ_SONGS = """
SELECT songs.number, song_id, about, seconds, added_at, made_by, vectors FROM songs
LEFT JOIN features ON features.number =
    (SELECT number FROM features WHERE song = songs.number ORDER BY made_by = ? DESC, number DESC LIMIT 1)
WHERE songs.number > ? ORDER BY songs.number LIMIT ?
"""
# Songs and deletions of one page are of one moment: what the page deletes is older than what it adds under that id.
READ_CHANGES = f"""
SELECT * FROM ({READ_SONGS}) AS added UNION ALL
SELECT * FROM (
    SELECT number, song_id, NULL, CAST(NULL AS DOUBLE PRECISION), NULL, NULL, CAST(NULL AS BYTEA)
    FROM deletions WHERE number > ? ORDER BY number LIMIT ?
) AS deleted
ORDER BY 1 LIMIT ?
"""
LAST_CHANGE = """
SELECT coalesce(max(number), 0) FROM (
    SELECT max(number) AS number FROM songs UNION ALL SELECT max(number) FROM deletions
) AS both_kinds
"""
LAST_PLAY, LAST_OPT_OUT, LAST_FEATURES = (
    f"SELECT coalesce(max(number), 0) FROM {table}" for table in ("plays", "opt_outs", "features")
)
READ_PLAYS = """
SELECT number, user_id, song_id, played_at, completed, favourited, disliked, skipped, source_song_id FROM plays
WHERE number > ? ORDER BY number LIMIT ?
"""
# Numbers of plays have no gaps: the last one is their count.
COUNTS = f"SELECT (SELECT count(*) FROM songs), ({LAST_PLAY})"
ADD_SONG = """
INSERT INTO songs (number, song_id, about, seconds, added_at) VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING
"""
ADD_FEATURES = "INSERT INTO features (number, song, made_by, vectors) VALUES (?, ?, ?, ?)"
PUT_FEATURES = """
INSERT INTO features (number, song, made_by, vectors)
SELECT CAST(? AS BIGINT), number, ?, ? FROM songs WHERE song_id = ?
ON CONFLICT (song, made_by) DO UPDATE SET number = excluded.number, vectors = excluded.vectors
"""
ADD_PLAY = """
INSERT INTO plays (number, user_id, song_id, played_at, completed, favourited, disliked, skipped, source_song_id)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
READ_OPT_OUTS = "SELECT number, user_id, opted_out FROM opt_outs WHERE number > ? ORDER BY number LIMIT ?"
# Only what changes something: a list that is sent every day adds nothing.
ADD_OPT_OUT = f"""
INSERT INTO opt_outs (number, user_id, opted_out, at)
SELECT ({LAST_OPT_OUT}) + 1, CAST(? AS TEXT), ?, CAST(? AS BIGINT) WHERE
    coalesce((SELECT opted_out FROM opt_outs WHERE user_id = ? ORDER BY number DESC LIMIT 1), FALSE) <> ?
"""
ADD_KEY = "INSERT INTO keys (key, digest, song_ids, at) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING"


class Exists(Refused):
    """Songs of these ids are there already (or twice among the given); none was added."""

    def __init__(self, song_ids: list[str]) -> None:
        super().__init__(409, f"there is a song {song_ids[0]!r} already")
        self.song_ids = song_ids


class KeyReused(Refused):
    """The idempotency key belongs to another request, or to the same one that was faster."""


@dataclass(frozen=True)
class StoredSong:
    """A song that the service accepted."""

    song_id: str
    about: dict[str, Any]  # title, lyrics, language, artist_id, genres, tags, and released_at if it was given: as JSON
    seconds: float | None  # of audio
    added_at: str  # ISO 8601, UTC
    features: dict[str, FloatArray]  # vectors by the encoder, NaN where one is missing
    made_by: str  # fingerprint of that encoder

    @property
    def described(self) -> dict[str, Any]:
        """Description that the models encode; a song without a date of release has the day on which it arrived."""
        return {DAY_OF_RELEASE: self.added_at[:10]} | self.about


@dataclass(frozen=True)
class Play:
    """A play that the service was sent."""

    user_id: str
    song_id: str
    played_at: datetime | None = None  # UTC where it has no time zone; None: when it arrives
    completed: bool | None = None  # here and below, None: not known
    favourited: bool | None = None
    disliked: bool | None = None
    skipped: bool | None = None
    source_song_id: str | None = None  # the song beside which it was recommended

    @property
    def settled(self) -> Play:
        """The play as evidence: one that was skipped was not completed, whatever was said (as `serving.feedback`)."""
        return replace(self, completed=False) if self.skipped else self


class Store:
    """A store in a folder, which is made if it is not there, or at a URL of PostgreSQL; close it at the end.

    Raises:
        UserError: another service has the folder; or the store is damaged, another program's, or of a later version;
            it is left as it is.
        StoreError: here and in every method, if the disk is full, read-only or broken, or the server is gone.
    """

    def __init__(self, place: str | Path) -> None:
        self.database = open_database(place)
        self.shared: bool = self.database.shared  # whether other services may write it

    def add_songs(
        self, songs: Sequence[tuple[StoredSong, bytes | None]], key: str | None = None, digest: str = ""
    ) -> int:
        """Keep songs and their recordings (FLAC), all or none, and that `key` stood for a request of this `digest`.

        Returns:
            The number of the first; the others follow it.

        Raises:
            Exists: a song of that id is there, or two of the given have one id.
            KeyReused: the key is there: `answered` tells with what.
        """
        rows = [(song.song_id, as_json(song.about), song.seconds, song.added_at) for song, _ in songs]
        vectors = [as_bytes(song.features) for song, _ in songs]
        with self.database.writing() as connection:
            remember(connection, key, digest, [song.song_id for song, _ in songs])
            first, made_first = next_of(connection, LAST_CHANGE), next_of(connection, LAST_FEATURES)
            there = []
            for at, ((song, flac), row, made) in enumerate(zip(songs, rows, vectors, strict=True)):
                number = first + at
                if not connection.execute(ADD_SONG, (number, *row)).rowcount:
                    there.append(song.song_id)
                    continue
                connection.execute(ADD_FEATURES, (made_first + at, number, song.made_by, made))
                if flac is not None:
                    connection.execute("INSERT INTO audio (song, flac) VALUES (?, ?)", (number, flac))
            if there:
                raise Exists(there)
        return first

    def delete_song(self, song_id: str) -> int | None:
        """Remove a song, its recording and features; None if it is not there, else the number of the deletion. Plays
        of it stay."""
        with self.database.writing() as connection:
            number = next_of(connection, LAST_CHANGE)
            if not connection.execute("DELETE FROM songs WHERE song_id = ?", (song_id,)).rowcount:
                return None
            connection.execute("INSERT INTO deletions (number, song_id) VALUES (?, ?)", (number, song_id))
        return number

    def songs(self, made_by: str = "", after: int = 0) -> Iterator[tuple[int, StoredSong]]:
        """Songs in the order of arrival, each with its number, read as they are asked for; those that follow song
        number `after`. With features by `made_by` where it made any, else the last that were made."""
        for page in pages(lambda after: self.database.read(READ_SONGS, (made_by, after, SONGS)), after):
            yield from ((row[0], self.song_of(row)) for row in page)

    def changes(self, made_by: str = "", after: int = 0) -> Iterator[tuple[int, list[str], list[StoredSong]]]:
        """What follows number `after` in the log of songs, in pages: the last number; ids of songs that were deleted;
        then songs that are there, as `songs` gives them."""
        for page in pages(lambda last: self.database.read(READ_CHANGES, (made_by, *(last, SONGS) * 2, SONGS)), after):
            there = [row for row in page if row[2] is not None]
            yield page[-1][0], [row[1] for row in page if row[2] is None], [self.song_of(row) for row in there]

    def last(self) -> tuple[int, int, int]:
        """Last numbers of the logs: of songs, of plays, of opt-outs."""
        ((change, play, opt_out),) = self.database.read(f"SELECT ({LAST_CHANGE}), ({LAST_PLAY}), ({LAST_OPT_OUT})")
        return change, play, opt_out

    def audio(self, song_id: str) -> bytes | None:
        """The recording of a song as FLAC; None if there is no such song, or it has none."""
        found = self.database.read(
            "SELECT flac FROM audio WHERE song = (SELECT number FROM songs WHERE song_id = ?)", (song_id,)
        )
        return found[0][0] if found else None

    def put_features(self, made_by: str, features: dict[str, dict[str, FloatArray]]) -> None:
        """Keep features by song id, made by another encoder, beside those that are there; unknown songs are skipped."""
        rows = [(made_by, as_bytes(vectors), song_id) for song_id, vectors in features.items()]
        with self.database.writing() as connection:
            connection.executemany(PUT_FEATURES, numbered(next_of(connection, LAST_FEATURES), rows))

    def add_plays(
        self, plays: Sequence[Play], key: str | None = None, digest: str = "", rejected: Sequence[tuple[int, str]] = ()
    ) -> int:
        """Keep plays, all or none, and that `key` stood for a request of this `digest`, others of which were rejected.

        Returns:
            The number of the first; the others follow it.

        Raises:
            KeyReused: the key is there: `answered` tells with what.
        """
        now = datetime.now(UTC)
        rows = [
            (play.user_id, play.song_id, since_epoch(play.played_at or now) // MICROSECOND,
             play.completed, play.favourited, play.disliked, play.skipped, play.source_song_id)
            for play in plays
        ]  # fmt: skip
        with self.database.writing() as connection:
            remember(connection, key, digest, rejected)
            first = next_of(connection, LAST_PLAY)
            connection.executemany(ADD_PLAY, numbered(first, rows))
        return first

    def plays(self, after: int = 0) -> Iterator[tuple[int, Play]]:
        """Plays in the order of arrival, each with its number (1, 2, …), read as they are asked for; those that
        follow play number `after`."""
        for page in pages(lambda after: self.database.read(READ_PLAYS, (after, PLAYS)), after):
            for number, user_id, song_id, at, completed, favourited, disliked, skipped, source in page:
                marks = [None if mark is None else bool(mark) for mark in (completed, favourited, disliked, skipped)]
                played_at = EPOCH + at * MICROSECOND
                yield number, Play(user_id, song_id, played_at, marks[0], marks[1], marks[2], marks[3], source)

    def set_opt_outs(self, user_ids: Sequence[str], opted_out: bool) -> int:
        """Keep that users have opted out of being named, or in again, all or none; for how many that is a change."""
        at = since_epoch(datetime.now(UTC)) // MICROSECOND
        with self.database.writing() as connection:
            first = next_of(connection, LAST_OPT_OUT)
            connection.executemany(ADD_OPT_OUT, [(user_id, opted_out, at, user_id, opted_out) for user_id in user_ids])
            return next_of(connection, LAST_OPT_OUT) - first

    def opt_outs(self, after: int = 0) -> Iterator[tuple[int, str, bool]]:
        """Who has opted out (or in again: False), in the order of arrival, each with its number (1, 2, …), read as they
        are asked for; those that follow number `after`."""
        for page in pages(lambda after: self.database.read(READ_OPT_OUTS, (after, PLAYS)), after):
            yield from ((number, user_id, bool(opted_out)) for number, user_id, opted_out in page)

    def counts(self) -> dict[str, int]:
        """How many `songs` and `plays` there are."""
        return dict(zip(("songs", "plays"), self.database.read(COUNTS)[0], strict=True))

    def answered(self, key: str, digest: str) -> list[Any] | None:
        """Ids of the songs that a request with this key made, or (row, sentence) of each play that it was refused; None
        if the key is new.

        Raises:
            KeyReused: that request had another digest.
        """
        found = self.database.read("SELECT digest, song_ids FROM keys WHERE key = ?", (key,))
        if not found:
            return None
        if found[0][0] != digest:
            raise KeyReused(409, "this Idempotency-Key was used for another request")
        return list(json.loads(found[0][1]))

    def close(self) -> None:
        """End it; calls that follow raise StoreError."""
        self.database.close()

    def song_of(self, row: Row) -> StoredSong:
        """A row of READ_SONGS; a song without features has none, made by nobody."""
        _, song_id, about, seconds, added_at, made_by, vectors = row
        try:
            features = load(vectors) if vectors is not None else {}
            return StoredSong(song_id, json.loads(about), seconds, added_at, features, made_by or "")
        except (SafetensorError, ValueError) as error:
            raise StoreError(f"{self.database.place}: song {song_id!r} is damaged ({error}): delete it") from error


def next_of(connection: Any, last: str) -> int:
    """The number after the last one of a log; nobody else gives it while this transaction writes."""
    return int(connection.execute(last).fetchone()[0]) + 1


def numbered(first: int, rows: Sequence[Row]) -> list[Row]:
    """Rows with numbers from `first` on."""
    return [(first + at, *row) for at, row in enumerate(rows)]


def remember(connection: Any, key: str | None, digest: str, came_to: Sequence[Any]) -> None:
    """Keep what an idempotency key stands for, and drop those that are old; raise KeyReused if it is there."""
    if key is None:
        return
    now = time.time()
    connection.execute("DELETE FROM keys WHERE at < ?", (now - KEY_SECONDS,))
    row = (key, digest, as_json(came_to), now)
    if not connection.execute(ADD_KEY, row).rowcount:
        raise KeyReused(409, FASTER)


def as_json(value: Any) -> str:
    """Text as it is: what UTF-8 cannot write (a lone surrogate) is refused when it is stored, a UnicodeEncodeError."""
    return json.dumps(value, ensure_ascii=False)


def as_bytes(features: dict[str, FloatArray]) -> bytes:
    """Vectors by name as safetensors, which takes an array for contiguous."""
    return bytes(save({name: np.ascontiguousarray(vector, np.float32) for name, vector in features.items()}))
