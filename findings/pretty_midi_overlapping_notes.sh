#!/bin/sh
# pretty_midi: where a note starts before the last one of its pitch has ended, it is cut to end with that one.
# Version: pretty_midi 0.2.11.post0, miditoolkit 1.0.1, symusic 0.6.0, numpy 2.3.5. Input: a MIDI file with eight notes of one pitch,
# 1 s each, one every .75 s (a note-on before the last note-off, as legato is played), and one every 1.25 s.
# Expected: eight notes of 1 s, as miditoolkit and symusic read. Seen: the first lasts 1 s, all others .25 s: a note-off ends all notes
# of its pitch, and their own note-off finds none. What pretty_midi itself writes comes back shorter.
set -eu
at=$(mktemp -d)
trap 'rm -rf "$at"' EXIT
python3 -m venv "$at/venv"
"$at/venv/bin/pip" install --quiet --disable-pip-version-check pretty_midi==0.2.11.post0 miditoolkit==1.0.1 symusic==0.6.0 numpy==2.3.5
cd "$at"
"$at/venv/bin/python" -W ignore - <<'PYTHON'
import miditoolkit
import pretty_midi
import symusic

seen = {}
for every in (0.75, 1.25):
    song = pretty_midi.PrettyMIDI(resolution=480)
    song.instruments.append(pretty_midi.Instrument(0))
    song.instruments[0].notes = [pretty_midi.Note(100, 60, every * note, every * note + 1) for note in range(8)]
    song.write("song.mid")
    seen[every] = [round(float(note.end - note.start), 2) for note in pretty_midi.PrettyMIDI("song.mid").instruments[0].notes]
    others = [
        [(note.end - note.start) / 960 for note in miditoolkit.MidiFile("song.mid").instruments[0].notes],
        [note.duration / 960 for note in symusic.Score("song.mid").tracks[0].notes],
    ]
    print(f"one every {every} s: pretty_midi {seen[every]}; miditoolkit {others[0]}; symusic {others[1]}")
    assert others == [[1] * 8] * 2
assert seen[1.25] == [1] * 8 and seen[0.75][:2] == [1, 0.25] and sum(seen[0.75]) < 6, "this has changed"
PYTHON
