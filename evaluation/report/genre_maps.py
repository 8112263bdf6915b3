"""Maps of the songs coloured by genre, one for each kind of song vectors: in the report, and as a file of their own."""

from __future__ import annotations

from typing import Any

from evaluation.report import charts

Key = list[tuple[str, str, int | None]]


def genre_maps(drawn: dict[str, Any]) -> tuple[str, list[tuple[str, str]], Key]:
    """What is to be seen, the picture of each kind of vectors by its name, and the legend, of a `figures.song_map`."""
    kinds, key = charts.kinds(drawn["genre"], "other or no genre")
    tips = [
        f"{title or 'untitled'} · {genre or 'no genre'}{' · new' if new else ''}"
        for title, genre, new in zip(drawn["title"], drawn["genre"], drawn["new"], strict=True)
    ]
    key += [("filled: known song", "plain", -1), ("outline: new song", "new", -1)]
    label = f"{len(kinds):,} songs, {sum(drawn['new']):,} of them new, coloured by first genre"
    maps = [
        (name, charts.point_map(f"{name}: {label}", xy["x"], xy["y"], kinds, drawn["new"], tips))
        for name, xy in drawn["maps"].items()
    ]
    return label, maps, key


def neighbours(drawn: dict[str, Any]) -> list[str]:
    """Of each map, the songs nearest to each song, all by their places in the drawing: "3 5;0;1 4" of three songs."""
    order = charts.drawing_order(drawn["new"])
    place = {song: i for i, song in enumerate(order)}
    return [
        ";".join(" ".join(str(place[other]) for other in one["near"][song]) for song in order)
        for one in drawn["maps"].values()
    ]


def genre_maps_svg(drawn: dict[str, Any], genres: list[dict[str, Any]]) -> str:
    """The maps as one SVG file; each says how well k-means clusters tell the genre (NMI), where that was measured."""
    label, maps, key = genre_maps(drawn)
    agreement = {row["space"]: row["genre_nmi"] for row in genres if "genre_nmi" in row}
    titles = [f"{name}, genre NMI {agreement[name]:.3f}" if name in agreement else name for name, _ in maps]
    return charts.poster(label, list(zip(titles, (picture for _, picture in maps), strict=True)), key)
