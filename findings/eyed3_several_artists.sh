#!/bin/sh
# eyeD3: two artists, and two genres, come as one text with a NUL character between them.
# Version: eyeD3 0.9.9, mutagen 1.48.1, tinytag 2.3.2. Input: two MP3 files with ID3v2.4 tags, of one artist and genre and of two each, as
# mutagen writes several values (the format parts them by NUL).
# Expected: both artists and both genres, as mutagen and tinytag read. Seen: one artist "Ann\0Ben", who prints like AnnBen and is nobody's
# in a catalogue, and one genre "Rock\0Pop" without a number (Rock alone is 17).
set -eu
at=$(mktemp -d)
trap 'rm -rf "$at"' EXIT
python3 -m venv "$at/venv"
"$at/venv/bin/pip" install --quiet --disable-pip-version-check eyeD3==0.9.9 mutagen==1.48.1 tinytag==2.3.2
cd "$at"
"$at/venv/bin/python" - <<'PYTHON'
import eyed3
import mutagen
import tinytag
from mutagen.id3 import ID3, TCON, TPE1

eyed3.log.setLevel("ERROR")
seen = {}
for artists, genres in ((["Ann"], ["Rock"]), (["Ann", "Ben"], ["Rock", "Pop"])):
    with open("song.mp3", "wb") as file:
        file.write((b"\xff\xfb\x90\x64" + bytes(413)) * 20)
    tags = ID3()
    tags.add(TPE1(encoding=3, text=artists))
    tags.add(TCON(encoding=3, text=genres))
    tags.save("song.mp3")
    read = eyed3.load("song.mp3").tag
    seen[len(artists)] = read.artist, read.genre.name, read.genre.id
    one, other = mutagen.File("song.mp3").tags, tinytag.TinyTag.get("song.mp3").as_dict()
    print(f"eyeD3 {seen[len(artists)]}; mutagen {one['TPE1'].text}, {one['TCON'].genres}; tinytag {other['artist']}, {other['genre']}")
    assert one["TPE1"].text == other["artist"] == artists and one["TCON"].genres == other["genre"] == genres
assert seen == {1: ("Ann", "Rock", 17), 2: ("Ann\0Ben", "Rock\0Pop", None)}, "this has changed"
PYTHON
