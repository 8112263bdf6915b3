#!/bin/sh
# mutagen: a MIDI file with lyrics, as for karaoke, has half its length: time that passes before a syllable is not counted.
# Version: mutagen 1.48.1, mido 1.3.3, symusic 0.6.0. Input: 60 notes at 120 beats a minute, one on each beat, each half a beat long; the
# same with a syllable (a lyrics event) on each beat, with a marker in the middle of each note, and with 60 beats a minute from the
# thirtieth on; in one track (format 0), and with the tempo in a track of its own (format 1).
# Expected: 29.75 s, with the other tempo 44.5 s, what the times of the events add up to and mido and symusic read; the documentation calls
# it the length in seconds. Seen: 15 s with lyrics, 22.25 s with markers, in both formats, without an error; with the other tempo 44.25 and
# 44.75 s. Only the steps in time before notes are added up, not those before what else stands in a track.
set -eu
at=$(mktemp -d)
trap 'rm -rf "$at"' EXIT
python3 -m venv "$at/venv"
"$at/venv/bin/pip" install --quiet --disable-pip-version-check mutagen==1.48.1 mido==1.3.3 symusic==0.6.0
"$at/venv/bin/python" - "$at/song.mid" <<'PYTHON'
import sys

import mido
import mutagen
import symusic

path, seen = sys.argv[1], {}


def song(kind):
    """Events as (time in ticks, event), 480 to a beat."""
    events = [(0, mido.MetaMessage("set_tempo", tempo=500_000))]
    for number in range(60):
        begin = 480 * number
        events.append((begin, mido.Message("note_on", note=60, velocity=64)))
        events.append((begin + 240, mido.Message("note_off", note=60, velocity=0)))
        if kind == "lyrics":
            events.append((begin, mido.MetaMessage("lyrics", text="la")))
        elif kind == "markers":
            events.append((begin + 120, mido.MetaMessage("marker", text="here")))
    if kind == "tempo":
        events.append((30 * 480, mido.MetaMessage("set_tempo", tempo=1_000_000)))
    return events


def lengths(tracks):
    file = mido.MidiFile(type=len(tracks) - 1, ticks_per_beat=480)
    for events in tracks:
        track, now = mido.MidiTrack(), 0
        for time, event in sorted(events, key=lambda each: (each[0], not each[1].is_meta)):
            track.append(event.copy(time=time - now))
            now = time
        file.tracks.append(track)
    file.save(path)
    return mutagen.File(path).info.length, mido.MidiFile(path).length, symusic.Score(path).to("second").end()


for kind in ("plain", "lyrics", "markers", "tempo"):
    events = song(kind)
    tempos = [each for each in events if each[1].type == "set_tempo"]
    for tracks in ([events], [tempos, [each for each in events if each[1].type != "set_tempo"]]):
        seen[kind, len(tracks) - 1] = lengths(tracks)
        print(f"{kind}, format {len(tracks) - 1}: mutagen {seen[kind, len(tracks) - 1][0]:.2f} s, mido {seen[kind, len(tracks) - 1][1]:.2f} s, symusic {seen[kind, len(tracks) - 1][2]:.2f} s")
for (kind, form), (read, by_mido, by_symusic) in seen.items():
    assert abs(by_mido - by_symusic) < 0.01, "the others differ"
    assert abs(by_mido - (44.5 if kind == "tempo" else 29.75)) < 0.01, "the file has another length"
    assert abs(read - {"plain": 29.75, "lyrics": 15, "markers": 22.25, "tempo": 44.75 if form else 44.25}[kind]) < 0.01, "this has changed"
PYTHON
