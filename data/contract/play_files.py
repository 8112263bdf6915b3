"""Read a log of plays in many Parquet files whose column types may differ."""

from __future__ import annotations

from itertools import groupby
from typing import Any

import polars as pl
from polars.selectors import by_name  # takes a name as it is: "*" and "^…$" are patterns to pl.col

from configs.errors import UserError
from data.contract.columns import KINDS, PAIR, TEXT_TYPES, in_integers


def read_log(files: list[str]) -> list[pl.LazyFrame]:
    """Scan the files in order, as one frame for each run of files of equal types; all frames get the same columns.

    Raises:
        UserError: two files have incompatible types of a column.
    """
    types = {file: types_in(file) for file in files}
    common = common_types(types)
    runs = [(schema, list(run)) for schema, run in groupby(files, key=lambda file: types[file])]
    return [in_types(pl.scan_parquet(run, glob=False), schema, common) for schema, run in runs]


def types_in(file: str) -> pl.Schema:
    """Schema of a file."""
    return pl.scan_parquet(file, glob=False).collect_schema()


def in_types(frame: pl.LazyFrame, schema: pl.Schema, common: pl.Schema) -> pl.LazyFrame:
    """Cast a frame to the common schema; absent columns become nulls, times with a zone are converted to UTC."""
    if schema == common:
        return frame
    frame = in_integers("plays", frame)
    return frame.select(
        (by_name(name) if name in schema else pl.lit(None)).cast(dtype).alias(name) for name, dtype in common.items()
    )


def common_types(types: dict[str, pl.Schema]) -> pl.Schema:
    """Find a common type of each column over files (file → schema).

    Raises:
        UserError: a column has no common type.
    """
    types_of: dict[str, dict[Any, str]] = {}  # column → type → a file that has it
    for file, columns in types.items():
        for name, dtype in columns.items():
            types_of.setdefault(name, {}).setdefault(dtype, file)
    common = pl.Schema()
    for name, dtypes in types_of.items():
        dtype = common_id(list(dtypes)) if name in PAIR else common_type(list(dtypes))
        if dtype is None:
            examples = ", ".join(f"{other} in {file}" for other, file in list(dtypes.items())[:3])
            raise UserError(
                f"plays: column '{name}' has types that do not go together ({examples}): write it in one type"
            )
        common[name] = dtype
    return common


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
