#!/bin/sh
# soundfile: the six channels of a recording in Ogg come in another order than those of the same one in FLAC.
# Version: soundfile 0.13.1, av 18.1.0 (FFmpeg 8), numpy 2.3.5. Input: two seconds of 5.1 sound by FFmpeg, a tone of its own in each
# channel, as FLAC and as Opus in Ogg.
# Expected: one order, left, right, centre, bass and the two behind, as FFmpeg decodes both. Seen: Ogg's own order: left, centre, right,
# the two behind, bass. The first two channels, taken for stereo, are left and centre; nothing that is read tells the order.
set -eu
at=$(mktemp -d)
trap 'rm -rf "$at"' EXIT
python3 -m venv "$at/venv"
"$at/venv/bin/pip" install --quiet --disable-pip-version-check soundfile==0.13.1 av==18.1.0 numpy==2.3.5
cd "$at"
"$at/venv/bin/python" - <<'PYTHON'
import av
import numpy as np
import soundfile

tones = {200: "left", 400: "right", 600: "centre", 80: "bass", 1000: "behind left", 1200: "behind right"}
time = np.arange(2 * 48000) / 48000
wave = np.stack([0.3 * np.sin(2 * np.pi * hertz * time) for hertz in tones]).astype(np.float32)


def order(channels):
    """The channels' names, by the strongest frequency of each, in Hz."""
    middle = np.asarray(channels, float)[:, 24000:72000]
    return [tones[int(np.abs(np.fft.rfft(channel)).argmax())] for channel in middle]


seen = {}
for name, codec in (("song.flac", "flac"), ("song.ogg", "libopus")):
    with av.open(name, "w") as file:
        stream = file.add_stream(codec, rate=48000, layout="5.1")
        resampler = av.AudioResampler(stream.format, "5.1", 48000, stream.frame_size)
        frame = av.AudioFrame.from_ndarray(wave, format="fltp", layout="5.1")
        frame.sample_rate = 48000
        for part in [*resampler.resample(frame), *resampler.resample(None), None]:
            for packet in stream.encode(part):
                file.mux(packet)
    with av.open(name) as file:
        planar = av.AudioResampler("fltp", "5.1", 48000)
        other = order(np.concatenate([one.to_ndarray() for frame in file.decode(audio=0) for one in planar.resample(frame)], 1))
    seen[name] = order(soundfile.read(name)[0].T)
    print(f"{name}: soundfile {', '.join(seen[name])}; FFmpeg {', '.join(other)}")
    assert other == [*tones.values()]
assert seen["song.flac"] == [*tones.values()], "this has changed"
assert seen["song.ogg"] == ["left", "centre", "right", "behind left", "behind right", "bass"], "this has changed"
PYTHON
