#!/bin/sh
# music-tag: the year of a reissued song is that of its first release in an MP3 file, and that of the reissue in a FLAC file.
# Version: music-tag 0.4.3, mutagen 1.48.1, soundfile 0.14.0, numpy 2.3.5. Input: a second of silence as MP3 and as FLAC with the same tags:
# date 2009 (TDRC, DATE), first released in 1969 (TDOR, ORIGINALDATE), as MusicBrainz's tagger writes them.
# Expected: one year for both: "an interface that does not depend on the underlying file format", says music-tag of itself. Seen: 1969 and
# 2009. And `year`, set to 2012 in the MP3 file, changes when the song was first released; its date stays 2009.
set -eu
at=$(mktemp -d)
trap 'rm -rf "$at"' EXIT
python3 -m venv "$at/venv"
"$at/venv/bin/pip" install --quiet --disable-pip-version-check music-tag==0.4.3 mutagen==1.48.1 soundfile==0.14.0 numpy==2.3.5
cd "$at"
"$at/venv/bin/python" - <<'PYTHON'
import music_tag
import mutagen.flac
import mutagen.id3
import numpy as np
import soundfile

for name in ("song.mp3", "song.flac"):
    soundfile.write(name, np.zeros(44100), 44100)
tags = mutagen.id3.ID3()
tags.add(mutagen.id3.TDRC(3, "2009"))
tags.add(mutagen.id3.TDOR(3, "1969"))
tags.save("song.mp3")
other = mutagen.flac.FLAC("song.flac")
other.update({"date": "2009", "originaldate": "1969"})
other.save()
seen = {name: int(music_tag.load_file(name)["year"]) for name in ("song.mp3", "song.flac")}
print(seen)
song = music_tag.load_file("song.mp3")
song["year"] = 2012
song.save()
frames = {name: str(mutagen.id3.ID3("song.mp3")[name]) for name in ("TDRC", "TDOR")}
print(f"with year set to 2012: {frames}")
assert seen == {"song.mp3": 1969, "song.flac": 2009} and frames == {"TDRC": "2009", "TDOR": "2012"}, "this has changed"
PYTHON
