#!/bin/sh
# audioread: a 24-bit AIFF file is read as noise.
# Version: audioread 3.1.0, soundfile 0.14.0, numpy 2.4.6 (Python up to 3.12, whose standard library has aifc; later with
# standard-aifc). Input: 2 s of a sine of 440 Hz at half of full scale, as WAV and AIFF files of 16 and 24 bits by libsndfile.
# Expected: the same 16-bit samples of all four (audioread says what it gives: 16 bits, little-endian). Seen: the correlation with the
# sine is 1.00 for three files and -.04 for the 24-bit AIFF, whose level is .568 of full scale and not .354: numbers with their most
# significant byte first are shortened as if it came last, then turned.
set -eu
at=$(mktemp -d)
trap 'rm -rf "$at"' EXIT
python3 -m venv "$at/venv"
"$at/venv/bin/pip" install --quiet --disable-pip-version-check audioread==3.1.0 soundfile==0.14.0 numpy==2.4.6
cd "$at"
"$at/venv/bin/python" -W ignore - <<'PYTHON'
import audioread
import numpy as np
import soundfile

sine = 0.5 * np.sin(2 * np.pi * 440 * np.arange(2 * 44100) / 44100)
seen = {}
for name in ("wav", "aiff"):
    for bits in (16, 24):
        soundfile.write(f"song.{name}", sine, 44100, subtype=f"PCM_{bits}")
        with audioread.audio_open(f"song.{name}") as file:
            kind, read = type(file).__name__, np.frombuffer(b"".join(file), "<i2") / 2**15
        whole = soundfile.read(f"song.{name}")[0]
        seen[name, bits] = len(read), np.corrcoef(read, sine)[0, 1], np.sqrt(np.mean(read**2))
        print(f"{name} of {bits} bits ({kind}): {len(read)} samples, correlation {seen[name, bits][1]:.3f}, level {seen[name, bits][2]:.3f}; "
              f"libsndfile: correlation {np.corrcoef(whole, sine)[0, 1]:.3f}, level {np.sqrt(np.mean(whole**2)):.3f}")
good = [seen["wav", 16], seen["wav", 24], seen["aiff", 16]]
assert all(count == len(sine) and alike > 0.999 and abs(level - 0.354) < 0.001 for count, alike, level in good), "this has changed"
count, alike, level = seen["aiff", 24]
assert count == len(sine) and abs(alike) < 0.1 and abs(level - 0.568) < 0.001, "this has changed"
PYTHON
