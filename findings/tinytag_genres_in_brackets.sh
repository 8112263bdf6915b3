#!/bin/sh
# tinytag: of several genres in an ID3v2.3 tag the first alone is read, of a genre and its refinement the genre.
# Version: tinytag 2.3.2, mutagen 1.48.1, pytaglib 3.2.0, av 18.1.0. Input: three MP3 files with an ID3v2.3 tag whose genre is written as
# that version has several: "(17)(9)", "(4)Eurodisco" (a number and its refinement) and "(RX)(CR)" (remix, cover).
# Expected: Rock and Metal, Disco and Eurodisco, Remix and Cover, as mutagen reads. Seen: tinytag gives
# Rock, Disco and "(RX)(CR)", FFmpeg too; TagLib reads all, the last as RX and CR.
set -eu
at=$(mktemp -d)
trap 'rm -rf "$at"' EXIT
python3 -m venv "$at/venv"
"$at/venv/bin/pip" install --quiet --disable-pip-version-check tinytag==2.3.2 mutagen==1.48.1 pytaglib==3.2.0 av==18.1.0
cd "$at"
"$at/venv/bin/python" - <<'PYTHON'
import av
import mutagen
import taglib
import tinytag
from mutagen.id3 import ID3, TCON

seen = {}
for genre in ("(17)(9)", "(4)Eurodisco", "(RX)(CR)"):
    with open("song.mp3", "wb") as file:
        file.write((b"\xff\xfb\x90\x64" + bytes(413)) * 20)
    tags = ID3()
    tags.add(TCON(encoding=0, text=[genre]))
    tags.save("song.mp3", v2_version=3)
    with av.open("song.mp3") as file:
        ffmpeg = file.metadata.get("genre")
    seen[genre] = [
        mutagen.File("song.mp3").tags["TCON"].genres, tinytag.TinyTag.get("song.mp3").as_dict().get("genre"),
        taglib.File("song.mp3").tags.get("GENRE"), ffmpeg,
    ]
    print(f"{genre}: mutagen, tinytag, TagLib, FFmpeg: {seen[genre]}")
assert seen == {
    "(17)(9)": [["Rock", "Metal"], ["Rock"], ["Rock", "Metal"], "Rock"],
    "(4)Eurodisco": [["Disco", "Eurodisco"], ["Disco"], ["Disco", "Eurodisco"], "Disco"],
    "(RX)(CR)": [["Remix", "Cover"], ["(RX)(CR)"], ["RX", "CR"], "(RX)(CR)"],
}, "this has changed"
PYTHON
