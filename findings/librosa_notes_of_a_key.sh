#!/bin/sh
# librosa: spelled in a key of six or seven flats, or of seven sharps, one note of each octave is named an octave too low or too high.
# Version: librosa 0.11.0, numpy 2.4.6, numba 0.66.0. Input: the 88 notes of a piano, spelled by midi_to_note and hz_to_note in each of 30
# major and minor keys (key=…), and what was spelled read again by note_to_midi and note_to_hz.
# Expected: the same notes, since key= only settles which of two names a note of one pitch has. Seen: in 24 keys all; in Gb:maj, Eb:min,
# Cb:maj and Ab:min each B is a C flat an octave below (MIDI 59, which is C♭4, becomes C♭3, read as 47: 123 Hz, not 247); in C#:maj and
# A#:min each C is a B sharp an octave above. The octave's number is that of the pitch, but a C flat counts with the C above it.
set -eu
at=$(mktemp -d)
trap 'rm -rf "$at"' EXIT
python3 -m venv "$at/venv"
"$at/venv/bin/pip" install --quiet --disable-pip-version-check librosa==0.11.0 numpy==2.4.6 numba==0.66.0
"$at/venv/bin/python" - <<'PYTHON'
import librosa
import numpy as np

major = ("C", "G", "D", "A", "E", "B", "F#", "C#", "F", "Bb", "Eb", "Ab", "Db", "Gb", "Cb")
minor = ("A", "E", "B", "F#", "C#", "G#", "D#", "A#", "D", "G", "C", "F", "Bb", "Eb", "Ab")
piano, seen = np.arange(21, 109), {}
for key in [f"{tonic}:maj" for tonic in major] + [f"{tonic}:min" for tonic in minor]:
    spelled = librosa.midi_to_note(piano, key=key)
    again = librosa.note_to_midi(spelled)
    assert (again % 12 == piano % 12).all(), "a note has another pitch class"
    octaves = librosa.note_to_hz(librosa.hz_to_note(librosa.midi_to_hz(piano), key=key)) / librosa.midi_to_hz(piano)
    assert np.allclose(octaves, 2.0 ** ((again - piano) // 12)), "frequencies are spelled another way"
    seen[key] = {int(octave) // 12: set((piano[again - piano == octave] % 12).tolist()) for octave in np.unique(again - piano) if octave}
    if seen[key]:
        wrong = np.flatnonzero(again != piano)[3]
        print(f"{key}: {(again != piano).sum()} of 88 notes are an octave off, as {piano[wrong]} ({librosa.midi_to_hz(piano[wrong]):.0f} Hz): {spelled[wrong]}, read as {again[wrong]} ({librosa.note_to_hz(spelled[wrong]):.0f} Hz)")
off = {key: kinds for key, kinds in seen.items() if kinds}
print(f"{len(seen) - len(off)} of {len(seen)} keys: all 88 notes are read as they were")
flat, sharp = dict.fromkeys(("Gb:maj", "Cb:maj", "Eb:min", "Ab:min"), {-1: {11}}), dict.fromkeys(("C#:maj", "A#:min"), {1: {0}})
assert off == flat | sharp, "this has changed"
PYTHON
