#!/bin/sh
# pycld2: of lyrics nothing is read behind "<3", so that the language is that of what stands before it.
# Version: pycld2 0.42. Input: four lines of German lyrics under an English first line, which ends with "<3", with a heart, or without.
# Expected: German for all, as told of the last two. Seen: English with "<3", from 35 bytes of 231, and said to be reliable; text is taken
# for HTML unless isPlainText=True is given, and "<3" for the beginning of a tag. With a shorter first line no language is found.
set -eu
at=$(mktemp -d)
trap 'rm -rf "$at"' EXIT
python3 -m venv "$at/venv"
"$at/venv/bin/pip" install --quiet --disable-pip-version-check pycld2==0.42
"$at/venv/bin/python" - <<'PYTHON'
import pycld2

verse = "Ich gehe durch die Straßen und der Regen macht mich nicht nass\nweil ich dein Lächeln in der Tasche trage\n"
verse += "und wenn die Nacht kommt singe ich nur für dich\nein Lied das noch niemand gehört hat\n"
seen = {}
for name, end in (("<3", " <3"), ("a heart", " ♥"), ("nothing", "")):
    text = f"I will love you until the morning{end}\n{verse}"
    for plain in (False, True):
        reliable, read, languages = pycld2.detect(text, isPlainText=plain)
        seen[name, plain] = languages[0][0]
        print(f"{name}, isPlainText={plain}: {languages[0][0]}, reliable: {reliable}; {read} of {len(text.encode())} bytes")
assert seen.pop(("<3", False)) == "ENGLISH" and {*seen.values()} == {"GERMAN"}, "this has changed"
PYTHON
