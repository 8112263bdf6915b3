#!/bin/sh
# pydub: set_frame_rate to a lower rate turns what is too high for it into audible tones, instead of leaving it out.
# Version: pydub 0.25.1, soxr 1.1.0, numpy 2.3.5, Python 3.11 (audioop is its own). Input: two seconds of a sine of 15 kHz, amplitude .5, at
# 44.1 kHz, to be resampled to 16 kHz (which holds up to 8 kHz).
# Expected: nearly silence, as soxr gives it; pydub's API.markdown calls it "an equivalent version of this AudioSegment" of which a lower
# rate may lose quality. Seen: a sine of 1 kHz with amplitude .34: it is interpolated without a low-pass filter. A sine of 1 kHz is kept.
set -eu
at=$(mktemp -d)
trap 'rm -rf "$at"' EXIT
python3 -m venv "$at/venv"
"$at/venv/bin/pip" install --quiet --disable-pip-version-check pydub==0.25.1 soxr==1.1.0 numpy==2.3.5 'audioop-lts; python_version >= "3.13"'
"$at/venv/bin/python" -W ignore - <<'PYTHON'
import numpy as np
import soxr
from pydub import AudioSegment

time = np.arange(2 * 44100) / 44100


def loudest(wave):
    """The strongest frequency at 16 kHz, in Hz, and its amplitude."""
    strength = 4 * np.abs(np.fft.rfft(wave * np.hanning(len(wave)))) / len(wave)
    return round(strength.argmax() * 16000 / len(wave)), float(strength.max())


seen = {}
for hertz in (1000, 12000, 15000):
    wave = (0.5 * 32767 * np.sin(2 * np.pi * hertz * time)).astype("<i2")
    segment = AudioSegment(wave.tobytes(), frame_rate=44100, sample_width=2, channels=1).set_frame_rate(16000)
    seen[hertz] = loudest(np.array(segment.get_array_of_samples()) / 32767)
    other = loudest(soxr.resample(wave / 32767, 44100, 16000)[800:-800])[1]
    print(f"{hertz} Hz: pydub gives {seen[hertz][0]} Hz of amplitude {seen[hertz][1]:.3f}; soxr's loudest has {other:.5f}")
    assert other < 0.001 or hertz == 1000
assert seen[1000][0] == 1000 and seen[1000][1] > 0.49, "this has changed"
assert seen[15000][0] == 1000 and seen[15000][1] > 0.3 and seen[12000][0] == 4000, "this has changed"
PYTHON
