#!/bin/sh
# DuckDB: a Parquet file with vectors (FLOAT[3]), one of them missing, is not well-formed: PyArrow does not read it.
# Version: duckdb 2.0.1, PyArrow 23.0.1, Polars 1.36.1. Input: 1,000 songs, each fourth without a vector, written by COPY ... TO.
# Expected: by Parquet's rules of nesting (Dremel) a missing list is one entry of its column: 750 * 3 + 250 = 2,500, as DuckDB writes it for
# lists (FLOAT[]). Seen: 3,000, a missing vector having three; PyArrow says "Length spanned by list offsets (2750) larger than values array
# (length 2250)". DuckDB and Polars read the file.
set -eu
at=$(mktemp -d)
trap 'rm -rf "$at"' EXIT
python3 -m venv "$at/venv"
"$at/venv/bin/pip" install --quiet --disable-pip-version-check duckdb==2.0.1 pyarrow==23.0.1 polars==1.36.1
cd "$at"
"$at/venv/bin/python" - <<'PYTHON'
import duckdb
import polars
import pyarrow
import pyarrow.parquet

vector = "CASE WHEN i % 4 <> 1 THEN [i, i + 0.5, 3] END"
entries = {}
for kind in ("FLOAT[]", "FLOAT[3]"):
    duckdb.sql(f"COPY (SELECT i AS song, ({vector})::{kind} AS vector FROM range(1000) t(i)) TO 'songs.parquet'")
    file = pyarrow.parquet.ParquetFile("songs.parquet")
    entries[kind] = file.metadata.row_group(0).column(1).num_values
    try:
        said = f"{len(file.read())} songs"
    except pyarrow.ArrowInvalid as error:
        said = str(error)
    missing = polars.read_parquet("songs.parquet")["vector"].null_count()
    print(f"{kind}: {entries[kind]} entries; PyArrow: {said}; Polars: {missing} vectors missing")
    assert missing == 250 and said.startswith("1000 songs" if kind == "FLOAT[]" else "Length spanned"), "this has changed"
assert entries == {"FLOAT[]": 2500, "FLOAT[3]": 3000}, "this has changed"
PYTHON
