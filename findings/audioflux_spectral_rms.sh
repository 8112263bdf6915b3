#!/bin/sh
# audioflux: the root mean square that Spectral.rms gives of a spectrum is twice that of the sound, 6 dB too much.
# Version: audioflux 0.1.9, numpy 2.4.6. Input: a sine of amplitude .5 and noise of .1, two seconds at 32 kHz; their linear magnitude
# spectra by BFT, with frames of 512, 2,048 and 8,192 samples that do not overlap and no taper (a rectangular window).
# Expected: that of the samples of each frame, .354 and .1: the documentation gives a formula of the samples and, as equal to it, one of the
# spectrum, which does give that here. Seen: .706 and .2, twice as much with all lengths; Spectral.energy, whose formulas are the same but
# for the mean and the root, gives the sound's energy, so that its root per sample is half of rms. The bins are counted with their mirrored
# half, but their sum is divided by the number of bins of one half.
set -eu
at=$(mktemp -d)
trap 'rm -rf "$at"' EXIT
python3 -m venv "$at/venv"
"$at/venv/bin/pip" install --quiet --disable-pip-version-check audioflux==0.1.9 numpy==2.4.6
"$at/venv/bin/python" - <<'PYTHON'
import audioflux
import numpy as np
from audioflux.type import SpectralDataType, SpectralFilterBankScaleType, WindowType

rate = 32000
sounds = {"sine": 0.5 * np.sin(2 * np.pi * 1000 * np.arange(2 * rate) / rate), "noise": 0.1 * np.random.default_rng(0).standard_normal(2 * rate)}
linear, magnitude = SpectralFilterBankScaleType.LINEAR, SpectralDataType.MAG
seen = {}
for (name, sound), exponent in ((item, exponent) for item in sounds.items() for exponent in (9, 11, 13)):
    length, bins = 2**exponent, 2 ** (exponent - 1) + 1
    spectra = audioflux.BFT(
        num=bins, radix2_exp=exponent, samplate=rate, slide_length=length, window_type=WindowType.RECT, scale_type=linear, data_type=magnitude
    )
    values = spectra.bft(sound.astype(np.float32), result_type=1)
    spectral = audioflux.Spectral(num=bins, fre_band_arr=spectra.get_fre_band_arr())
    spectral.set_time_length(values.shape[-1])
    rms, energy = spectral.rms(values)[1:-1].mean(), spectral.energy(values)[1:-1].mean()
    mirrored = np.concatenate([values, values[-2:0:-1]])[:, 1:-1]
    parseval = np.sqrt((mirrored.astype(float) ** 2).sum(axis=0)).mean() / length
    seen[name, length] = rms / sound.std(), rms / np.sqrt(energy / length), parseval / sound.std()
    print(f"{name}, frames of {length}: rms of samples {sound.std():.4f}, of the spectrum by its formula {parseval:.4f}, by Spectral.rms {rms:.4f}, by Spectral.energy {np.sqrt(energy / length):.4f}")
for of_samples, of_energy, by_formula in seen.values():
    assert 0.95 < by_formula < 1.05, "the spectrum has another scale"
    assert 1.9 < of_samples < 2.1 and 1.95 < of_energy < 2.05, "this has changed"
PYTHON
