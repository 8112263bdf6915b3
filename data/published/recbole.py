"""Read a data set in RecBole's atomic files: NAME.inter, and NAME.item, NAME.user and files of vectors if there are.

The first line of each names its columns and their types, as in `user_id:token`, `timestamp:float`. Sequences
(token_seq, float_seq) are split at blanks, as RecBole does: a genre of two words becomes two genres.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import polars as pl

from configs.errors import UserError
from data.contract.row_rules import PREFIX
from data.published.files import (
    OPENERS,
    Found,
    header_of,
    no_column,
    once,
    rows_of,
    seconds,
    with_listeners,
    with_played,
    write_piece,
)

TYPES = ("token", "float", "token_seq", "float_seq")
COUNTS = ("play_count", "playcount", "listen_count", "count", "weight")  # of listening; a number else
# Columns of items by what the contract calls them, the first that there is.
COLUMNS = {
    "title": ("title", "track_name", "song_name", "music_name", "item_name", "name", "movie_title"),
    "lyrics": ("lyrics",),
    "language": ("language", "lang"),
    "genres": ("genres", "genre", "class", "categories", "category"),
    "tags": ("tags", "tag"),
    "artist_id": ("artist_id", "artist", "artist_name", "artists"),
    "released_at": ("released_at", "release_date", "release_year", "year", "release"),
}
LISTS = ("genres", "tags")
NO_VECTORS = ("inter", "item", "user", "kg", "link", "net")


def read(source: Path, folder: Path, found: Found) -> None:
    """Write a dataset folder from the atomic files of one data set in `source`.

    Raises:
        UserError: a file is missing, or its first line does not name columns of these types.
    """
    name, logs = log_files(source, found)
    number, item = 0, ""
    for path in logs:
        types = typed_header(path)
        user, item = ids_in(path, types)
        for plays in plays_in(path, types, found):
            write_piece(plays, folder / "plays", number)
            number += 1
        notes_on(types, (user, item), found)
    songs = with_played(items(source / f"{name}.item", item, found), folder, found)
    for path in sorted(source.glob(f"{name}.*")):
        if path.suffix[1:] not in NO_VECTORS and path not in logs:
            songs = with_vectors(songs, path, item, found)
    songs.write_parquet(folder / "songs.parquet")
    if (path := source / f"{name}.user").is_file():
        users(path, found).pipe(with_listeners, folder).write_parquet(folder / "users.parquet")


def log_files(source: Path, found: Found) -> tuple[str, list[Path]]:
    """The name of the data set and its file of interactions, or the three into which a benchmark has split it.

    Raises:
        UserError: there is none, or those of several data sets.
    """
    if packed := [path.name for path in sorted(source.iterdir()) if path.suffix in OPENERS]:
        raise UserError(f"{source} has packed files, e.g. {packed[0]}: unpack them")
    files = {path.name.removesuffix(".inter"): path for path in sorted(source.glob("*.inter"))}
    if not files:
        raise UserError(f"{source} has no NAME.inter: give the folder of RecBole's atomic files")
    names = sorted({name if name in files else name.split(".")[0] for name in [name.split(".")[0] for name in files]})
    if len(names) > 1:
        raise UserError(f"{source} has the data sets {', '.join(names)}: put each in a folder of its own")
    name = names[0]
    if name in files:
        return name, [files[name]]
    found.notes.append(f"recbole: {', '.join(path.name for path in files.values())} are read as one log")
    return name, list(files.values())


def typed_header(path: Path) -> dict[str, str]:
    """The columns of a file and their types.

    Raises:
        UserError: a column has no type, or another one.
    """
    types = {}
    for given in header_of(path):
        name, _, kind = given.rpartition(":")
        if not name or kind not in TYPES:
            raise UserError(f"{path}: '{given}' in the first line is no name:type with one of {', '.join(TYPES)}")
        types[name] = kind
    return types


def table_in(path: Path, types: dict[str, str], found: Found, columns: dict[str, pl.Expr]) -> pl.DataFrame:
    """Columns made of those of a file of items, users or vectors, a block at a time: text is larger than numbers."""
    return pl.concat(rows.select(**columns) for rows in rows_of(path, found, list(types)))


def ids_in(path: Path, types: dict[str, str]) -> tuple[str, str]:
    """The columns of users and items: user_id and item_id, else the first two tokens.

    Raises:
        UserError: there are not two.
    """
    tokens = [name for name, kind in types.items() if kind == "token"]
    if {"user_id", "item_id"} <= set(tokens):
        return "user_id", "item_id"
    if len(tokens) < 2:
        raise no_column(path, "user_id:token' or 'item_id:token", [f"{name}:{kind}" for name, kind in types.items()])
    return tokens[0], tokens[1]


def plays_in(path: Path, types: dict[str, str], found: Found) -> Iterator[pl.DataFrame]:
    """Yield blocks of plays."""
    user, item = ids_in(path, types)
    count = next((name for name in COUNTS if types.get(name) == "float"), None)
    times = "timestamp" in types
    for rows in rows_of(path, found, list(types)):
        if times:
            read_time = seconds("timestamp")
            no_time = pl.col("timestamp").is_not_null() & pl.col("timestamp").cast(pl.Float64, strict=False).is_null()
            what = f"rows of {path.name} whose timestamp is no number"
            rows = found.leave_out(rows, no_time, "plays_without_number", what, path)
        yield rows.select(
            user_id=user,
            song_id=item,
            played_at=read_time if times else pl.lit(None, pl.Datetime("ms")),
            play_count=whole(count) if count else pl.lit(None, pl.Int64),
        )


def whole(name: str) -> pl.Expr:
    """A count; null where it is no integer."""
    number = pl.col(name).cast(pl.Float64, strict=False)
    return pl.when(number == number.floor()).then(number).cast(pl.Int64, strict=False)


def notes_on(types: dict[str, str], ids: tuple[str, str], found: Found) -> None:
    """Note which columns of the interactions are used otherwise than by their name, and which are not."""
    count = next((name for name in COUNTS if types.get(name) == "float"), None)
    unused = [name for name in types if name not in (*ids, "timestamp", count)]
    said = [f"recbole: {ids[0]} are users and {ids[1]} songs"] if ids != ("user_id", "item_id") else []
    said += [f"recbole: {count} is play_count"] if count else []
    said += [f"recbole: {', '.join(unused)} of the interactions not used: every row is a play"] if unused else []
    found.notes += [note for note in said if note not in found.notes]


def items(path: Path, item: str, found: Found) -> pl.DataFrame:
    """The songs of NAME.item with the contract's columns and, by their own names, all others."""
    if not path.is_file():
        found.notes.append(f"recbole: there is no {path.name}: nothing but their plays is known of the songs")
        return pl.DataFrame(schema={"song_id": pl.String})
    types = typed_header(path)
    key = item if item in types else next(iter(types))
    taken = {name: next((one for one in names if one in types), None) for name, names in COLUMNS.items()}
    columns = {"song_id": pl.col(key)}
    for name, own in taken.items():
        if own is not None and own != key:
            columns[name] = of_contract(name, own, types[own])
    for name, kind in types.items():
        if name != key and name not in taken.values():
            columns[PREFIX + name if kind == "float_seq" else name] = of_type(name, kind)
    return once(table_in(path, types, found, columns), "song_id", "items", found)


def of_contract(name: str, own: str, kind: str) -> pl.Expr:
    """A column of items as the contract has it."""
    if name in LISTS:
        return pl.col(own).str.split(" ").list.filter(pl.element() != "") if kind == "token_seq" else one_of(own)
    if name == "released_at":
        day = pl.col(own).str.to_datetime("%Y-%m-%d", strict=False, time_unit="ms")
        number = pl.col(own).cast(pl.Float64, strict=False)
        year = pl.datetime(pl.when(number.is_between(1000, 2999)).then(number).cast(pl.Int32), 1, 1, time_unit="ms")
        return pl.coalesce(day, pl.when(number > 10_000).then(seconds(own)).otherwise(year))
    return pl.col(own)


def one_of(own: str) -> pl.Expr:
    """A token as a list of one."""
    return pl.when(pl.col(own).is_not_null()).then(pl.concat_list(own))


def of_type(name: str, kind: str) -> pl.Expr:
    """A column in the type that the file gives it; vectors are float32."""
    if kind == "float":
        return pl.col(name).cast(pl.Float64, strict=False)
    if kind == "token":
        return pl.col(name)
    parts = pl.col(name).str.split(" ").list.filter(pl.element() != "")
    return parts if kind == "token_seq" else parts.list.eval(pl.element().cast(pl.Float32, strict=False))


def with_vectors(songs: pl.DataFrame, path: Path, item: str, found: Found) -> pl.DataFrame:
    """Add the vectors of a file NAME.suffix: of items, or of entities that NAME.link joins to items."""
    try:
        types = typed_header(path)
    except UserError:
        found.notes.append(f"recbole: {path.name} is not read: its first line names no columns with types")
        return songs
    key, vectors = next(iter(types)), [name for name, kind in types.items() if kind == "float_seq"]
    if not vectors:
        found.notes.append(f"recbole: {path.name} is not read: it has no float_seq")
        return songs
    columns = {"song_id": pl.col(key)} | {PREFIX + name: of_type(name, "float_seq") for name in vectors}
    table = table_in(path, types, found, columns)
    link = path.with_suffix(".link")
    if key != item and link.is_file():
        of_link = typed_header(link)
        entity = next(name for name in of_link if name != item)
        pairs = table_in(link, of_link, found, {"_entity": pl.col(entity), "_item": pl.col(item)})
        table = pairs.join(table, left_on="_entity", right_on="song_id").drop("_entity").rename({"_item": "song_id"})
    table = once(table, "song_id", f"vectors of {path.name}", found)
    matched = songs.select(pl.col("song_id").is_in(table["song_id"].implode()).sum()).item()
    found.notes.append(f"recbole: {path.name} has vectors of {matched} of the {songs.height} items")
    new = [name for name in table.columns if name == "song_id" or name not in songs.columns]
    return songs.join(table.select(new), on="song_id", how="left", maintain_order="left") if matched else songs


def users(path: Path, found: Found) -> pl.DataFrame:
    """The users of NAME.user: tokens are categories, floats numbers; sequences are not used."""
    types = typed_header(path)
    key = "user_id" if "user_id" in types else next(iter(types))
    kept = {name: of_type(name, kind) for name, kind in types.items() if name != key and kind in ("token", "float")}
    return once(table_in(path, types, found, {"user_id": pl.col(key)} | kept), "user_id", "users", found)
