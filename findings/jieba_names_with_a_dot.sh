#!/bin/sh
# jieba: a name with a middle dot or a space, added to its dictionary, is never found.
# Version: jieba 0.42.1. Input: a sentence with the names of singers, which add_word was told before: with a middle dot, as Chinese
# writes foreign names; with a space; with a letter that has an accent; of Chinese characters alone.
# Expected: each name is one word, as for the last. Seen: the others come in parts: text is cut at all that is not a Chinese character, a
# plain letter or one of a few signs before the dictionary is asked. add_word accepts them; get_FREQ then knows them.
set -eu
at=$(mktemp -d)
trap 'rm -rf "$at"' EXIT
python3 -m venv "$at/venv"
"$at/venv/bin/pip" install --quiet --disable-pip-version-check jieba==0.42.1
"$at/venv/bin/python" -W ignore - <<'PYTHON'
import jieba

jieba.setLogLevel(60)
found = {}
for name in ("泰勒·斯威夫特", "China Blue", "Beyoncé", "老狼与海", "A-Lin"):
    jieba.add_word(name, freq=1_000_000)
    assert jieba.get_FREQ(name) == 1_000_000
    parts = jieba.lcut(f"我爱听{name}的歌")
    found[name] = name in parts
    print(f"{name}: {parts}")
assert [name for name in found if found[name]] == ["老狼与海", "A-Lin"], "this has changed"
PYTHON
