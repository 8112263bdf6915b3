#!/bin/sh
# syncedlyrics: lyrics made plain keep their times, unless a space follows each; short plain lyrics count as synchronised.
# Version: syncedlyrics 1.0.1. Input: a line of LRC as `[00:12.00]Line` and as `[00:12.00] Line`, and four lines of plain lyrics.
# Expected: `Line` for both (LRC has the words right behind the time), and plain lyrics of any length are "plaintext". Seen: only a time with a
# space behind it is removed, the other stays among the words, where an encoder reads it. What has no sixth line is "synced" for
# `identify_lyrics_type`, which looks at lines 6 to 10.
set -eu
at=$(mktemp -d)
trap 'rm -rf "$at"' EXIT
python3 -m venv "$at/venv"
"$at/venv/bin/pip" install --quiet --disable-pip-version-check syncedlyrics==1.0.1
"$at/venv/bin/python" - <<'PYTHON'
from syncedlyrics.utils import Lyrics, TargetType, identify_lyrics_type

seen = {}
for line in ("[00:12.00] Line", "[00:12.00]Line"):
    seen[line] = Lyrics(synced=line).to_str(TargetType.PLAINTEXT)
    print(f"{line!r} as plain text: {seen[line]!r}")
for name, lines in (("four lines", 4), ("ten lines", 10)):
    seen[name] = identify_lyrics_type("\n".join(["all you need"] * lines))
    print(f"{name} of plain lyrics: {seen[name]}")
assert list(seen.values()) == ["Line", "[00:12.00]Line", "synced", "plaintext"], "this has changed"
PYTHON
