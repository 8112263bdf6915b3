#!/bin/sh
# hanziconv: common characters that simplified and traditional Chinese share, such as those of home, out and surface, become rare others.
# Version: hanziconv 0.3.2, OpenCC 1.4.2. Input: the 3,755 characters of the first level of GB 2312, simplified ones, through toTraditional
# and, one by one, through OpenCC; six titles of words of songs, and their traditional forms.
# Expected: a simplified character that stands for several traditional ones becomes the usual one, which may be itself: 家, 才, 出, 表, 面
# and 只 are so written in both scripts; the documentation names no exceptions. Seen: 传 becomes 傳, 爱 愛, but 家 傢, 才 纔, 出 齣, 表 錶,
# 面 麵 and 只 隻: 月亮代表我的心 is 月亮代錶我的心, 皇后 (queen) 皇後, 台湾 颱灣. 51 of the characters that OpenCC leaves as they are change,
# and with them titles that are traditional already.
set -eu
at=$(mktemp -d)
trap 'rm -rf "$at"' EXIT
python3 -m venv "$at/venv"
"$at/venv/bin/pip" install --quiet --disable-pip-version-check hanziconv==0.3.2 OpenCC==1.4.2
"$at/venv/bin/python" - <<'PYTHON'
from hanziconv import HanziConv
from opencc import OpenCC

convert = OpenCC("s2t").convert
level = [bytes((row, cell)).decode("gb2312", "ignore") for row in range(0xB0, 0xD8) for cell in range(0xA1, 0xFF)]
level = [character for character in level if character]
made = {character: (HanziConv.toTraditional(character), convert(character)) for character in level}
both = [character for character, (by_hanziconv, by_opencc) in made.items() if by_opencc == character != by_hanziconv]
same = sum(by_hanziconv == by_opencc for by_hanziconv, by_opencc in made.values())
print(f"{len(level)} characters: {same} as by OpenCC; {len(both)} that OpenCC leaves as they are become others: {' '.join(each + made[each][0] for each in both)}")
titles = ("月亮代表我的心", "皇后", "台湾", "出发", "我的家", "只有你")
seen = {title: (HanziConv.toTraditional(title), convert(title)) for title in titles}
for title, (by_hanziconv, by_opencc) in seen.items():
    again = HanziConv.toTraditional(by_opencc)
    print(f"{title}: hanziconv {by_hanziconv}, OpenCC {by_opencc}, which hanziconv takes for simplified and makes {again}")
assert len(level) == 3755 and same > 3500, "other characters differ too"
assert all(HanziConv.toTraditional(simple) == full for simple, full in zip("传爱梦", "傳愛夢")), "characters with one form are not converted"
assert HanziConv.toTraditional("家才出表面只") == "傢纔齣錶麵隻" and len(both) == 51, "this has changed"
assert all(by_hanziconv != by_opencc for by_hanziconv, by_opencc in seen.values()), "this has changed"
PYTHON
