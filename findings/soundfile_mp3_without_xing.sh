#!/bin/sh
# soundfile (libsndfile): a variable-bitrate MP3 without a Xing header is announced as nearly three times its length.
# Version: soundfile 0.13.1 (with its libsndfile), lameenc 1.8.1, numpy 2.3.5. Input: 3 s of silence, then 27 s of noise, encoded at
# variable bitrate as a stream: an encoder that cannot go back to the start writes no Xing header.
# Expected: about 30 s. Seen: SoundFile.frames says more than 80 s (the bitrate of the first, silent frames), read() gives the 30 s.
set -eu
at=$(mktemp -d)
trap 'rm -rf "$at"' EXIT
python3 -m venv "$at/venv"
"$at/venv/bin/pip" install --quiet --disable-pip-version-check soundfile==0.13.1 lameenc==1.8.1 numpy==2.3.5
"$at/venv/bin/python" - <<'PYTHON'
import io

import lameenc
import numpy as np
import soundfile

RATE = 44100
noise = np.random.default_rng(1).standard_normal(27 * RATE) / 5
wave = (np.concatenate([np.zeros(3 * RATE), noise]) * 32767).clip(-32767, 32767).astype("<i2")
encoder = lameenc.Encoder()
encoder.set_channels(1)
encoder.set_in_sample_rate(RATE)
encoder.set_vbr(4)
encoder.set_vbr_quality(2)
encoder.silence()
encoded = bytes(encoder.encode(wave.tobytes()) + encoder.flush())
assert b"Xing" not in encoded
file = soundfile.SoundFile(io.BytesIO(encoded))
announced, read = file.frames / RATE, len(file.read()) / RATE
print(f"soundfile announces {announced:.2f} s and reads {read:.2f} s")
assert 75 < announced < 90 and abs(read - 30) < 0.2, "this has changed"
PYTHON
