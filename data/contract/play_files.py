"""Read a log of plays in many Parquet files whose column types may differ."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from polars.selectors import by_name  # takes a name as it is: "*" and "^…$" are patterns to pl.col

from configs.errors import UserError
from data.contract.columns import COLUMNS, KINDS, PAIR, TEXT_TYPES, in_integers


def read_log(files: list[str], notes: list[str]) -> list[pl.LazyFrame]:
    """Scan the files in order, as one frame for each run of files of equal types; all frames get the same columns.

    Raises:
        UserError: a file is not Parquet, or two files have incompatible types of a column that is used.
    """
    types = {file: types_in(file) for file in files}
    common = common_types(types, notes)
    runs = [(schema, list(run)) for schema, run in groupby(files, key=lambda file: types[file])]
    return [in_types(pl.scan_parquet(run, glob=False), schema, common) for schema, run in runs]


def types_in(file: str) -> pl.Schema:
    """Schema of a file, in which a column of lists that are all empty, and so of no type, is one of nulls.

    Raises:
        UserError: it is not Parquet.
    """
    with as_parquet([file]):
        schema = pl.scan_parquet(file, glob=False).collect_schema()
    return pl.Schema((name, pl.Null() if holds_nothing(dtype) else dtype) for name, dtype in schema.items())


def holds_nothing(dtype: Any) -> bool:
    """Whether a type is that of nulls, or of lists of nothing else."""
    return holds_nothing(dtype.inner) if isinstance(dtype, pl.List) else dtype == pl.Null


def in_types(frame: pl.LazyFrame, schema: pl.Schema, common: pl.Schema) -> pl.LazyFrame:
    """Cast a frame to the common schema; absent columns become nulls, times with a zone are converted to UTC."""
    if frame.collect_schema() == common:
        return frame
    frame = in_integers("plays", frame)
    return frame.select(
        (by_name(name) if schema.get(name, pl.Null) != pl.Null else pl.lit(None)).cast(dtype).alias(name)
        for name, dtype in common.items()
    )


def common_types(types: dict[str, pl.Schema], notes: list[str]) -> pl.Schema:
    """Find a common type of each column over files (file → schema); one that is not used may have none, and is noted.

    Raises:
        UserError: a column of the contract has no common type.
    """
    types_of: dict[str, dict[Any, str]] = {}  # column → type → a file that has it
    for file, columns in types.items():
        for name, dtype in columns.items():
            types_of.setdefault(name, {}).setdefault(dtype, file)
    common = pl.Schema()
    for name, dtypes in types_of.items():
        dtype = common_id(list(dtypes)) if name in PAIR else common_type(list(dtypes))
        if dtype is None and name not in COLUMNS["plays"]:
            notes.append(f"plays: column {name} left out: its types differ among the files, and it is not used")
            continue
        if dtype is None:
            examples = ", ".join(f"{other} in {file}" for other, file in list(dtypes.items())[:3])
            raise UserError(
                f"plays: column '{name}' has types that do not go together ({examples}): write it in one type"
            )
        common[name] = dtype
    return common


def zone_of(files: list[str]) -> str | None:
    """The time zone of `played_at`, if it has the same one in all files."""
    zones = {getattr(types_in(file).get("played_at"), "time_zone", None) for file in files}
    return zones.pop() if len(zones) == 1 else None


@contextmanager
def as_parquet(files: list[str]) -> Iterator[None]:
    """What goes wrong within is reported as a fault of the first of the files that cannot be read."""
    try:
        yield
    except UserError:
        raise
    except (Exception, pl.exceptions.PanicException) as error:  # polars raises many unrelated types here
        path = files[0] if len(files) == 1 else next(filter(damaged, files), None) or named(files, str(error))
        raise UserError(f"{path} cannot be read as Parquet ({reason(error)}): write the file again") from None


def reason(error: BaseException) -> str:
    """The line of an error that says most: of a Java trace the cause of all others, else the first."""
    said = str(error).strip()
    causes = re.findall(r"(?m)^Caused by: (.+)$", said)
    return causes[-1] if causes else (said.splitlines() or [type(error).__name__])[0]


def named(files: list[str], said: str) -> str:
    """The file that an error speaks of, else the folder of all."""
    said = unquote(said)
    return next((file for file in files if str(Path(file).resolve()) in said), str(Path(files[0]).parent))


def damaged(file: str) -> bool:
    """Whether a file cannot be read to its end."""
    try:
        for _ in pq.ParquetFile(file).iter_batches():
            pass
    except (pa.ArrowException, OSError):
        return True
    return False


def common_id(dtypes: list[Any]) -> Any:
    """Text for ids of several types, which all have one form as text: the widest integer type may not hold all."""
    accepts = KINDS["id"][2]
    if len(dtypes) > 1 and all(dtype == pl.Null or accepts(dtype) for dtype in dtypes):
        return pl.String()
    return common_type(dtypes)


def common_type(dtypes: list[Any]) -> Any:
    """Narrowest type that holds values of all these types, or None; nulls are compatible with any type."""
    dtypes = [dtype for dtype in dtypes if dtype != pl.Null] or [pl.Null]
    if len(dtypes) == 1:
        return dtypes[0]
    wider = {
        pl.Int64(): [dtype.is_integer() for dtype in dtypes],
        pl.Float64(): [dtype.is_numeric() for dtype in dtypes],
        pl.String(): [dtype.is_integer() or dtype in TEXT_TYPES for dtype in dtypes],
        pl.Datetime("us"): [dtype in (pl.Date, pl.Datetime) for dtype in dtypes],
    }
    return next((dtype for dtype, holds in wider.items() if all(holds)), None)
