#!/bin/sh
# FFmpeg (PyAV): opening an MP3 file with a cover takes tens of times as long as one without.
# Version: PyAV 18.1.0 (FFmpeg 8), numpy 2.3.5. Input: five seconds as MP3, with a picture of 600 kB in an ID3v2 tag in front.
# Expected: a little longer, for 600 kB are skipped. Seen: fifty times as long or more, since FFmpeg lets all of its formats guess at
# the picture, at one size after another. With format="mp3" it takes about as long as without the cover.
set -eu
at=$(mktemp -d)
trap 'rm -rf "$at"' EXIT
python3 -m venv "$at/venv"
"$at/venv/bin/pip" install --quiet --disable-pip-version-check av==18.1.0 numpy==2.3.5
"$at/venv/bin/python" - <<'PYTHON'
import io
import time

import av
import numpy as np

file = io.BytesIO()
with av.open(file, "w", format="mp3") as made:
    stream = made.add_stream("libmp3lame", rate=44100, layout="mono")
    for at in range(0, 5 * 44100, 1152):
        frame = av.AudioFrame.from_ndarray(np.random.default_rng(at).normal(0, 3000, (1, 1152)).astype("<i2"), "s16p", "mono")
        frame.sample_rate, frame.pts = 44100, at
        made.mux(stream.encode(frame))
    made.mux(stream.encode(None))
plain = file.getvalue()
picture = b"\0image/jpeg\0\3\0" + np.random.default_rng(0).bytes(600_000)
apic = b"APIC" + len(picture).to_bytes(4, "big") + b"\0\0" + picture
covered = b"ID3\3\0\0" + bytes(len(apic) >> shift & 127 for shift in (21, 14, 7, 0)) + apic + plain


def milliseconds(data, **options):
    times = []
    for _ in range(9):
        started = time.process_time()
        with av.open(io.BytesIO(data), **options) as container:
            assert container.streams.audio[0].rate == 44100
        times.append(1000 * (time.process_time() - started))
    return min(times)


bare, slow, told = milliseconds(plain), milliseconds(covered), milliseconds(covered, format="mp3")
print(f"opened without a cover in {bare:.2f} ms, with one in {slow:.2f} ms, with one and format='mp3' in {told:.2f} ms")
assert slow > 10 * bare and told < slow / 5, "this has changed"
PYTHON
