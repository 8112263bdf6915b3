"""Read Music4All-Onion, Music4All, or both in one folder, as published: tab-separated files, some of them .bz2.

Onion brings the large log and files of vectors (`id_*.tsv`), each of which becomes a feature; the base set brings
names, words, tags, recordings and a smaller log. What lies in the folder is read: leave out the vectors that you do not
need.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl

from configs.errors import UserError
from data.contract.row_rules import PREFIX
from data.published.files import (
    OPENERS,
    Found,
    blocks,
    header_of,
    lines_of,
    no_column,
    once,
    rows_of,
    table_of,
    with_played,
    write_piece,
)

LOGS = {  # in the order in which they are preferred: columns of user, song, and time or count
    "userid_trackid_timestamp": ("user_id", "track_id", "timestamp"),
    "listening_history": ("user", "song", "timestamp"),
    "userid_trackid_count": ("user_id", "track_id", "count"),
}
TABLES = {  # of the base set: column of the file → column of the contract
    "id_information": {"song": "title", "artist": "artist_id", "album_name": "album"},
    "id_lang": {"lang": "language"},
    "id_genres": {"genres": "genres"},
    "id_tags": {"tags": "tags"},
    "id_metadata": {"release": "released_at"},
}
NO_VECTORS = (*TABLES, "id_tags_dict", "id_url", "id_total_listens")
TIMES = ("%Y-%m-%d %H:%M:%S", "%Y-%m-%d %H:%M")  # of Onion's log, of the base set's
SOUND, WORDS = "audios", "lyrics"  # folders of the base set
TAG = r"""'(?:[^'\\]|\\.)*'\s*:|"(?:[^"\\]|\\.)*"\s*:"""  # a key of a Python dict, as which weighted tags are written


def read(source: Path, folder: Path, found: Found) -> None:
    """Write a dataset folder from `source`.

    Raises:
        UserError: there is no log, or a file does not have the published form.
    """
    files = files_in(source)
    stem = next((name for name in LOGS if name in files), None)
    if stem is None:
        raise UserError(f"{source} has no {', no '.join(f'{name}.tsv' for name in LOGS)}: one log of plays is needed")
    for number, plays in enumerate(plays_in(files[stem], LOGS[stem], found)):
        write_piece(plays, folder / "plays", number)
    found.notes.append(f"music4all: the plays are those of {files[stem].name}")
    songs = described(files, found)
    of_vectors = [stem for stem in files if stem.startswith("id_") and stem not in NO_VECTORS]
    vectors = [vectors_in(files[stem], found) for stem in of_vectors]
    for table in vectors:
        more = table.select("song_id").join(songs.select("song_id"), on="song_id", how="anti")
        songs = pl.concat([songs, more], how="diagonal")
    songs = with_played(songs, folder, found)
    for table in vectors:
        table = once(table, "song_id", f"rows of {table.columns[1].replace(PREFIX, 'id_')}", found)
        songs = songs.join(table, on="song_id", how="left", maintain_order="left")
    songs = with_recordings(with_words(songs, source), source)
    songs.write_parquet(folder / "songs.parquet")


def files_in(source: Path) -> dict[str, Path]:
    """The tab-separated files below a folder by their names without ending, but for recordings and lyrics."""
    files: dict[str, Path] = {}
    for place, folders, names in os.walk(source):
        folders[:] = sorted(name for name in folders if name not in (SOUND, WORDS) and not name.startswith("."))
        for name in sorted(names):
            path = Path(place) / name
            plain = path.stem if path.suffix in OPENERS else name
            if plain.endswith((".tsv", ".csv")) and not name.startswith("."):
                files.setdefault(Path(plain).stem, path)
    return files


def plays_in(path: Path, names: tuple[str, str, str], found: Found) -> Iterator[pl.DataFrame]:
    """Yield blocks of plays, with times or with counts."""
    header = header_of(path)
    if missing := [name for name in names if name not in header]:
        raise no_column(path, missing[0], header)
    user, song, value = names
    for rows in rows_of(path, found, header):
        who = {"user_id": pl.col(user), "song_id": pl.col(song)}
        if value == "count":
            wrong = pl.col(value).cast(pl.Int64, strict=False).is_null()
            rows = found.leave_out(rows, wrong, "plays_without_number", f"rows of {path.name} without a count", path)
            yield rows.select(**who, played_at=pl.lit(None, pl.Datetime("ms")), play_count=pl.col(value).cast(pl.Int64))
            continue
        at = pl.coalesce(pl.col(value).str.to_datetime(form, strict=False, time_unit="ms") for form in TIMES)
        rows = rows.with_columns(_at_time=at)
        wrong = pl.col("_at_time").is_null()
        rows = found.leave_out(rows, wrong, "plays_without_time", f"rows of {path.name} whose time is none", path)
        yield rows.select(**who, played_at="_at_time")


def described(files: dict[str, Path], found: Found) -> pl.DataFrame:
    """The songs of the base set with their names, language, genres, tags and year of release."""
    songs = pl.DataFrame(schema={"song_id": pl.String})
    for stem, names in TABLES.items():
        if stem in files:
            table = table_of(files[stem], found, ["id", *names]).rename({"id": "song_id"} | names)
            songs = songs.join(
                once(table, "song_id", f"rows of {stem}", found), on="song_id", how="full", coalesce=True
            )
    lists = [name for name in ("genres", "tags") if name in songs.columns]
    songs = songs.with_columns(pl.col(name).str.split(",").list.eval(_stripped()) for name in lists)
    if "tags" not in songs.columns and "id_tags_dict" in files:
        table = weighted_tags(files["id_tags_dict"], found)
        songs = songs.join(table, on="song_id", how="full", coalesce=True)
    if "released_at" in songs.columns:
        year = pl.col("released_at").cast(pl.Float64, strict=False).cast(pl.Int32, strict=False)
        songs = songs.with_columns(released_at=pl.datetime(pl.when(year > 1000).then(year), 1, 1, time_unit="ms"))
        found.notes.append("music4all: of a release the year is known: released_at is its first day")
    return songs.sort("song_id")


def _stripped() -> pl.Expr:
    return pl.element().str.strip_chars()


def weighted_tags(path: Path, found: Found) -> pl.DataFrame:
    """Tags of id_tags_dict, without their weights."""
    header = header_of(path)
    table = table_of(path, found).select(song_id=header[0], tags=header[1])
    keys = pl.col("tags").str.extract_all(TAG)
    unquoted = pl.element().str.strip_chars_end(" :").str.head(-1).str.tail(-1).str.replace_all(r"\\(.)", "$1")
    return once(table.with_columns(tags=keys.list.eval(unquoted)), "song_id", "rows of id_tags_dict", found)


def vectors_in(path: Path, found: Found) -> pl.DataFrame:
    """The vectors of a file, float32, read a block at a time: the first column is the song's id, the others numbers.

    Columns of text, as there are among Essentia's, are left out: those that are text in the first row.

    Raises:
        UserError: a row has another number of fields, or a field that is no number.
    """
    header, first = header_of(path), next(lines_of(path, 1))["line"].head(1).to_list()
    fields = first[0].split("\t") if first else header
    kinds = [pl.String, *(pl.Float32 if number(field) else pl.String for field in fields[1:])]
    columns = {f"_{at}": kind for at, kind in enumerate(kinds)}
    texts = [name for name, kind in zip(header, kinds, strict=False) if kind == pl.String][1:]
    if texts and first:
        found.notes.append(f"music4all: columns of {path.name} that are text are left out: {', '.join(texts[:5])}")
    ids, parts, row = [], [], 2
    lines = blocks(path, 1)
    next(lines, b"")
    for block in lines:
        try:
            rows = pl.read_csv(block, has_header=False, separator="\t", quote_char=None, schema=columns)
        except pl.exceptions.PolarsError as error:
            reason = str(error).splitlines()[0]
            raise UserError(
                f"{path}: rows from {row} on are not {len(header) - 1} numbers each ({reason}): correct the file, or "
                "take it out of the folder"
            ) from None
        ids.append(rows["_0"])
        parts.append(rows.select(pl.col(pl.Float32)).to_numpy())
        row += rows.height
    name = f"{PREFIX}{path.name.removeprefix('id_').split('.')[0]}"
    if not parts:
        return pl.DataFrame(schema={"song_id": pl.String, name: pl.List(pl.Float32)})
    return pl.DataFrame({"song_id": pl.concat(ids), name: np.ascontiguousarray(np.concatenate(parts))})


def number(field: str) -> bool:
    """Whether a field is a number, or empty."""
    try:
        return field == "" or float(field) is not None
    except ValueError:
        return False


def with_words(songs: pl.DataFrame, source: Path) -> pl.DataFrame:
    """Add the lyrics of the folder lyrics/, a file for each song."""
    place = next((path for path in (source / WORDS, *source.glob(f"*/{WORDS}")) if path.is_dir()), None)
    if place is None:
        return songs
    # one file a song is how they are published, so each is opened
    words = {path.stem: path.read_text("utf-8", errors="replace") for path in sorted(place.glob("*.txt"))}
    table = pl.DataFrame({"song_id": list(words), "lyrics": list(words.values())}, schema_overrides=_TEXT)
    return songs.join(table, on="song_id", how="left", maintain_order="left")


def with_recordings(songs: pl.DataFrame, source: Path) -> pl.DataFrame:
    """Add the paths of the recordings in the folder audios/."""
    place = next((path for path in (source / SOUND, *source.glob(f"*/{SOUND}")) if path.is_dir()), None)
    if place is None:
        return songs
    paths = sorted(path for path in place.iterdir() if not path.name.startswith("."))
    table = pl.DataFrame(
        {"song_id": [path.stem for path in paths], "audio_path": [str(path.relative_to(source)) for path in paths]},
        schema_overrides=_TEXT,
    ).unique("song_id", keep="first", maintain_order=True)
    return songs.join(table, on="song_id", how="left", maintain_order="left")


_TEXT = {"song_id": pl.String, "lyrics": pl.String, "audio_path": pl.String}
