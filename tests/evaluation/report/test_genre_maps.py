"""The maps of songs by genre, as a file of their own."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from typing import Any

from evaluation.report.genre_maps import genre_maps_svg

SVG = "{http://www.w3.org/2000/svg}"
DRAWN: dict[str, Any] = {
    "genre": ["rock", 'a<b>&"c', "", "rock"],
    "title": ["o\x00n\x08e\ufffe", "<script>alert(1)</script>", "", "four"],
    "new": [False, False, True, True],
    "maps": {name: {"x": [0.0, 1.0, 2.0, 4.0], "y": [0.0, 2.0, 1.0, -2.0]} for name in ("raw <1>", "ours")},
}


def test_each_kind_of_vectors_has_a_map_of_all_songs_and_says_its_nmi() -> None:
    root = ET.fromstring(genre_maps_svg(DRAWN, [{"space": "ours", "genre_nmi": 0.12345}, {"space": "other"}]))
    maps = root.findall(f"{SVG}svg")
    assert [len(one.findall(f"{SVG}path")) for one in maps] == [4, 4]
    assert [tip.text for tip in maps[0].iter(f"{SVG}title")] == [
        "one · rock", '<script>alert(1)</script> · a<b>&"c', "untitled · no genre · new", "four · rock · new"
    ]  # fmt: skip
    texts = [one.text for one in root.findall(f"{SVG}text")]
    assert texts[:3] == ["raw <1>", "ours, genre NMI 0.123", "rock"], "a name for each map, then the legend"
    assert 'a<b>&"c' in texts and not list(root.iter(f"{SVG}script"))


def test_maps_stand_beside_each_other_and_the_legend_below_them() -> None:
    root = ET.fromstring(genre_maps_svg(DRAWN, []))
    left, right = (float(one.get("x")) for one in root.findall(f"{SVG}svg"))  # type: ignore[arg-type]
    assert right >= left + 400 and float(root.get("width", 0)) == right + 400
    legend = [float(one.get("y", 0)) for one in root.findall(f"{SVG}text")][4:]
    assert min(legend) > 428 and max(legend) < float(root.get("height", 0))


def test_the_legend_of_a_single_map_fits_its_width() -> None:
    one = DRAWN | {"genre": [f"a genre of name {i}" for i in range(4)], "maps": {"ours": DRAWN["maps"]["ours"]}}
    root = ET.fromstring(genre_maps_svg(one, []))
    places = [(float(text.get("x", 0)), float(text.get("y", 0))) for text in root.findall(f"{SVG}text")][1:]
    assert max(x for x, _ in places) <= float(root.get("width", 0)) - 180 and len(set(places)) == len(places) == 6
