#!/bin/sh
# pedalboard: a convolution's level has nothing to do with that of its impulse response: all come out at an eighth.
# Version: pedalboard 0.9.26, numpy 2.4.6, scipy 1.17.1. Input: two seconds of noise at 44.1 kHz, convolved with impulse responses of one
# sample (1, .5 and .1), of two (1 and 1, a tenth of a second apart) and of a decaying room, by Convolution(response, mix=1,
# sample_rate=44100) and by scipy's fftconvolve; and with mix=.5.
# Expected: what scipy gives: a response of one sample of 1 leaves the sound as it is, one of .1 makes it 20 dB softer; the documentation
# names no change of the level. Seen: -18.1 dB for 1, .5 and .1 alike; sound and response are convolved, but a response is first scaled to
# an energy of 1/64, so that direct sound is 3 dB softer where an echo follows; and with mix=.5 the dry half comes eight times as loud.
set -eu
at=$(mktemp -d)
trap 'rm -rf "$at"' EXIT
python3 -m venv "$at/venv"
"$at/venv/bin/pip" install --quiet --disable-pip-version-check pedalboard==0.9.26 numpy==2.4.6 scipy==1.17.1
"$at/venv/bin/python" - <<'PYTHON'
import numpy as np
from pedalboard import Convolution
from scipy.signal import fftconvolve

rate, rng = 44100, np.random.default_rng(0)
sound = (0.05 * rng.standard_normal(2 * rate)).astype(np.float32)
echo = np.zeros(rate // 2)
echo[[0, rate // 10]] = 1
room = rng.standard_normal(rate // 2) * np.exp(-np.arange(rate // 2) / 4000)
room[0] = 4
responses = {str(level): np.array([level] + [0] * 99) for level in (1, 0.5, 0.1)} | {"1 and 1": echo, "room": room}
factors = {}
for name, response in responses.items():
    out = Convolution(response.astype(np.float32)[None], mix=1.0, sample_rate=rate)(sound[None], rate)[0]
    true = fftconvolve(sound, response)[: len(sound)]
    factors[name] = out @ true / (true @ true)
    assert np.corrcoef(out, true)[0, 1] > 0.999, "something else than a convolution is seen"
    said = [20 * np.log10(np.sqrt(np.mean(each**2)) / np.sqrt(np.mean(sound**2))) for each in (out, true)]
    print(f"response {name}: output {said[0]:+.1f} dB by pedalboard, {said[1]:+.1f} dB by scipy; factor {factors[name]:.4f}, by 1/8 over the root of the energy {0.125 / np.linalg.norm(response):.4f}")
half = Convolution(responses["1"].astype(np.float32)[None], mix=0.5, sample_rate=rate)(sound[None], rate)[0]
print(f"response 1 with mix=.5: factor {half @ sound / (sound @ sound):.4f}")
for name, response in responses.items():
    assert abs(factors[name] * np.linalg.norm(response) - 0.125) < 0.002, "this has changed"
assert abs(half @ sound / (sound @ sound) - 0.5625) < 0.01, "the dry half is scaled another way"
PYTHON
