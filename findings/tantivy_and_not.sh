#!/bin/sh
# tantivy: a search for "rain AND NOT live" finds nothing, without an error, whatever there is.
# Version: tantivy 0.27.0. Input: 2,000 songs with 3 to 12 of 40 words; one condition, a word and not another, written in seven ways of the
# query language, for 100 pairs of words; "rain OR NOT live", and the excluded word alone.
# Expected: the songs with the one and without the other each time: AND and OR are documented as operators and "-" as what excludes a
# word, and NOT is read as "-" is: "rain NOT live" and "rain -live" find the same, and alone both are refused with an error.
# Seen: "rain AND -live" finds all, "rain AND NOT live", "rain AND (NOT live)" and "NOT live AND rain" none in all 100: beside AND, NOT
# becomes a query of its own that finds nothing; "rain OR NOT live" finds what "rain" does.
set -eu
at=$(mktemp -d)
trap 'rm -rf "$at"' EXIT
python3 -m venv "$at/venv"
"$at/venv/bin/pip" install --quiet --disable-pip-version-check tantivy==0.27.0
"$at/venv/bin/python" - <<'PYTHON'
import random

import tantivy

draw, words = random.Random(0), [f"word{number}" for number in range(40)]
songs = [set(draw.sample(words, draw.randint(3, 12))) for _ in range(2000)]
fields = tantivy.SchemaBuilder()
fields.add_integer_field("song", stored=True)
fields.add_text_field("lyrics")
index = tantivy.Index(fields.build())
writer = index.writer(heap_size=50_000_000, num_threads=1)
for song, sung in enumerate(songs):
    writer.add_document(tantivy.Document(song=song, lyrics=" ".join(sung)))
writer.commit()
index.reload()
searcher = index.searcher()


def found(query):
    hits = searcher.search(index.parse_query(query, ["lyrics"]), len(songs)).hits
    return {searcher.doc(at)["song"][0] for _, at in hits}


forms = ("{0} -{1}", "{0} NOT {1}", "+{0} -{1}", "{0} AND -{1}", "{0} AND NOT {1}", "{0} AND (NOT {1})", "NOT {1} AND {0}", "{0} OR NOT {1}")
pairs, seen = [draw.sample(words, 2) for _ in range(100)], {}
for form in forms:
    right = none = plain = 0
    for some, other in pairs:
        true, hits = {song for song, sung in enumerate(songs) if some in sung and other not in sung}, found(form.format(some, other))
        right, none, plain = right + (hits == true), none + (not hits), plain + (hits == found(some))
    seen[form] = right, none, plain
    print(f"{form.format('rain', 'live')}: of 100 searches {right} find the songs with the one and without the other, {none} nothing, {plain} what 'rain' finds")
for alone in ("-word1", "NOT word1"):
    try:
        found(alone)
        raise AssertionError("an excluding word alone is searched for")
    except ValueError as error:
        print(f"{alone}: {error}")
for form, counts in seen.items():
    assert counts == ((0, 0, 100) if "OR" in form else (0, 100, 0) if "AND" in form and "-" not in form else (100, 0, 0)), "this has changed"
PYTHON
