#!/bin/sh
# pysubs2: lyrics lose what stands in braces when they go from SRT to SRT or to WebVTT.
# Version: pysubs2 1.8.1, srt 3.5.3, pycaption 2.3.14. Input: lyrics of four lines as SRT subtitles, with "{x2}", "{All}" and
# "{Chorus}", and one with the tag "{\an8}" (place at the top), which players of SRT know.
# Expected: the words as they were, as srt and pycaption read them; tags begin with a backslash. Seen: "Sing it loud {x2}" becomes "Sing it
# loud", the line "{All}" is empty and "{Chorus} La la la" loses its head, in SRT, in WebVTT and as plaintext.
set -eu
at=$(mktemp -d)
trap 'rm -rf "$at"' EXIT
python3 -m venv "$at/venv"
"$at/venv/bin/pip" install --quiet --disable-pip-version-check pysubs2==1.8.1 srt==3.5.3 pycaption==2.3.14
"$at/venv/bin/python" - <<'PYTHON'
import pycaption
import pysubs2
import srt

lines = ["Sing it loud {x2}", "{All}", "{Chorus} La la la", "{\\an8}Good night"]
text = "".join(f"{at}\n00:00:0{at},000 --> 00:00:0{at},900\n{line}\n\n" for at, line in enumerate(lines, 1))
subtitles = pysubs2.SSAFile.from_string(text)
seen = {
    "pysubs2, SRT": [each.content for each in srt.parse(subtitles.to_string("srt"))],
    "pysubs2, WebVTT": [each.get_text() for each in pycaption.WebVTTReader().read(subtitles.to_string("vtt")).get_captions("en-US")],
    "pysubs2, plaintext": [each.plaintext for each in subtitles],
    "srt": [each.content for each in srt.parse(srt.compose(srt.parse(text)))],
    "pycaption": [each.get_text() for each in pycaption.SRTReader().read(text).get_captions("en-US")],
}
for name, each in seen.items():
    print(f"{name}: {each}")
short = ["Sing it loud", "", "La la la", "Good night"]
assert seen["pysubs2, SRT"] == [each.strip() for each in seen["pysubs2, plaintext"]] == short, "this has changed"
assert seen["pysubs2, WebVTT"] == [each for each in short if each], "this has changed"
assert seen["srt"] == seen["pycaption"] == lines, "this has changed"
PYTHON
