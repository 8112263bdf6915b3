#!/bin/sh
# mutagen: a recording in a fragmented MP4 file has the length 0.
# Version: mutagen 1.48.1, tinytag 2.3.2, av 18.1.0 (FFmpeg 8), numpy 2.3.5. Input: ten seconds of AAC in MP4, whole and in fragments, as
# streams are saved (FFmpeg's movflags frag_keyframe+empty_moov: each fragment tells its own samples).
# Expected: 10 s for both, as FFmpeg decodes them; or no length. Seen: 0 for the fragmented file, from tinytag too, without an error: the
# header is believed, which leaves the length to the fragments. Where short recordings are left out, such a file is.
set -eu
at=$(mktemp -d)
trap 'rm -rf "$at"' EXIT
python3 -m venv "$at/venv"
"$at/venv/bin/pip" install --quiet --disable-pip-version-check mutagen==1.48.1 tinytag==2.3.2 av==18.1.0 numpy==2.3.5
cd "$at"
"$at/venv/bin/python" - <<'PYTHON'
import av
import mutagen
import numpy as np
import tinytag

wave = 0.1 * np.random.default_rng(0).normal(size=(1, 441000)).astype(np.float32)
seen = {}
for name, flags in (("whole", "faststart"), ("fragmented", "frag_keyframe+empty_moov")):
    with av.open(f"{name}.m4a", "w", format="mp4", options={"movflags": flags}) as file:
        stream = file.add_stream("aac", rate=44100, layout="mono")
        frame = av.AudioFrame.from_ndarray(wave, format="fltp", layout="mono")
        frame.sample_rate = 44100
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            file.mux(packet)
    with av.open(f"{name}.m4a") as file:
        decoded = sum(frame.samples for frame in file.decode(audio=0)) / 44100
    seen[name] = mutagen.File(f"{name}.m4a").info.length, tinytag.TinyTag.get(f"{name}.m4a").duration
    print(f"{name}: mutagen {seen[name][0]:.2f} s, tinytag {seen[name][1]:.2f} s; {decoded:.2f} s decode")
    assert abs(decoded - 10) < 0.1
assert all(abs(length - 10) < 0.1 for length in seen["whole"]) and seen["fragmented"] == (0, 0), "this has changed"
PYTHON
