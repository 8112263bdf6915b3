#!/bin/sh
# samplerate: of a sound that is resampled piece by piece the last 9 ms never come.
# Version: samplerate 0.2.4 (libsamplerate), soxr 1.1.0, numpy 2.4.6. Input: 1 s of noise at 44.1 kHz, whose last 5 ms are a loud click, to
# 16 kHz: at once, and by Resampler.process in pieces of 100 ms, the last with end_of_input=True, then four times an empty one.
# Expected: 16,000 samples either way, as soxr gives them. Seen: 16,000 at once, 15,857 in pieces, without the click (the loudest sample is
# .1 of full scale, not .9); they are equal as far as they go, and empty pieces bring no more. A piece gives as many samples as its
# own length makes, so that the filter's delay is never caught up.
set -eu
at=$(mktemp -d)
trap 'rm -rf "$at"' EXIT
python3 -m venv "$at/venv"
"$at/venv/bin/pip" install --quiet --disable-pip-version-check samplerate==0.2.4 soxr==1.1.0 numpy==2.4.6
"$at/venv/bin/python" - <<'PYTHON'
import numpy as np
import samplerate
import soxr

sound = np.random.default_rng(0).uniform(-0.1, 0.1, 44100).astype(np.float32)
sound[-220:] = 0.9 * np.sin(2 * np.pi * 1000 * np.arange(220) / 44100)
ends = [start + 4410 >= len(sound) for start in range(0, len(sound), 4410)]
pieces = [sound[start : start + 4410] for start in range(0, len(sound), 4410)]
one, other = samplerate.Resampler("sinc_best"), soxr.ResampleStream(44100, 16000, 1)
seen = {
    "samplerate, at once": samplerate.resample(sound, 16000 / 44100, "sinc_best"),
    "samplerate, in pieces": np.concatenate(
        [one.process(piece, 16000 / 44100, end_of_input=end) for piece, end in zip(pieces, ends)]
        + [one.process(sound[:0], 16000 / 44100, end_of_input=True) for _ in range(4)]
    ),
    "soxr, at once": soxr.resample(sound, 44100, 16000),
    "soxr, in pieces": np.concatenate([other.resample_chunk(piece, last=end) for piece, end in zip(pieces, ends)]),
}
for name, samples in seen.items():
    print(f"{name}: {len(samples)} samples, the loudest of the last 160 at {abs(samples[-160:]).max():.2f}")
whole, parts = seen["samplerate, at once"], seen["samplerate, in pieces"]
print(f"largest difference of the first {len(parts)}: {abs(whole[: len(parts)] - parts).max()}")
assert [len(samples) for samples in seen.values()] == [16000, 15857, 16000, 16000], "this has changed"
assert np.allclose(whole[: len(parts)], parts, atol=1e-6) and abs(parts).max() < 0.2 < 0.8 < abs(whole).max(), "this has changed"
PYTHON
