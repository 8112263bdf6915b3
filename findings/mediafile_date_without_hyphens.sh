#!/bin/sh
# mediafile: the year of a song whose date is written 20100503 is 20,100,503.
# Version: mediafile 0.17.0 (beets' reader of tags), tinytag 2.3.2, mutagen 1.48.1, soundfile 0.14.0, numpy 2.3.5. Input: a FLAC file with
# the date as 2010-05-03, and as 20100503: ISO 8601 has both, and yt-dlp writes the latter (`--embed-metadata`).
# Expected: the year 2010 and the date 2010-05-03 for both; or neither for the latter. Seen: for the latter no date, and a year of eight
# digits, without an error: songs of 2010 are newer than all others. tinytag hands the text on as it is.
set -eu
at=$(mktemp -d)
trap 'rm -rf "$at"' EXIT
python3 -m venv "$at/venv"
"$at/venv/bin/pip" install --quiet --disable-pip-version-check mediafile==0.17.0 tinytag==2.3.2 mutagen==1.48.1 soundfile==0.14.0 numpy==2.3.5
cd "$at"
"$at/venv/bin/python" - <<'PYTHON'
import mediafile
import mutagen.flac
import numpy as np
import soundfile
import tinytag

soundfile.write("song.flac", np.zeros(44100), 44100)
seen = {}
for date in ("2010-05-03", "20100503"):
    tags = mutagen.flac.FLAC("song.flac")
    tags["date"] = date
    tags.save()
    song = mediafile.MediaFile("song.flac")
    seen[date] = song.year, str(song.date)
    print(f"date={date}: year {song.year}, date {song.date}; tinytag {tinytag.TinyTag.get('song.flac').year}")
assert seen == {"2010-05-03": (2010, "2010-05-03"), "20100503": (20100503, "None")}, "this has changed"
PYTHON
