#!/bin/sh
# mutagen: a minute of ADPCM in a WAV file lasts .015 s.
# Version: mutagen 1.48.1, tinytag 2.3.2, soundfile 0.14.0, numpy 2.4.6. Input: 60 s of a sine as WAV files by libsndfile, as 16-bit
# samples, A-law, Microsoft's ADPCM, IMA ADPCM and GSM 6.10.
# Expected: 60 s of each, as each file's chunk "fact" has it (to a block). Seen: .0147 s of both kinds of ADPCM and .1875 s of GSM: a block,
# of 2,036 to 2,041 samples or of 320, counts as one sample. tinytag and libsndfile say 60 to 60.1 s.
set -eu
at=$(mktemp -d)
trap 'rm -rf "$at"' EXIT
python3 -m venv "$at/venv"
"$at/venv/bin/pip" install --quiet --disable-pip-version-check mutagen==1.48.1 tinytag==2.3.2 soundfile==0.14.0 numpy==2.4.6
cd "$at"
"$at/venv/bin/python" - <<'PYTHON'
import mutagen
import numpy as np
import soundfile
import tinytag

sine = 0.5 * np.sin(2 * np.pi * 440 * np.arange(60 * 44100) / 44100)
seen = {}
for kind in ("PCM_16", "ALAW", "MS_ADPCM", "IMA_ADPCM", "GSM610"):
    soundfile.write("song.wav", sine, 44100, subtype=kind)
    one, other = mutagen.File("song.wav").info.length, tinytag.TinyTag.get("song.wav").duration
    seen[kind] = one
    print(f"{kind}: mutagen {one:.4f} s, tinytag {other:.4f} s, libsndfile {soundfile.info('song.wav').duration:.4f} s")
    assert abs(other - 60) < 0.1
assert seen["PCM_16"] == seen["ALAW"] == 60 and round(seen["GSM610"], 4) == 0.1875, "this has changed"
assert round(seen["MS_ADPCM"], 4) == round(seen["IMA_ADPCM"], 4) == 0.0147, "this has changed"
PYTHON
