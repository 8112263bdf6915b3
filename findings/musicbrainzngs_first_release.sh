#!/bin/sh
# musicbrainzngs: a recording's first release date and genres are left out of what MusicBrainz answers.
# Version: musicbrainzngs 0.7.1. Input: answers of the MusicBrainz web service (XML, namespace mmd-2.0) about a release group and a
# recording, each with a title, a first-release-date, a tag and a genre; read by the parser that all of the package's requests use.
# Expected: the same fields of both. Seen: title and tag of both, the date of the release group alone, no genres, without a word.
set -eu
at=$(mktemp -d)
trap 'rm -rf "$at"' EXIT
python3 -m venv "$at/venv"
"$at/venv/bin/pip" install --quiet --disable-pip-version-check musicbrainzngs==0.7.1
"$at/venv/bin/python" - <<'PYTHON'
from musicbrainzngs.mbxml import parse_message

number = "00000000-0000-4000-8000-00000000000"
seen = {}
for kind in ("release-group", "recording"):
    answer = f"""<?xml version="1.0" encoding="UTF-8"?>
    <metadata xmlns="http://musicbrainz.org/ns/mmd-2.0#"><{kind} id="{number}1">
      <title>A song</title><first-release-date>1999-05-03</first-release-date>
      <tag-list><tag count="2"><name>summer</name></tag></tag-list>
      <genre-list><genre count="2" id="{number}2"><name>rock</name></genre></genre-list>
    </{kind}></metadata>"""
    read = parse_message(answer.encode())[kind]
    seen[kind] = read["title"], read.get("first-release-date"), read["tag-list"][0]["name"], read.get("genre-list")
    print(f"{kind}: title, first release, tag, genres: {seen[kind]}")
assert seen["release-group"] == ("A song", "1999-05-03", "summer", None), "this has changed"
assert seen["recording"] == ("A song", None, "summer", None), "this has changed"
PYTHON
