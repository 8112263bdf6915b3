"""Read Parquet files with Spark as polars reads them: types, times, what of a row's values Spark does not know."""

from __future__ import annotations

import re
from functools import reduce
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from configs.errors import UserError
from data.contract.columns import PAIR
from data.contract.play_files import types_in

ORDER = ("_file", "_row")  # position of a row in the log
TIMES = (pl.Datetime("ms"), pl.Datetime("us"))
KINDS = {pl.String: "string", pl.Boolean: "boolean", pl.Int64: "bigint", pl.Float64: "double"}
KINDS |= dict.fromkeys(TIMES, "timestamp")


def read_log(spark: Any, files: list[str], schema: pl.Schema, aside: Path) -> Any:
    """Read the log with the contract's types (times in UTC) and the position of each row; `aside`: for what is needed.

    Raises:
        UserError: a file is hidden: Spark would leave it out without a word.
    """
    if passed_over := next((file for file in files if Path(file).name.startswith((".", "_"))), None):
        raise UserError(f"{passed_over}: Spark reads no file whose name begins with '.' or '_': rename it")
    alike: dict[Any, list[str]] = {}
    for file in files:
        alike.setdefault((tuple(types_in(file).items()), int96_in(file), unknown_in(file)), []).append(file)
    logs = [read_alike(spark, group, pl.Schema(types), schema, aside) for (types, *_), group in alike.items()]
    return reduce(lambda log, more: log.unionByName(more), logs)


def int96_in(file: str) -> tuple[str, ...]:
    """Columns of times that Spark and Hive have written; to polars their type is that of any nanoseconds."""
    schema = pq.ParquetFile(file).schema
    return tuple(column.path for column in map(schema.column, range(len(schema))) if column.physical_type == "INT96")


def read_alike(spark: Any, files: list[str], types: pl.Schema, schema: pl.Schema, aside: Path) -> Any:
    """Read, as `read_log`, files that all have the schema `types`."""
    from pyspark.sql import functions as F

    log, unknown = frame_of(spark, files, aside), dict(unknown_in(files[0]))
    kinds = dict(log.dtypes)
    columns = []
    for name, dtype in schema.items():
        present = types.get(name, pl.Null) != pl.Null
        column = as_meant(F.col(quoted(name)), unknown.get(name)) if present else F.lit(None)
        if dtype == types.get(name, pl.Null) and name not in PAIR:
            column = alike_at_depth(column, dtype, log.schema[name].dataType if present else None)
        if dtype in TIMES and kinds.get(name) == "bigint":  # nanoseconds, floored as polars does
            column = F.timestamp_micros(F.expr("({0} - pmod({0}, 1000)) div 1000".format(quoted(name))))
        if types.get(name, pl.Null()).is_float() and dtype in (pl.String, pl.Int64):  # integers, as pandas has them
            column = F.when(~F.isnan(column), column.cast("bigint"))
        if dtype in KINDS:
            column = column.cast(KINDS[dtype])
        if name in PAIR:  # (?U): white space as Unicode has it, as for polars
            column = F.when(column.rlike("(?U)\\S"), column)
        if dtype == pl.Datetime("ms"):
            column = F.timestamp_millis(F.unix_millis(column))
        columns.append(column.alias(name))
    place = log.metadataColumn("_metadata")  # not F.col: a file may have a column of that name
    return log.select(*columns, place.getField("file_path").alias("_file"), place.getField("row_index").alias("_row"))


def unknown_in(file: str) -> tuple[tuple[str, pa.DataType], ...]:
    """Columns of a file with types that Spark does not know, at any depth."""
    return tuple((field.name, field.type) for field in pq.read_schema(file) if as_stored(field.type) != field.type)


def as_stored(dtype: Any) -> Any:
    """A type in which Spark knows those that it does not by how they are stored: integers, or two bytes."""
    if pa.types.is_time(dtype):
        return pa.int64() if pa.types.is_time64(dtype) else pa.int32()
    if pa.types.is_float16(dtype):
        return pa.binary(2)
    if pa.types.is_struct(dtype):
        return pa.struct([field.with_type(as_stored(field.type)) for field in dtype])
    if pa.types.is_map(dtype):
        return pa.map_(as_stored(dtype.key_type), as_stored(dtype.item_type))
    if pa.types.is_list(dtype) or pa.types.is_large_list(dtype) or pa.types.is_fixed_size_list(dtype):
        return pa.list_(dtype.value_field.with_type(as_stored(dtype.value_type)))
    return dtype


def frame_of(spark: Any, files: list[str], aside: Path) -> Any:
    """Scan files of one schema, what Spark does not know as it is stored."""
    places = [pattern(Path(file)) for file in files]
    if not unknown_in(files[0]):
        return spark.read.option("mergeSchema", "true").parquet(*places)
    types = pq.read_schema(files[0])
    stored = pa.schema([field.with_type(as_stored(field.type)) for field in types])
    empty = aside / f"types-{len(list(aside.glob('types-*')))}.parquet"  # from which Spark takes its own types
    pq.write_table(stored.empty_table(), empty, use_deprecated_int96_timestamps=bool(int96_in(files[0])))
    return spark.read.schema(spark.read.parquet(pattern(empty)).schema).parquet(*places)


def as_meant(column: Any, dtype: Any) -> Any:
    """Values of a column of `as_stored(dtype)`: times of day in nanoseconds, 16-bit fractions as wider ones."""
    from pyspark.sql import functions as F

    if dtype is None or as_stored(dtype) == dtype:
        return column
    if pa.types.is_time(dtype):
        return column.cast("bigint") * {"s": 10**9, "ms": 10**6, "us": 1000, "ns": 1}[dtype.unit]
    if pa.types.is_struct(dtype):
        parts = [as_meant(column.getField(part.name), part.type).alias(part.name) for part in dtype]
        return F.when(column.isNotNull(), F.struct(*parts))
    if pa.types.is_map(dtype):
        column = F.transform_keys(column, lambda key, _: as_meant(key, dtype.key_type))
        return F.transform_values(column, lambda _, one: as_meant(one, dtype.item_type))
    if not pa.types.is_float16(dtype):
        return F.transform(column, lambda one: as_meant(one, dtype.value_type))
    low, high = (F.hex(F.substring(column, place, 1)) for place in (1, 2))
    bits = F.conv(F.concat(high, low), 16, 10).cast("int")
    exponent, part = F.shiftright(bits, 10).bitwiseAND(F.lit(31)), bits.bitwiseAND(F.lit(1023)) / 1024
    large = F.when(part == 0, float("inf")).otherwise(float("nan"))
    size = F.when(exponent == 31, large).otherwise((part + 1) * F.pow(F.lit(2.0), exponent - 15))
    size = F.when(exponent == 0, part * 2.0**-14).otherwise(size)
    return F.when(bits >= 2**15, -size).otherwise(size).cast("float")


def alike_at_depth(column: Any, dtype: Any, kind: Any) -> Any:
    """A column of one type (polars `dtype`, Spark `kind`), as any file with it has it, also within lists and structs.

    Nanoseconds are integers, though Spark reads INT96 as times; and nothing is text: no column of Spark's own type for
    it is read by polars.
    """
    from pyspark.sql import functions as F
    from pyspark.sql import types as T

    if dtype == pl.Null:
        return F.lit(None).cast("string")
    if isinstance(dtype, pl.Datetime) and isinstance(kind, T.TimestampNTZType | T.TimestampType):
        column = column.cast("timestamp")
        return F.unix_micros(column) * 1000 if dtype.time_unit == "ns" else column
    if isinstance(dtype, pl.List) and isinstance(kind, T.ArrayType):
        return F.transform(column, lambda one: alike_at_depth(one, dtype.inner, kind.elementType))
    if isinstance(dtype, pl.Struct) and isinstance(kind, T.StructType):
        parts = [
            alike_at_depth(column.getField(part.name), part.dtype, kind[part.name].dataType).alias(part.name)
            for part in dtype.fields
        ]
        return F.when(column.isNotNull(), F.struct(*parts))
    return column


def quoted(name: str) -> str:
    """Quote a column's name for Spark SQL."""
    return "`" + name.replace("`", "``") + "`"


def uri(path: Path) -> str:
    """URI of a local path, whatever Spark's default file system is; unescaped, since Hadoop does not decode it."""
    return f"file://{path.resolve()}"


def pattern(path: Path) -> str:
    """URI for reading, with the path's own glob characters escaped."""
    return re.sub(r"([\[\]{}*?\\])", r"\\\1", uri(path))
