#!/bin/sh
# mido: a MIDI file that counts time in frames per second has a negative length.
# Version: mido 1.3.3, miditoolkit 1.0.1, symusic 0.6.0, numpy 2.3.5. Input: a MIDI file of one note of 2 s, whose header says 25 frames per
# second of 40 ticks (SMPTE, the other of the two ways that the format has), and the same in ticks of a quarter note.
# Expected: 2 s, or an error, as symusic gives. Seen: -0.157 s, without one: the header's division is taken for -6,360 ticks per quarter
# note. miditoolkit, which reads with mido, has the -6,360 too.
set -eu
at=$(mktemp -d)
trap 'rm -rf "$at"' EXIT
python3 -m venv "$at/venv"
"$at/venv/bin/pip" install --quiet --disable-pip-version-check mido==1.3.3 miditoolkit==1.0.1 symusic==0.6.0 numpy==2.3.5
cd "$at"
"$at/venv/bin/python" - <<'PYTHON'
import struct

import miditoolkit
import mido
import symusic

seen = {}
ways = {"ticks of a quarter note": (struct.pack(">H", 480), 1920), "frames per second": (bytes([256 - 25, 40]), 2000)}
for name, (division, ticks) in ways.items():
    on, wait, off = b"\x00\x90\x3c\x64", bytes([0x80 | ticks >> 7, ticks & 0x7F]), b"\x80\x3c\x40"
    track = on + wait + off + b"\x00\xff\x2f\x00"
    with open("song.mid", "wb") as file:
        file.write(b"MThd" + struct.pack(">IHH", 6, 0, 1) + division + b"MTrk" + struct.pack(">I", len(track)) + track)
    try:
        other = f"ends at {symusic.Score('song.mid', ttype='second').end()} s"
    except RuntimeError as error:
        other = f"{error}"
    length = mido.MidiFile("song.mid").length
    seen[name] = round(length, 3), miditoolkit.MidiFile("song.mid").ticks_per_beat
    print(f"{name}: mido {length:.3f} s; miditoolkit {seen[name][1]} ticks per quarter note; symusic: {other}")
assert seen == {"ticks of a quarter note": (2, 480), "frames per second": (-0.157, -6360)}, "this has changed"
PYTHON
