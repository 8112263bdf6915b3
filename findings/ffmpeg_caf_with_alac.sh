#!/bin/sh
# FFmpeg (PyAV): of ALAC in a CAF file the end is missing, although the packet table tells how long it is.
# Version: PyAV 18.1.0 (FFmpeg 8), soundfile 0.14.0, numpy 2.3.5. Input: 88,200 samples (2 s) as ALAC in CAF, by libsndfile: 22 packets of
# 4,096 samples, the last of which holds 2,184; the packet table says so (88,200 valid, 1,912 remaining): they add up to 22 * 4,096.
# Expected: 88,200 samples. Seen: libsndfile reads them, FFmpeg 86,288: it takes the 1,912 that the packet lacks off its end once more.
set -eu
at=$(mktemp -d)
trap 'rm -rf "$at"' EXIT
python3 -m venv "$at/venv"
"$at/venv/bin/pip" install --quiet --disable-pip-version-check av==18.1.0 soundfile==0.14.0 numpy==2.3.5
"$at/venv/bin/python" - <<'PYTHON'
import io
import struct

import av
import numpy as np
import soundfile

wave = np.random.default_rng(0).standard_normal(88200) / 10
file = io.BytesIO()
soundfile.write(file, wave, 44100, format="CAF", subtype="ALAC_16")
data = file.getvalue()
place = data.index(b"pakt") + 12
packets, valid, priming, remaining = struct.unpack(">qqii", data[place : place + 24])
print(f"packet table: {packets} packets, {valid} valid samples, {priming} before and {remaining} after them")
assert packets * 4096 == valid + priming + remaining and valid == 88200
read = soundfile.read(io.BytesIO(data))[0]
with av.open(io.BytesIO(data)) as container:
    decoded = np.concatenate([frame.to_ndarray()[0] for frame in container.decode(audio=0)])
equal = np.array_equal(decoded / 32768, read[: len(decoded)])
print(f"soundfile reads {len(read)} samples; PyAV decodes {len(decoded)}, equal as far as they go: {equal}")
assert len(read) == 88200 and len(decoded) == 88200 - remaining == 86288 and equal, "this has changed"
PYTHON
