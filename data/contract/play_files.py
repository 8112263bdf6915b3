"""A log of plays in many Parquet files: one type for each column, although writers change theirs over the years."""

from __future__ import annotations

from itertools import groupby
from typing import Any

import polars as pl
from polars.selectors import by_name  # takes a name as it is: "*" and "^…$" are patterns to pl.col

from configs.errors import UserError
from data.contract.columns import TEXT_TYPES


def read_log(files: list[str]) -> list[pl.LazyFrame]:
    """The files in their order, those in a row with the same types as one frame; all frames have all columns, alike.

    Raises:
        UserError: the types of a column in two files have none in common.
    """
    types = {file: types_in(file) for file in files}
    common = common_types(types)
    runs = [(there, list(run)) for there, run in groupby(files, key=lambda file: types[file])]
    return [in_types(pl.scan_parquet(run, glob=False), there, common) for there, run in runs]


def types_in(file: str) -> pl.Schema:
    """The columns of a file."""
    return pl.scan_parquet(file, glob=False).collect_schema()


def in_types(frame: pl.LazyFrame, there: pl.Schema, common: pl.Schema) -> pl.LazyFrame:
    """All columns in their common types, nulls where a file has none; times with a zone come to UTC."""
    if there == common:
        return frame
    return frame.select(
        (by_name(name) if name in there else pl.lit(None)).cast(dtype).alias(name) for name, dtype in common.items()
    )


def common_types(types: dict[str, pl.Schema]) -> pl.Schema:
    """One type for each column of some files (file → its types).

    Raises:
        UserError: there is none.
    """
    found: dict[str, dict[Any, str]] = {}  # column → its types, and a file with each
    for file, columns in types.items():
        for name, dtype in columns.items():
            found.setdefault(name, {}).setdefault(dtype, file)
    common = pl.Schema()
    for name, dtypes in found.items():
        dtype = common_type(list(dtypes))
        if dtype is None:
            told = ", ".join(f"{one} in {file}" for one, file in list(dtypes.items())[:3])
            raise UserError(f"plays: column '{name}' has types that do not go together ({told}): write it in one type")
        common[name] = dtype
    return common


def common_type(dtypes: list[Any]) -> Any:
    """The type that holds values of all these types, None where there is none; a column of nulls goes with any."""
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
