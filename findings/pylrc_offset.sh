#!/bin/sh
# pylrc: a positive [offset:] moves lyrics to later; the LRC format says that it brings them forward.
# Version: pylrc 0.1.2, lrcparser 0.2.0. Input: an LRC text of one line at 10 s, with [offset:+500] and with [offset:-500] (milliseconds;
# a positive value means that lyrics appear sooner).
# Expected: 9.5 s and 10.5 s. Seen: pylrc gives 10.5 s and 9.5 s, and then says that the offset is 0; lrcparser leaves 10 s and tells the offset.
set -eu
at=$(mktemp -d)
trap 'rm -rf "$at"' EXIT
python3 -m venv "$at/venv"
"$at/venv/bin/pip" install --quiet --disable-pip-version-check pylrc==0.1.2 lrcparser==0.2.0
"$at/venv/bin/python" - <<'PYTHON'
import pylrc
from lrcparser import LrcParser

seen = {}
for offset in ("+500", "-500"):
    text = f"[ti:A song]\n[offset:{offset}]\n[00:10.00]The first line\n"
    one = pylrc.parse(text)
    other = LrcParser.parse(text)
    start = other["lrc_lines"][0].start_time
    seen[offset] = one[0].time
    print(f"[offset:{offset}] pylrc: {one[0].time} s, offset {one.offset}; lrcparser: {start}, offset {other['offset']}")
assert seen == {"+500": 10.5, "-500": 9.5}, "this has changed"
PYTHON
