#!/bin/sh
# milvus-lite: "year not in [2010]" finds songs whose year is missing, "year != 2010" does not.
# Version: milvus-lite 3.2.2, pymilvus 3.0.2, faiss-cpu 1.15.1. Input: four songs, one of them without a year (a nullable field).
# Expected: both conditions find the same songs; as in SQL, a comparison with what is missing is not true. Seen: "not in" and
# "not (year in [2010])" find the song without a year too, "!=" and "not (year == 2010)" do not.
set -eu
at=$(mktemp -d)
trap 'rm -rf "$at"' EXIT
python3 -m venv "$at/venv"
"$at/venv/bin/pip" install --quiet --disable-pip-version-check milvus-lite==3.2.2 pymilvus==3.0.2 faiss-cpu==1.15.1
cd "$at"
"$at/venv/bin/python" - <<'PYTHON'
from pymilvus import DataType, MilvusClient

client = MilvusClient("a.db")
schema = client.create_schema(auto_id=False)
schema.add_field("song", DataType.INT64, is_primary=True)
schema.add_field("vector", DataType.FLOAT_VECTOR, dim=2)
schema.add_field("year", DataType.INT64, nullable=True)
client.create_collection("songs", schema=schema)
years = [2010, None, 2015, 1999]
client.insert("songs", [{"song": at, "vector": [1.0, at], "year": year} for at, year in enumerate(years)])
index = client.prepare_index_params()
index.add_index("vector", index_type="FLAT", metric_type="IP")
client.create_index("songs", index)
client.load_collection("songs")
found = {}
for condition in ("year != 2010", "not (year == 2010)", "not (year in [2010])", "year not in [2010]"):
    rows = client.query("songs", filter=condition, output_fields=["song"])
    found[condition] = [years[row["song"]] for row in rows]
    print(f"{condition}: songs of {found[condition]}")
assert {*found["year != 2010"]} == {*found["not (year == 2010)"]} == {2015, 1999}, "this has changed"
assert {*found["year not in [2010]"]} == {*found["not (year in [2010])"]} == {None, 2015, 1999}, "this has changed"
PYTHON
