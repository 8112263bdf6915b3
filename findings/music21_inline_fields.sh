#!/bin/sh
# music21: a key or a note length that changes within a line of an ABC tune is overlooked; on a line of its own it counts.
# Version: music21 10.5.1. Input: a tune of two bars in C, M:4/4, L:1/4, whose second bar is in G, D mixolydian or E flat ([K:G], …) or
# has notes of an eighth ([L:1/8]), once as an inline field in brackets, once as a line K: or L: of its own; with and without the version of
# the standard (%abc-2.1) in the first line.
# Expected: the same notes both ways, as the ABC standard has it; music21's documentation says that it reads all of version 1.6 and aims
# at 2.1, and names variant endings as what it leaves out. Seen: in brackets neither has an effect, without an error: the F of G major stays
# F natural, and eighths last a quarter each.
set -eu
at=$(mktemp -d)
trap 'rm -rf "$at"' EXIT
python3 -m venv "$at/venv"
"$at/venv/bin/pip" install --quiet --disable-pip-version-check music21==10.5.1
"$at/venv/bin/python" -W ignore - <<'PYTHON'
from music21 import converter


def read(tune):
    score = converter.parse(tune, format="abc")
    return [(note.nameWithOctave, float(note.quarterLength)) for note in score.recurse().notes]


bars, seen = {"K:G": "F G A B|", "K:Dmix": "F c F D|", "K:Eb": "E A B e|", "L:1/8": "A B c d e d c B|"}, {}
for version in ("", "%abc-2.1\n"):
    head = version + "X:1\nT:Tune\nM:4/4\nL:1/4\nK:C\nA B c d|"
    for field, bar in bars.items():
        inline, line = read(f"{head}[{field}]{bar}\n"), read(f"{head}\n{field}\n{bar}\n")
        seen[version, field] = inline, line
        print(f"{version.strip() or 'no version'}, [{field}] {bar} in brackets {inline[4:]}, on a line {line[4:]}")
plain = {field: read(f"X:1\nM:4/4\nL:1/4\nK:C\nA B c d|{bar}\n") for field, bar in bars.items()}
for (version, field), (inline, line) in seen.items():
    assert line != plain[field], "a line of its own has no effect either"
    assert inline == plain[field], "this has changed"
PYTHON
