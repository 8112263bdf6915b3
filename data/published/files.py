"""Read the files of a public data set in blocks, and write the tables of a dataset folder.

Text, plain or compressed, is parsed BLOCK bytes at a time; Parquet is streamed by polars. Songs and users are held in
memory, as everywhere; the log never is.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from configs.errors import UserError
from data.contract.play_files import damaged
from data.contract.row_rules import Rejected, reject

BLOCK = 16 << 20  # bytes of text
OPENERS: dict[str, Callable[..., Any]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
BROKEN = (OSError, EOFError, lzma.LZMAError, zlib.error)
MILLISECONDS = 1e11  # a time that large is in milliseconds: in seconds it is the year 5138
MARK = b"\xef\xbb\xbf"  # with which some programs begin a file in UTF-8


@dataclass
class Found:
    """What a reader leaves out, and what there is to know of what it has read."""

    rejected: Rejected = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def leave_out(self, rows: pl.DataFrame, bad: pl.Expr, key: str, what: str, file: Path) -> pl.DataFrame:
        """Drop rows where `bad` is true; they are counted, and named by their file and row number (`_row`)."""
        if not rows.select(bad.fill_null(False).any()).item():
            return rows
        named = rows.with_columns(_at=pl.format("{} row {}", pl.lit(file.name), "_row"))
        return reject(named, bad, key, what, ["_at"], self.rejected).drop("_at")


Reader = Callable[[Path, Path, Found], None]


def convert(read: Reader, source: Path, folder: Path) -> Found:
    """Write a data set as the dataset folder `folder`.

    Raises:
        UserError: the source or a file of it is missing, has another form, or holds no play.
    """
    found = Found()
    if not source.is_dir():
        raise UserError(f"not found: {source} is no folder (give the unpacked data set, see docs/data.md)")
    (folder / "plays").mkdir(parents=True)
    with as_file(source):
        read(source, folder, found)
    if not any(pl.scan_parquet(file).select(pl.len()).collect().item() for file in (folder / "plays").iterdir()):
        reasons = "; ".join(f"{entry['count']} {entry['what']}" for entry in found.rejected.values())
        raise UserError(f"{source}: no play can be read ({reasons or 'the files have no row'})")
    return found


# ------------------------------------------------------------------------------------------------- reading


def blocks(path: Path, lines: int = 0) -> Iterator[bytes]:
    """Yield a text file's whole lines, BLOCK bytes at a time; the first `lines` lines come alone.

    Raises:
        UserError: the file cannot be read, or is not whole.
    """
    try:
        with OPENERS.get(path.suffix, open)(path, "rb") as file:
            for _ in range(lines):
                yield file.readline().removeprefix(MARK)
            rest = b""
            while block := file.read(BLOCK):
                whole, newline, left = block.rpartition(b"\n")
                if newline:
                    yield (rest + whole + newline).removeprefix(MARK)
                    rest = left
                else:
                    rest += left
            if rest:
                yield rest
    except BROKEN as error:
        raise UserError(f"{path} cannot be read ({error}): get it again") from None


def lines_of(path: Path, skip: int = 0) -> Iterator[pl.DataFrame]:
    """Yield blocks of a text file as `line`, with its number in the file from 1 (`_row`); bytes that are no UTF-8 are
    replaced."""
    row, number = 1, -1
    for number, block in enumerate(blocks(path, skip)):
        text = pl.read_lines(_utf8(block), row_index_name="_row", row_index_offset=row)
        row += text.height
        if number >= skip:
            yield text.filter(pl.col("line").str.len_bytes() > 0)
    if number < skip:  # a table without rows is a table
        yield pl.DataFrame(schema={"_row": pl.get_index_type(), "line": pl.String})


def _utf8(block: bytes) -> bytes:
    try:
        block.decode("utf-8")
    except UnicodeDecodeError:
        return block.decode("utf-8", errors="replace").encode("utf-8")
    return block


def header_of(path: Path) -> list[str]:
    """The fields of the first line of a tab-separated file."""
    first: bytes = next(blocks(path, 1), b"")
    return first.decode("utf-8", errors="replace").rstrip("\r\n").split("\t")


def rows_of(path: Path, found: Found, columns: list[str], header: bool = True) -> Iterator[pl.DataFrame]:
    """Yield blocks of rows of a tab-separated file as text columns, with `_row`; what is empty is null.

    Rows with more or fewer fields than there are columns are left out.
    """
    for text in lines_of(path, int(header)):
        rows = text.select("_row", _fields=pl.col("line").str.split("\t"))
        wrong = pl.col("_fields").list.len() != len(columns)
        what = f"lines of {path.name} with another number of fields than {len(columns)}"
        rows = found.leave_out(rows, wrong, f"{path.name}_fields", what, path)
        yield rows.select("_row", *(_field(at).alias(name) for at, name in enumerate(columns)))


def _field(at: int) -> pl.Expr:
    one = pl.col("_fields").list.get(at)
    return pl.when(one != "").then(one)


def table_of(path: Path, found: Found, columns: list[str] | None = None) -> pl.DataFrame:
    """Read a whole tab-separated file with a header, of songs or users, as text columns.

    Raises:
        UserError: a column is missing.
    """
    header = header_of(path)
    missing = [name for name in columns or [] if name not in header]
    if missing:
        raise no_column(path, missing[0], header)
    return pl.concat(block.select(columns or header) for block in rows_of(path, found, header))


def scan(path: Path, columns: dict[str, Any]) -> pl.LazyFrame:
    """Scan columns of a Parquet file as the given types.

    Raises:
        UserError: the file is not Parquet, or a column is missing or of a type that cannot be converted.
    """
    with as_file(path):
        schema = pl.scan_parquet(path, glob=False).collect_schema()
    for name, dtype in columns.items():
        if name not in schema:
            raise no_column(path, name, list(schema))
        if isinstance(schema[name], pl.List) != isinstance(dtype, pl.List):
            raise UserError(f"{path}: column '{name}' has type {schema[name]}, wanted: {dtype}")
    return pl.scan_parquet(path, glob=False).select(pl.col(name).cast(dtype) for name, dtype in columns.items())


def no_column(path: Path, name: str, columns: list[str]) -> UserError:
    """The error of a missing column."""
    return UserError(f"{path} has no column '{name}' (found: {', '.join(columns)[:200]}): it is not the published file")


@contextmanager
def as_file(path: Path) -> Iterator[None]:
    """Within the block, what polars raises is reported as a fault of the file, or of a folder's one that is damaged."""
    try:
        yield
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        path = next((file for file in tables(path) if damaged(str(file))), path)
        raise UserError(f"{path} cannot be read ({reason}): get it again") from None


def tables(path: Path) -> list[Path]:
    """Parquet files of a folder, and those beside it and above that several folders share; of a file none."""
    shared = [file for parent in path.resolve().parents[:2] for file in sorted(parent.glob("*.parquet"))]
    return [*sorted(path.rglob("*.parquet")), *shared] if path.is_dir() else []


def seconds(column: str) -> pl.Expr:
    """Text or numbers, Unix time in seconds (or in milliseconds), as a time; null where it is none, or zero or less."""
    number = pl.col(column).cast(pl.Float64, strict=False)
    scaled = pl.when(number.abs() < MILLISECONDS).then(number * 1000).otherwise(number)
    return pl.when(scaled > 0).then(scaled).cast(pl.Int64, strict=False).cast(pl.Datetime("ms"))


# ------------------------------------------------------------------------------------------------- writing


def write_piece(frame: pl.DataFrame, folder: Path, number: int) -> None:
    """Write one of the Parquet files, in the order of their numbers, of a table in many files."""
    folder.mkdir(exist_ok=True)
    frame.write_parquet(folder / f"{number:06}.parquet")


def pieces(folder: Path) -> pl.LazyFrame:
    """Scan the Parquet files of a folder, in order."""
    return pl.scan_parquet(sorted(folder.glob("*.parquet")), glob=False)


def with_played(songs: pl.DataFrame, folder: Path, found: Found) -> pl.DataFrame:
    """Add the songs of the log that have no row; no song is released after its first play.

    Published years of release are often those of a later edition. The plays before it would be left out.
    """
    first = pieces(folder / "plays").group_by("song_id").agg(_first=pl.col("played_at").min())
    first = first.drop_nulls("song_id").collect(engine="streaming").sort("song_id")
    more = first.select("song_id").join(songs.select("song_id"), on="song_id", how="anti", maintain_order="left")
    if more.height and songs.height:
        found.notes.append(f"songs: {more.height} are in the log alone: nothing but their plays is known")
    songs = pl.concat([songs, more], how="diagonal").join(first, on="song_id", how="left", maintain_order="left")
    if "released_at" in songs.columns:
        late = pl.col("_first") < pl.col("released_at")
        if number := songs.select(late.sum()).item():
            found.notes.append(
                f"songs: {number} have a play before their published release: released at the first play"
            )
            songs = songs.with_columns(released_at=pl.when(late).then("_first").otherwise("released_at"))
    return songs.drop("_first")


def with_listeners(users: pl.DataFrame, folder: Path) -> pl.DataFrame:
    """Add the users of the log that have no row: without one, their plays would be left out."""
    all_users = pieces(folder / "plays").select(pl.col("user_id").unique()).collect(engine="streaming")
    more = all_users.drop_nulls().join(users.select("user_id"), on="user_id", how="anti").sort("user_id")
    return pl.concat([users, more], how="diagonal")


def once(rows: pl.DataFrame, key: str, what: str, found: Found) -> pl.DataFrame:
    """Keep the first row of each id (`key`), and none without an id."""
    rows = reject(rows, pl.col(key).is_null(), f"{what}_without_id", f"{what} without id", [key], found.rejected)
    again = ~pl.col(key).is_first_distinct()
    return reject(rows, again, f"{what}_again", f"{what} listed before (the first row is kept)", [key], found.rejected)
