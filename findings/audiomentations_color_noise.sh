#!/bin/sh
# audiomentations: noise that is to fall by 12 dB an octave falls by 6, and brown noise has gaps at every 345 Hz.
# Version: audiomentations 0.43.1, numpy 2.4.6. Input: 20 s at 44.1 kHz through AddColorNoise(min_f_decay=d, max_f_decay=d) with 0 (white),
# -3.01 (pink), -6.02 (brown) and -12, three draws each, with n_fft=128, which it has unless told, and 4,096; the noise is what was added.
# Expected: f_decay is documented as the decay of the spectral density in dB an octave, so that it falls by 0, 18, 36 and 72 dB over the
# six octaves between the bands of 62.5 to 125 and of 4,000 to 8,000 Hz. Seen: by 0, 36 and, to be 72, 36 dB again, with 4,096 too; pink
# noise with 128 by 12 to 33 dB, another in each draw; brown noise is 20 dB below its neighbours at 344.5 Hz, a 128th of the rate. White
# noise is filtered, the filter's gain at 0 Hz is that of 1 Hz, far above all others, and makes of it a mean over n_fft samples.
set -eu
at=$(mktemp -d)
trap 'rm -rf "$at"' EXIT
python3 -m venv "$at/venv"
"$at/venv/bin/pip" install --quiet --disable-pip-version-check audiomentations==0.43.1 numpy==2.4.6
"$at/venv/bin/python" -W ignore - <<'PYTHON'
import random

import numpy as np
from audiomentations import AddColorNoise

rate = 44100
sound = (0.1 * np.random.default_rng(0).standard_normal(20 * rate)).astype(np.float32)
frequencies, seen = np.fft.rfftfreq(len(sound), 1 / rate), {}


def level(power, low, high):
    """Mean spectral density between two frequencies, in dB."""
    return 10 * np.log10(power[(frequencies >= low) & (frequencies < high)].mean())


for decay in (0, -3.01, -6.02, -12):
    for size in (128, 4096):
        falls, gaps = [], []
        for seed in range(3):
            np.random.seed(seed)
            random.seed(seed)
            add = AddColorNoise(min_snr_db=5, max_snr_db=5, min_f_decay=decay, max_f_decay=decay, n_fft=size, p=1)
            power = np.abs(np.fft.rfft(add(sound, rate).astype(float) - sound)) ** 2
            falls.append(level(power, 62.5, 125) - level(power, 4000, 8000))
            gaps.append((level(power, 295, 305) + level(power, 385, 395)) / 2 - level(power, 343.5, 345.5))
        seen[decay, size] = np.mean(falls), np.mean(gaps)
        print(f"f_decay={decay}, n_fft={size}: falls by {np.mean(falls):.1f} dB over six octaves (each draw {np.round(falls, 1)}), to fall by {-6 * decay:.1f}; at 344.5 Hz {np.mean(gaps):.1f} dB below 300 and 390 Hz")
assert abs(seen[0, 128][0]) < 1 and abs(seen[-6.02, 128][0] - 36) < 2, "white or brown noise falls by another amount"
assert all(34 < seen[-12, size][0] < 38 for size in (128, 4096)), "this has changed"
assert seen[0, 128][1] < 2 and seen[-6.02, 128][1] > 15 and seen[-12, 128][1] > 25, "this has changed"
PYTHON
