#!/bin/sh
# webvtt-py: the text of WebVTT lyrics keeps &amp; and &lt;, also where it is saved as SRT.
# Version: webvtt-py 0.6.0, pycaption 2.3.14. Input: WebVTT lyrics of two lines with &amp; and &lt;, which the format demands for & and <
# within words.
# Expected: "Rock & roll, I <3 you", as pycaption reads and writes to SRT (which has no such escapes). Seen: "Rock &amp; roll, I &lt;3 you" as
# the text, from which tags such as <i> are taken, and in the SRT file.
set -eu
at=$(mktemp -d)
trap 'rm -rf "$at"' EXIT
python3 -m venv "$at/venv"
"$at/venv/bin/pip" install --quiet --disable-pip-version-check webvtt-py==0.6.0 pycaption==2.3.14
"$at/venv/bin/python" - <<'PYTHON'
import io

import pycaption
import webvtt

lyrics = (
    "WEBVTT\n\n00:01.000 --> 00:03.000\nRock &amp; roll, I &lt;3 you\n\n00:04.000 --> 00:05.000\n<i>Rock &amp; roll</i>\n"
)
one, other = webvtt.from_string(lyrics), pycaption.WebVTTReader().read(lyrics)
saved = io.StringIO()
one.write(saved, format="srt")
seen = {
    "webvtt-py": [each.text for each in one],
    "webvtt-py, SRT": saved.getvalue().splitlines()[2::4],
    "pycaption": [each.get_text() for each in other.get_captions("en-US")],
    "pycaption, SRT": pycaption.SRTWriter().write(other).splitlines()[2::4],
}
for name, lines in seen.items():
    print(f"{name}: {lines}")
kept, words = ["Rock &amp; roll, I &lt;3 you", "Rock &amp; roll"], ["Rock & roll, I <3 you", "Rock & roll"]
assert seen["webvtt-py"] == seen["webvtt-py, SRT"] == kept, "this has changed"
assert seen["pycaption"] == seen["pycaption, SRT"] == words, "this has changed"
PYTHON
