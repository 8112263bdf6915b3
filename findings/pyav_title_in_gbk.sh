#!/bin/sh
# PyAV: a sound file whose title is not UTF-8 cannot be opened at all.
# Version: PyAV 18.1.0, soundfile 0.13.1, numpy 2.3.5. Input: one second of noise as WAV, with a title in GBK in its INFO chunk, as
# programs on a Chinese Windows write it (the chunk has no field for an encoding).
# Expected: the sound, and a title of odd characters. Seen: av.open raises UnicodeDecodeError; metadata_errors="replace" opens it.
set -eu
at=$(mktemp -d)
trap 'rm -rf "$at"' EXIT
python3 -m venv "$at/venv"
"$at/venv/bin/pip" install --quiet --disable-pip-version-check av==18.1.0 soundfile==0.13.1 numpy==2.3.5
"$at/venv/bin/python" - <<'PYTHON'
import io

import av
import numpy as np
import soundfile

file = io.BytesIO()
soundfile.write(file, np.random.default_rng(0).standard_normal(44100) / 10, 44100, format="WAV")
title = "月光".encode("gbk")
info = b"LIST" + (12 + len(title)).to_bytes(4, "little") + b"INFOINAM" + len(title).to_bytes(4, "little") + title
wav = bytearray(file.getvalue())
wav[36:36] = info
wav[4:8] = (len(wav) - 8).to_bytes(4, "little")
print(f"soundfile reads {len(soundfile.read(io.BytesIO(wav))[0])} samples")
try:
    av.open(io.BytesIO(wav))
    raise SystemExit("this has changed: the file was opened")
except UnicodeDecodeError as error:
    print(f"av.open: {error}")
with av.open(io.BytesIO(wav), metadata_errors="replace") as container:
    decoded = sum(frame.samples for frame in container.decode(audio=0))
    print(f"with metadata_errors='replace': {decoded} samples, title {container.metadata['title']!r}")
assert decoded == 44100, "this has changed"
PYTHON
