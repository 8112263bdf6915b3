#!/bin/sh
# CueParser: the frames of a cue sheet's times, of which a second has 75, are read as hundredths of a second.
# Version: CueParser 1.3.3, cuetools 1.1.2. Input: a cue sheet of four songs in one recording, whose beginnings lie 74, 37 and 1 frames
# behind a full second.
# Expected: 60.987 s, 120.493 s and 180.013 s, as cuetools gives them. Seen: 60.740 s, 120.370 s and 180.010 s: beginnings are up to .25 s
# too early, and lengths of songs are wrong by as much (59.63 s for 59.507 s).
set -eu
at=$(mktemp -d)
trap 'rm -rf "$at"' EXIT
python3 -m venv "$at/venv"
"$at/venv/bin/pip" install --quiet --disable-pip-version-check CueParser==1.3.3 cuetools==1.1.2
"$at/venv/bin/python" - <<'PYTHON'
import cuetools
import cueparser

starts = ("00:00:00", "01:00:74", "02:00:37", "03:00:01")
text = 'PERFORMER "A singer"\nTITLE "An album"\nFILE "album.wav" WAVE\n'
for number, start in enumerate(starts, 1):
    text += f'  TRACK {number:02} AUDIO\n    TITLE "Song {number}"\n    INDEX 01 {start}\n'
sheet = cueparser.CueSheet()
sheet.setOutputFormat("%title%", "%title%")
sheet.setData(text)
sheet.parse()
seen = []
for start, song, other in zip(starts, sheet.tracks, cuetools.loads(text).tracks, strict=True):
    minutes, seconds, frames = map(int, start.split(":"))
    right = round(60 * minutes + seconds + frames / 75, 3)
    seen.append(cueparser.offsetToTimedelta(song.offset).total_seconds())
    length = song.duration and song.duration.total_seconds()
    print(f"{song.title} at {start}: CueParser {seen[-1]} s, length {length} s; cuetools {other.index01.frames / 75:.3f} s")
    assert right == round(other.index01.frames / 75, 3)
assert seen == [0, 60.74, 120.37, 180.01] and sheet.tracks[1].duration.total_seconds() == 59.63, "this has changed"
PYTHON
