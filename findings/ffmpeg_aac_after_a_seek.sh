#!/bin/sh
# FFmpeg (PyAV): AAC that is decoded from the middle of a file is not what it is when decoded from the start.
# Version: PyAV 18.1.0 (FFmpeg 8), numpy 2.3.5. Input: 20 s of tones and noise, encoded as AAC in M4A and as MP3 by FFmpeg's own encoders.
# Expected: each second is the same after a seek to half a second before it as in the whole file. Seen: the MP3 is, to the last bit; of
# the AAC samples differ by more than .01 of full scale, since its bands of noise (PNS) are drawn from a generator whose state depends
# on all that was decoded. Without PNS (aac_pns=0) the AAC is the same too.
set -eu
at=$(mktemp -d)
trap 'rm -rf "$at"' EXIT
python3 -m venv "$at/venv"
"$at/venv/bin/pip" install --quiet --disable-pip-version-check av==18.1.0 numpy==2.3.5
"$at/venv/bin/python" - <<'PYTHON'
import io

import av
import numpy as np

RATE = 44100
time = np.arange(20 * RATE) / RATE
noise = np.random.default_rng(1).normal(0, 0.05, (2, len(time)))
tones = [np.sin(2 * np.pi * (start + speed * time) * time) for start, speed in ((200, 40), (300, 20))]
wave = (0.3 * np.stack(tones) + noise).astype(np.float32)


def encoded(codec, container, **options):
    file = io.BytesIO()
    with av.open(file, "w", format=container) as made:
        stream = made.add_stream(codec, rate=RATE, layout="stereo", options=options)
        stream.codec_context.open()
        frame = av.AudioFrame.from_ndarray(wave, "fltp", "stereo")
        frame.sample_rate, frame.pts = RATE, 0
        fitting = av.AudioResampler(stream.format, "stereo", RATE, frame_size=stream.codec_context.frame_size)
        for part in [*fitting.resample(frame), *fitting.resample(None), None]:
            made.mux(stream.encode(part))
    return file.getvalue()


def seconds(data, seek):
    """Seconds 1 to 18, each after a seek to half a second before it, or all from the start."""
    found = np.zeros((2, 20 * RATE), np.float32)
    with av.open(io.BytesIO(data)) as file:
        stream = file.streams.audio[0]
        first = next(file.decode(stream)).pts
        for begin in range(1, 19 if seek else 2):
            file.seek(first + int((begin - 0.5) / stream.time_base) if seek else first, stream=stream)
            for frame in file.decode(stream):
                at = round(float((frame.pts - first) * stream.time_base) * RATE)
                if seek and at >= (begin + 1) * RATE:
                    break
                low, high = max(at, begin * RATE), min(at + frame.samples, (begin + 1 if seek else 19) * RATE)
                if low < high:
                    found[:, low:high] = frame.to_ndarray()[:, low - at : high - at]
    return found


apart = {}
for name, data in {
    "MP3": encoded("libmp3lame", "mp3"),
    "AAC": encoded("aac", "ipod"),
    "AAC without PNS": encoded("aac", "ipod", aac_pns="0"),
}.items():
    apart[name] = float(np.abs(seconds(data, False) - seconds(data, True)).max())
    print(f"{name}: decoded from the start and after seeks, samples differ by up to {apart[name]:.4f}")
assert apart["MP3"] == apart["AAC without PNS"] == 0 and apart["AAC"] > 0.01, "this has changed"
PYTHON
