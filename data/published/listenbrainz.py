"""Read logs of listens: a ListenBrainz dump (JSON lines, or the Parquet files for Spark), or Last.fm-1K.

A listen names its song by a MusicBrainz recording, or by artist and title alone. A song is its recording where there is
one, also where another listen with the same artist and title has it; else it is artist and title.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import polars as pl

from configs.errors import UserError
from data.published.files import (
    Found,
    header_of,
    lines_of,
    once,
    pieces,
    rows_of,
    scan,
    seconds,
    table_of,
    with_listeners,
    write_piece,
)

LASTFM = ["user_id", "time", "artist_mbid", "artist", "mbid", "title"]  # columns of a file without a header
PROFILE = {"gender": pl.String, "age": pl.Float64, "country": pl.String}
MORE = {"recording_mbid": pl.String(), "tags": pl.List(pl.String())}
TRACK = {"artist_name": pl.String(), "track_name": pl.String(), "additional_info": pl.Struct(MORE)}
LISTEN = {
    "listened_at": pl.Int64(),
    "timestamp": pl.Int64(),  # its name in early dumps
    "user_id": pl.Int64(),
    "user_name": pl.String(),
    "track_metadata": pl.Struct(TRACK),
}
PATHS = {  # of the same in JSON, for listens with values of other types
    "artist": "$.track_metadata.artist_name",
    "title": "$.track_metadata.track_name",
    "mbid": "$.track_metadata.additional_info.recording_mbid",
    "_tags": "$.track_metadata.additional_info.tags",
    **{name: f"$.{name}" for name in ("listened_at", "timestamp", "user_id", "user_name")},
}
SPARK = {
    "listened_at": pl.Datetime("ms"),
    "user_id": pl.String,
    "artist_name": pl.String,
    "recording_name": pl.String,
    "recording_mbid": pl.String,
}
BATCH = 500_000  # rows of Parquet
TAGS = pl.List(pl.String)


def read(source: Path, folder: Path, found: Found) -> None:
    """Write a dataset folder from the files of one kind below `source`.

    Raises:
        UserError: there is none, there are several kinds, or a file does not have the published form.
    """
    kinds: dict[str, tuple[Callable[[Path, Found], Iterator[pl.DataFrame]], list[Path]]] = {
        "*.listens": (of_json, in_order([*source.rglob("*.listens"), *source.rglob("*.listens.*")])),
        "*.parquet": (of_parquet, in_order(list(source.rglob("*.parquet")))),
        "userid-timestamp-…tsv": (of_lastfm, in_order(list(source.rglob("userid-timestamp-*.tsv*")))),
    }
    there = {name: kind for name, kind in kinds.items() if kind[1]}
    if len(there) != 1:
        have = f"has {' and '.join(there)}: give one of them" if there else f"has no file of {', '.join(kinds)}"
        raise UserError(f"{source} {have}")
    of_file, files = next(iter(there.values()))
    raw, number = folder / "listens", count()
    for path in files:
        for listens in of_file(path, found):
            write_piece(usable(listens, path, found), raw, next(number))
    write_tables(raw, folder, found)
    for profile in sorted(source.glob("userid-profile.tsv*"))[:1]:
        users(profile, found).pipe(with_listeners, folder).write_parquet(folder / "users.parquet")


def in_order(files: list[Path]) -> list[Path]:
    """Files in the order of the numbers in their paths (2005/2 before 2005/10), without hidden ones."""
    shown = {path for path in files if not path.name.startswith((".", "_"))}
    return sorted(shown, key=lambda path: (path.parent, len(path.name), path.name))


# ------------------------------------------------------------------------------------------------- one file


def of_json(path: Path, found: Found) -> Iterator[pl.DataFrame]:
    """Yield blocks of listens of a file with one in JSON a line."""
    for lines in lines_of(path):
        rows = lines.select("_row", **parsed(lines))
        user = pl.coalesce(pl.col("user_id").cast(pl.String), "user_name")
        at = pl.coalesce("listened_at", "timestamp")
        broken = pl.all_horizontal(pl.col("user_id", "user_name", "artist", "title", "mbid").is_null())
        rows = found.leave_out(rows, broken, "lines_without_listen", "lines that are no listen in JSON", path)
        yield rows.with_columns(_time=at).select(
            "_row", "artist", "title", "mbid", "tags", user_id=user, played_at=seconds("_time")
        )


def parsed(lines: pl.DataFrame) -> dict[str, pl.Series]:
    """The fields of listens in JSON, those of other types read one by one, null where a line is none."""
    try:
        rows = lines.select(pl.col("line").str.json_decode(pl.Struct(LISTEN))).unnest("line")
        rows = rows.unnest("track_metadata").unnest("additional_info")
        named = {"artist": "artist_name", "title": "track_name", "mbid": "recording_mbid", "tags": "tags"}
        same = dict.fromkeys(("listened_at", "timestamp", "user_id", "user_name"))
        return {name: rows[own or name] for name, own in (named | same).items()}
    except pl.exceptions.PolarsError:
        rows = lines.select(pl.col("line").str.json_path_match(path).alias(name) for name, path in PATHS.items())
        quoted = pl.col("_tags").str.extract_all(r'"(?:[^"\\]|\\.)*"').list.eval(pl.element().str.strip_chars('"'))
        return dict(zip([*rows.columns, "tags"], rows.with_columns(tags=quoted).get_columns(), strict=True))


def of_parquet(path: Path, found: Found) -> Iterator[pl.DataFrame]:
    """Yield blocks of listens of a Parquet file for Spark."""
    log = scan(path, SPARK).with_row_index("_row", offset=1)
    names = {"artist": "artist_name", "title": "recording_name", "mbid": "recording_mbid", "played_at": "listened_at"}
    rows = log.select("_row", "user_id", tags=pl.lit(None, TAGS), **{name: pl.col(own) for name, own in names.items()})
    yield from rows.collect_batches(chunk_size=BATCH, maintain_order=True, engine="streaming")


def of_lastfm(path: Path, found: Found) -> Iterator[pl.DataFrame]:
    """Yield blocks of listens of Last.fm-1K."""
    for rows in rows_of(path, found, LASTFM, header=False):
        at = pl.col("time").str.to_datetime("%Y-%m-%dT%H:%M:%SZ", strict=False, time_unit="ms")
        rows = rows.with_columns(played_at=at)
        what = f"rows of {path.name} whose time is none"
        rows = found.leave_out(rows, pl.col("played_at").is_null(), "listens_without_time", what, path)
        yield rows.select("_row", "user_id", "played_at", "artist", "title", "mbid", tags=pl.lit(None, TAGS))


def usable(listens: pl.DataFrame, path: Path, found: Found) -> pl.DataFrame:
    """Listens with a user and a song, `key` being artist and title without regard to case and spaces."""
    texts = pl.col("user_id", "artist", "title", "mbid").str.strip_chars()
    listens = listens.with_columns(pl.when(texts != "").then(texts))
    listens = found.leave_out(
        listens, pl.col("user_id").is_null(), "listens_without_user", "listens without user", path
    )
    key = pl.concat_str(folded("artist"), folded("title"), separator=" / ")
    listens = listens.with_columns(pl.col("mbid").str.to_lowercase(), pl.col("tags").cast(TAGS), key=key)
    nameless = pl.col("mbid").is_null() & pl.col("key").is_null()
    what = "listens without recording, and without artist or title"
    return found.leave_out(listens, nameless, "listens_without_song", what, path).drop("_row")


def folded(name: str) -> pl.Expr:
    """A name in lower case with single spaces."""
    return pl.col(name).str.to_lowercase().str.replace_all(r"\s+", " ")


# ------------------------------------------------------------------------------------------------- tables


def write_tables(raw: Path, folder: Path, found: Found) -> None:
    """Write the plays, the songs and the listeners' tags of all listens."""
    log = pieces(raw)
    known = recordings(log)
    listens = log.join(known.lazy(), on="key", how="left", maintain_order="left")
    listens = listens.with_columns(song_id=pl.coalesce("mbid", "_known", "key"))
    listens.select("user_id", "song_id", "played_at").sink_parquet(folder / "plays" / "listens.parquet")
    about: dict[str, Any] = {name: pl.col(name).min() for name in ("title", "artist")}
    artist = folded("artist").min()
    songs = listens.group_by("song_id").agg(**about, artist_id=artist, _named=pl.col("mbid").max()).sort("song_id")
    table = songs.collect(engine="streaming")
    named = table["_named"].is_not_null().sum()
    found.notes.append(
        f"listens: {named} of {table.height} songs are MusicBrainz recordings, the others artist and title"
    )
    table.drop("_named").write_parquet(folder / "songs.parquet")
    tags = listens.filter(pl.col("tags").list.len() > 0).select("user_id", "song_id", tag="tags").explode("tag")
    given = tags.unique(maintain_order=True).collect(engine="streaming")
    if given.height:
        given.write_parquet(folder / "tags.parquet")


def recordings(log: pl.LazyFrame) -> pl.DataFrame:
    """The recording (`_known`) that most listens with the same artist and title have, for those that have none."""
    bare = log.filter(pl.col("mbid").is_null()).select("key").unique()
    pairs = log.filter(pl.col("mbid").is_not_null()).group_by("key", "mbid").agg(pl.len())
    pairs = pairs.join(bare, on="key", how="semi")
    most = pl.col("mbid").sort_by("len", "mbid", descending=[True, False]).first()
    return pairs.group_by("key").agg(_known=most).collect(engine="streaming")


def users(path: Path, found: Found) -> pl.DataFrame:
    """The users of Last.fm-1K; the first column of the file is their id, whatever its name."""
    table = table_of(path, found)
    columns = [pl.col(name).cast(dtype, strict=False) for name, dtype in PROFILE.items() if name in table.columns]
    return once(table.select(pl.col(header_of(path)[0]).alias("user_id"), *columns), "user_id", "users", found)
