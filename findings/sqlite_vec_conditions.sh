#!/bin/sh
# sqlite-vec: ten songs are asked for under a condition; how many come depends on how it is written.
# Version: sqlite-vec 0.1.9, apsw 3.54.1.0 (SQLite 3.54.1), numpy 2.3.5. Input: 3,000 vectors of 8 dimensions at random, with the year and
# whether it is a live recording as metadata columns of a vec0 table; the ten nearest (k = 10) of songs that meet a condition.
# Expected: ten each time, for hundreds of songs meet each; metadata columns "can be included in the WHERE clause of a KNN query". Seen:
# `not in`, `not (…)`, a Boolean column alone and any condition on the song's number but `in` are tried on the ten nearest of all songs
# alone, and leave 9, 1, 7 and 5 of them, where `>=`, `<=`, `= 1` and a copy of the number find ten. Others, such as `like`, are refused.
set -eu
at=$(mktemp -d)
trap 'rm -rf "$at"' EXIT
python3 -m venv "$at/venv"
"$at/venv/bin/pip" install --quiet --disable-pip-version-check sqlite-vec==0.1.9 apsw==3.54.1.0 numpy==2.3.5
"$at/venv/bin/python" - <<'PYTHON'
import apsw
import numpy as np
import sqlite_vec

rng = np.random.default_rng(0)
vectors = rng.normal(size=(3000, 8)).astype(np.float32)
year, live = rng.integers(1990, 2020, 3000).tolist(), rng.integers(0, 2, 3000).tolist()
query = rng.normal(size=8).astype(np.float32).tobytes()
base = apsw.Connection(":memory:")
base.enable_load_extension(True)
base.load_extension(sqlite_vec.loadable_path())
base.execute("create virtual table songs using vec0(song integer primary key, v float[8], year integer, live boolean, number integer)")
rows = [(song, vectors[song].tobytes(), year[song], live[song], song) for song in range(3000)]
base.executemany("insert into songs(song, v, year, live, number) values (?, ?, ?, ?, ?)", rows)
pairs = {
    "year not in (1990, 1991, 1992, 1993, 1994)": "year >= 1995",
    "not (year > 1992)": "year <= 1992",
    "live": "live = 1",
    "song < 1000": "number < 1000",
}
seen = []
for condition in [each for pair in pairs.items() for each in pair]:
    found = base.execute(f"select song from songs where v match ? and k = 10 and ({condition})", [query]).fetchall()
    seen.append(len(found))
    meet = base.execute(f"select count(*) from songs where {condition}").fetchone()[0]
    print(f"{condition}: {seen[-1]} of {meet} songs")
assert seen[1::2] == [10, 10, 10, 10] and all(few < 10 for few in seen[::2]), "this has changed"
PYTHON
