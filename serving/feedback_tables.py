"""Write what a store holds as tables: plays, how recommendations did, accepted songs with their recordings."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow.parquet as pq
from tqdm import tqdm

from artifacts.folders import writing
from configs.serving import FeedbackConfig
from data.contract.columns import ABOUT, DAY_OF_RELEASE, TIME
from serving.database import EPOCH, pages, place_of, reading
from serving.store import LAST_OPT_OUT, LAST_PLAY, MICROSECOND
from serving.store_errors import Row

KIND = "feedback"
ROWS, SONGS = 50_000, 500  # held at a time
FLAG, COUNT, TEXT = pl.Boolean(), pl.Int64(), pl.String()
PLAYS = {"user_id": TEXT, "song_id": TEXT, "played_at": TIME,
         "completed": FLAG, "favourited": FLAG, "disliked": FLAG, "skipped": FLAG}  # fmt: skip
FEEDBACK = {"source_song_id": TEXT, "recommended_song_id": TEXT, "plays": COUNT, "completes": COUNT,
            "favourites": COUNT}  # fmt: skip
ACCEPTED = {"song_id": TEXT, **ABOUT, DAY_OF_RELEASE: TIME, "audio_path": TEXT}

OPTED_OUT = {"user_id": TEXT}

LAST = f"SELECT ({LAST_PLAY}), (SELECT coalesce(max(number), 0) FROM songs), ({LAST_OPT_OUT})"
# A play that was skipped was not completed, whatever was said (as `Play.settled`).
COMPLETED = "(completed AND NOT coalesce(skipped, FALSE))"
BOTH = "SELECT count(*) FROM plays WHERE skipped AND completed AND number <= ?"
READ_PLAYS = f"""
SELECT number, user_id, song_id, played_at / 1000, {COMPLETED}, favourited, disliked, skipped
FROM plays
WHERE number > ? AND number <= ? ORDER BY number LIMIT ?
"""
# A play has an outcome if it is known whether it was completed, or if it was favourited or disliked. Others would count
# as neither complete nor favourite.
READ_FEEDBACK = f"""
SELECT source_song_id, song_id, count(*), sum(CASE WHEN {COMPLETED} THEN 1 ELSE 0 END),
    sum(CASE WHEN favourited THEN 1 ELSE 0 END) FROM plays
WHERE source_song_id IS NOT NULL AND number <= ? AND ({COMPLETED} IS NOT NULL OR favourited OR disliked)
GROUP BY source_song_id, song_id ORDER BY source_song_id, song_id
"""
FIRST_PLAYS = "CREATE TEMP TABLE first_plays AS SELECT song_id, played_at AS at FROM plays WHERE FALSE"
FIND_FIRST = "INSERT INTO first_plays SELECT song_id, min(played_at) FROM plays WHERE number <= ? GROUP BY song_id"
READ_SONGS = """
SELECT number, song_id, about, added_at, (SELECT at FROM first_plays WHERE first_plays.song_id = songs.song_id)
FROM songs
WHERE number > ? AND number <= ? ORDER BY number LIMIT ?
"""
READ_OPTED_OUT = """
SELECT number, user_id FROM opt_outs AS one WHERE number > ? AND opted_out
    AND number = (SELECT max(number) FROM opt_outs WHERE user_id = one.user_id AND number <= ?)
ORDER BY number LIMIT ?
"""


def write_feedback(config: FeedbackConfig) -> None:
    """Run `serving.feedback` (its docstring says what it reads and writes)."""
    manifest: dict[str, Any] = {"store": place_of(config.store)}
    with reading(config.store) as store, writing(config.out, KIND, manifest) as folder:
        (folder / "audio").mkdir()
        last_play, last_song, last_opt_out = store.execute(LAST).fetchone()
        store.execute(FIRST_PLAYS)
        store.execute(FIND_FIRST, (last_play,))
        store.execute("CREATE INDEX first_play ON first_plays (song_id)")
        manifest["plays"] = write(folder / "plays.parquet", PLAYS, plays(store, last_play), last_play)
        (manifest["plays_skipped_and_completed"],) = store.execute(BOTH, (last_play,)).fetchone()
        manifest["i2i_feedback"] = write(folder / "i2i_feedback.parquet", FEEDBACK, feedback(store, last_play))
        manifest["songs"] = write(folder / "songs.parquet", ACCEPTED, songs(store, last_song, folder))
        manifest["opted_out"] = write(folder / "opted_out.parquet", OPTED_OUT, opted_out(store, last_opt_out))
        manifest["songs_with_audio"] = sum(1 for _ in (folder / "audio").iterdir())
    print(
        f"{config.out}: {manifest['plays']:,} plays, {manifest['i2i_feedback']:,} pairs of a song and one recommended "
        f"beside it, {manifest['songs']:,} songs ({manifest['songs_with_audio']:,} with audio), "
        f"{manifest['opted_out']:,} users who have opted out"
    )
    if both := manifest["plays_skipped_and_completed"]:
        print(f"note: {both:,} plays were told as skipped and completed: they are not completed")


def write(path: Path, schema: dict[str, pl.DataType], tables: Iterable[list[Row]], total: int | None = None) -> int:
    """Write a table that comes in pages of rows, each a row group; how many rows there were."""
    arrow, done = pl.DataFrame(schema=schema).to_arrow().schema, 0
    bar = tqdm(desc=path.stem, total=total, unit="row")
    with pq.ParquetWriter(path, arrow, compression="zstd") as file, bar:
        for rows in tables:
            frame = pl.DataFrame(rows, schema=list(schema), orient="row", infer_schema_length=None)
            file.write_table(frame.cast(schema).to_arrow())  # flags and times are integers in SQLite
            bar.update(len(rows))
            done += len(rows)
    return done


def plays(store: Any, last: int) -> Iterator[list[Row]]:
    """Rows of PLAYS in the order of arrival."""
    for page in pages(lambda after: store.execute(READ_PLAYS, (after, last, ROWS)).fetchall()):
        yield [row[1:] for row in page]


def opted_out(store: Any, last: int) -> Iterator[list[Row]]:
    """Rows of OPTED_OUT."""
    for page in pages(lambda after: store.execute(READ_OPTED_OUT, (after, last, ROWS)).fetchall()):
        yield [row[1:] for row in page]


def feedback(store: Any, last: int) -> Iterator[list[Row]]:
    """Rows of FEEDBACK; the database sorts the plays on disk."""
    rows: Iterator[list[Row]] = store.stream(READ_FEEDBACK, (last,), ROWS)
    return rows


def songs(store: Any, last: int, folder: Path) -> Iterator[list[Row]]:
    """Rows of ACCEPTED; their recordings are written on the way, one at a time."""
    for page in pages(lambda after: store.execute(READ_SONGS, (after, last, SONGS)).fetchall()):
        rows = []
        for number, song_id, about, added_at, first_play in page:
            words, added = json.loads(about), utc(datetime.fromisoformat(added_at))
            flac = store.execute("SELECT flac FROM audio WHERE song = ?", (number,)).fetchone()
            name = audio_name(song_id) if flac else None
            if name:
                (folder / name).write_bytes(flac[0])
            day = words.get(DAY_OF_RELEASE)
            released = datetime.fromisoformat(day) if day else added
            if first_play is not None:  # what was played had been released
                released = min(released, utc(EPOCH + first_play * MICROSECOND))
            rows.append((song_id, *(words.get(column) for column in ABOUT), released, name))
        yield rows


def utc(at: datetime) -> datetime:
    """A time with a zone as UTC without one."""
    return at.astimezone(UTC).replace(tzinfo=None)


def audio_name(song_id: str) -> str:
    """Of a song's file, always the same; a hash, since an id may hold any characters."""
    return f"audio/{hashlib.sha256(song_id.encode()).hexdigest()[:32]}.flac"
