#!/bin/sh
# fastparquet: a column of lists of lists is read as missing in every row, without a word.
# Version: fastparquet 2026.9.0, PyArrow 23.0.1, pandas 2.3.3, numpy 2.3.5. Input: a Parquet file by PyArrow with a vector per stretch of each
# song (lists of lists of floats), and a column of plain lists beside it.
# Expected: the vectors, or an error that such columns are not read. Seen: None for all songs, as for songs that have none; PyArrow and the
# plain lists are right.
set -eu
at=$(mktemp -d)
trap 'rm -rf "$at"' EXIT
python3 -m venv "$at/venv"
"$at/venv/bin/pip" install --quiet --disable-pip-version-check fastparquet==2026.9.0 pyarrow==23.0.1 pandas==2.3.3 numpy==2.3.5
cd "$at"
"$at/venv/bin/python" - <<'PYTHON'
import pandas
import pyarrow
import pyarrow.parquet

songs = {
    "song_id": ["a", "b", "c"],
    "tags": [["rock"], [], ["pop", "live"]],
    "stretches": [[[0.5, 1.5], [2.5, 3.5]], [[4.5, 5.5]], [[6.5, 7.5], [8.5, 9.5]]],
}
pyarrow.parquet.write_table(pyarrow.table(songs), "songs.parquet")
assert pyarrow.parquet.read_table("songs.parquet").to_pydict() == songs
read = pandas.read_parquet("songs.parquet", engine="fastparquet")
print(read.to_string())
assert read["song_id"].tolist() == songs["song_id"] and [*map(list, read["tags"])] == songs["tags"]
assert read["stretches"].isna().all(), "this has changed"
PYTHON
