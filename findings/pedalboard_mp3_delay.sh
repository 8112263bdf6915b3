#!/bin/sh
# pedalboard: an MP3 file begins 1,105 samples late and is longer than what was encoded, although its header tells both.
# Version: pedalboard 0.9.26, soundfile 0.14.0, miniaudio 1.71, numpy 2.3.5. Input: two seconds of noise (88,200 samples) as MP3, with the
# header that LAME writes: the encoder's delay and the padding at the end.
# Expected: 88,200 samples in place, as soundfile and miniaudio give. Seen: 89,856 by pedalboard, all 1,105 later (25 ms: 576 of the
# encoder, 529 of the decoder), with exact_duration_known; beats and the stretches that lyrics name are off by that.
set -eu
at=$(mktemp -d)
trap 'rm -rf "$at"' EXIT
python3 -m venv "$at/venv"
"$at/venv/bin/pip" install --quiet --disable-pip-version-check pedalboard==0.9.26 soundfile==0.14.0 miniaudio==1.71 numpy==2.3.5
"$at/venv/bin/python" - <<'PYTHON'
import io

import miniaudio
import numpy as np
import soundfile
from pedalboard.io import AudioFile

noise = np.random.default_rng(0).standard_normal(88200)
wave = np.convolve(noise, np.hanning(9), "same").astype(np.float32) / 20
file = io.BytesIO()
soundfile.write(file, wave, 44100, format="MP3")
data = file.getvalue()
assert b"LAME" in data[:4096] or b"Info" in data[:4096]
with AudioFile(io.BytesIO(data)) as opened:
    found = {"pedalboard": opened.read(opened.frames)[0]}
    assert opened.exact_duration_known
found["soundfile"] = soundfile.read(io.BytesIO(data), dtype="float32")[0]
kind = miniaudio.SampleFormat.FLOAT32
found["miniaudio"] = np.array(miniaudio.decode(data, output_format=kind, nchannels=1, sample_rate=44100).samples)
seen = {}
for name, decoded in found.items():
    alike = np.fft.irfft(np.fft.rfft(decoded, 2**18) * np.fft.rfft(wave, 2**18).conj())
    seen[name] = len(decoded), int(alike.argmax())
    print(f"{name}: {seen[name][0]} samples, {seen[name][1]} later than encoded")
assert seen["soundfile"] == seen["miniaudio"] == (88200, 0) and seen["pedalboard"] == (89856, 1105), "this has changed"
PYTHON
