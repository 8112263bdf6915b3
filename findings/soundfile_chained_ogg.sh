#!/bin/sh
# soundfile (libsndfile): of a chained Ogg file the first stream alone is counted and read, without an error.
# Version: soundfile 0.13.1 (with its libsndfile), PyAV 16.0.1, numpy 2.3.5. Input: two Ogg Vorbis recordings of 3 s, one after the other:
# a chained stream, as RFC 3533 allows and as internet radio writes it.
# Expected: 6 s, which PyAV decodes. Seen: soundfile announces and reads 3 s.
set -eu
at=$(mktemp -d)
trap 'rm -rf "$at"' EXIT
python3 -m venv "$at/venv"
"$at/venv/bin/pip" install --quiet --disable-pip-version-check soundfile==0.13.1 av==16.0.1 numpy==2.3.5
"$at/venv/bin/python" - <<'PYTHON'
import io

import av
import numpy as np
import soundfile

RATE = 44100


def tone(hertz):
    file = io.BytesIO()
    wave = np.sin(2 * np.pi * hertz * np.arange(3 * RATE) / RATE) / 2
    soundfile.write(file, wave, RATE, format="OGG", subtype="VORBIS")
    return file.getvalue()


chained = tone(440) + tone(660)
file = soundfile.SoundFile(io.BytesIO(chained))
announced, read = file.frames / RATE, len(file.read()) / RATE
with av.open(io.BytesIO(chained)) as container:
    decoded = sum(frame.samples for frame in container.decode(audio=0)) / RATE
print(f"soundfile announces {announced:.2f} s and reads {read:.2f} s; PyAV decodes {decoded:.2f} s")
assert announced == read == 3 and abs(decoded - 6) < 0.1, "this has changed"
PYTHON
