#!/bin/sh
# soundfile: in an open Ogg Vorbis file, what is read after a seek forwards is from another place.
# Version: soundfile 0.14.0 (libsndfile 1.2.2), numpy 2.3.5. Input: 20 s of noise and clicks as Ogg Vorbis, Ogg Opus and FLAC; a
# tenth of a second at each whole second, by seek and read in one open file.
# Expected: the same samples as in the whole file; `seek` is to "set the read/write position", and `tell` agrees. Seen: so for Opus and
# FLAC, and for Vorbis where each seek has a file of its own (`soundfile.read(start=…)`). In one open Vorbis file all excerpts
# but the first are those of 10 or 20 ms later (in other music also earlier), without an error.
set -eu
at=$(mktemp -d)
trap 'rm -rf "$at"' EXIT
python3 -m venv "$at/venv"
"$at/venv/bin/pip" install --quiet --disable-pip-version-check soundfile==0.14.0 numpy==2.3.5
cd "$at"
"$at/venv/bin/python" - <<'PYTHON'
import numpy as np
import soundfile

wave = 0.02 * np.random.default_rng(0).normal(size=20 * 48000)
wave[::12000] += 0.5
seen = {}
for name, subtype in (("a.flac", "PCM_16"), ("a.opus", "OPUS"), ("a.ogg", "VORBIS")):
    soundfile.write(name, wave, 48000, format="FLAC" if subtype == "PCM_16" else "OGG", subtype=subtype)
    whole = soundfile.read(name, dtype="float32")[0]
    late = []
    with soundfile.SoundFile(name) as file:
        for start in range(48000, 19 * 48000, 48000):
            file.seek(start)
            found = file.read(4800, dtype="float32")
            assert file.tell() == start + 4800
            alone = soundfile.read(name, start=start, frames=4800, dtype="float32")[0]
            assert np.abs(alone - whole[start : start + 4800]).max() < 0.01
            near = whole[start - 5000 : start + 10000]
            place = np.correlate(near, found[-1000:], "valid").argmax() - 5000 - 3800
            late.append(int(place))
    seen[name] = late
    print(f"{name}: {sum(place != 0 for place in late)} of {len(late)} excerpts from another place; by samples: {late}")
assert not any(seen["a.flac"]) and not any(seen["a.opus"]), "this has changed"
assert sum(place in (448, 896) for place in seen["a.ogg"]) > 12, "this has changed"
PYTHON
