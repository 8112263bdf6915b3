#!/bin/sh
# pedalboard: a reverb that adds nothing and keeps all of the dry sound doubles it.
# Version: pedalboard 0.9.26, numpy 2.4.6. Input: a second of noise, mono and stereo, through Reverb(wet_level=0, dry_level=…) with 0, .1,
# .4 (which it has unless told), .5 and 1; the same by Chorus, Phaser, Delay and Convolution with mix=0.
# Expected: with wet_level=0 the sound times dry_level, so that 1 leaves it as it is, as mix=0 does elsewhere; the documentation names no
# other scale. Seen: exactly twice that: 1 makes all 6 dB louder, so that a sound that reaches .6 is beyond full scale, .5 leaves it as it
# is, and the dry part of a reverb with its own settings is .8, not .4.
set -eu
at=$(mktemp -d)
trap 'rm -rf "$at"' EXIT
python3 -m venv "$at/venv"
"$at/venv/bin/pip" install --quiet --disable-pip-version-check pedalboard==0.9.26 numpy==2.4.6
"$at/venv/bin/python" - <<'PYTHON'
import inspect

import numpy as np
from pedalboard import Chorus, Convolution, Delay, Phaser, Reverb

rate, rng = 44100, np.random.default_rng(0)
stereo = rng.uniform(-0.6, 0.6, (2, rate)).astype(np.float32)
seen = {}
for channels, sound in ((1, stereo[:1]), (2, stereo)):
    for level in (0, 0.1, 0.4, 0.5, 1):
        out = Reverb(wet_level=0, dry_level=level)(sound, rate)
        seen[channels, level] = float(np.vdot(out, sound) / np.vdot(sound, sound))
        assert np.abs(out - seen[channels, level] * sound).max() < 1e-5, "more is changed than the level"
        print(f"{channels} channels, Reverb(wet_level=0, dry_level={level}): sound times {seen[channels, level]:.4f}, peak {np.abs(sound).max():.3f} -> {np.abs(out).max():.3f}")
others = (Chorus(mix=0), Phaser(mix=0), Delay(mix=0), Convolution(np.ones((1, 10), np.float32), 0, rate))
for effect in others:
    kept = np.abs(effect(stereo, rate) - stereo).max()
    print(f"{type(effect).__name__}(mix=0): largest difference {kept:.1e}")
    assert kept < 1e-6, "other effects change the dry sound too"
usual = Reverb()
print(f"Reverb(): wet_level {usual.wet_level:.2f}, dry_level {usual.dry_level:.2f}; documentation: {inspect.getdoc(Reverb)}")
assert all(abs(factor - 2 * level) < 1e-4 for (_, level), factor in seen.items()), "this has changed"
PYTHON
