"""Rows of the item-cold benchmark as Markdown tables.

    python -m benchmarks.quality.item_cold.table FILE.json … [against="article, CB2CF"]

Differences are to `firstplay`, or to the method that `against` names, paired by seed.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from benchmarks.quality.item_cold.measure import ARTISTS, BUCKETS, OVERLAPS, TO_SONGS, TO_USERS, USERS
from benchmarks.quality.item_cold.measure import row as summary
from benchmarks.table import lines
from configs.errors import UserError

FOUND = f"target_users_found@{USERS}"
HEADS = {TO_SONGS: "Recall@20", "ndcg@20": "NDCG@20", TO_USERS: "songs→users R@50", FOUND: "found@50"}


def table(rows: list[dict[str, Any]], reference: str = "firstplay") -> str:
    """A table for each feature set: mean ± standard deviation, and how much less than `reference`, paired by seed.

    Raises:
        UserError: a method occurs twice, or another `reference` than `firstplay` is not among those of a feature set.
    """
    parts = []
    named = Counter((row["data"], row["features"], row["method"]) for row in rows)
    if twice := [" ".join(name) for name, n in named.items() if n > 1]:
        raise UserError(f"measured twice, so that no row is the one: {'; '.join(twice)}")
    for features in dict.fromkeys((row["data"], row["features"]) for row in rows):
        some = [row for row in rows if (row["data"], row["features"]) == features]
        some = some if reference == "firstplay" else against(some, reference)
        parts.append(f"{features[0]}, {features[1]}, {some[0]['seeds']} seeds")
        parts.append(comparison(some, reference))
        parts.append(buckets(some, reference))
        parts += [artists(some, reference)] if f"songs_{ARTISTS[0]}" in some[0] else []
        parts += [overlaps(row) for row in some if OVERLAPS[0] in row]
    return "\n\n".join(parts)


def against(rows: list[dict[str, Any]], reference: str) -> list[dict[str, Any]]:
    """The rows of one feature set with their differences to another method."""
    runs = {one["method"]: one["per_seed"] for one in rows}
    if reference not in runs:
        raise UserError(f"against={reference}: choose from {'; '.join(runs)}")
    plain = [{key: value for key, value in one.items() if "_less" not in key} for one in rows]
    return [
        one | summary(one["per_seed"], runs[reference] if one["method"] != reference else None)
        if len(one["per_seed"]) == len(runs[reference])
        else one  # other seeds: nothing to pair
        for one in plain
    ]


def comparison(rows: list[dict[str, Any]], reference: str = "firstplay") -> str:
    """Figures and paired differences."""
    head = ["method", *HEADS.values(), f"less than {reference}: R@20", "NDCG@20", "R@50", "seconds"]
    body = []
    for row in rows:
        cells = [cell(row, key, 0 if key == FOUND else 3) for key in HEADS]
        cells += [less(row, key) for key in (TO_SONGS, "ndcg@20", TO_USERS)]
        body.append([row["method"], *cells, f"{row['seconds']:.0f}"])
    return lines(head, body)


def buckets(rows: list[dict[str, Any]], reference: str = "firstplay") -> str:
    """Songs → users by thirds of the new songs, and how popular the neighbours found are."""
    head = ["method", *(f"R@50, {bucket} songs" for bucket in BUCKETS), f"rare songs, less than {reference}"]
    head += ["popularity rank of neighbours", "of the popular third", "effective rank"]
    body = []
    for row in rows:
        cells = [cell(row, f"{TO_USERS}_{bucket}") for bucket in BUCKETS]
        cells.append(less(row, f"{TO_USERS}_{BUCKETS[0]}"))
        cells += [cell(row, key) for key in ("neighbour_popularity", f"neighbours_{BUCKETS[-1]}")]
        cells.append(cell(row, "effective_rank", 1))
        body.append([row["method"], *cells])
    return lines(head, body)


def artists(rows: list[dict[str, Any]], reference: str = "firstplay") -> str:
    """Both directions apart for new songs of artists with a known song and of others; the heads count these songs."""
    of_kind = {kind: f"{rows[0][f'songs_{kind}']:.0f} songs of {kind.replace('_', ' ')}s" for kind in ARTISTS}
    columns = [f"{way}_{kind}" for way in (TO_USERS, TO_SONGS) for kind in ARTISTS]
    ways = [f"{name}, {songs}" for name in ("R@50", "R@20") for songs in of_kind.values()]
    head = ["method", *ways, *(f"{name}, less than {reference}" for name in ways)]
    body = [[row["method"], *(cell(row, key) for key in columns), *(less(row, key) for key in columns)] for row in rows]
    return lines(head, body)


def overlaps(row: dict[str, Any]) -> str:
    """How much of an audience other modes name too."""
    taste, i2i2u = (cell(row, key) for key in OVERLAPS)
    return f"Of the first {USERS} users of {row['method']}, taste names {taste}, I2I2U {i2i2u}."


def cell(row: dict[str, Any], key: str, digits: int = 3) -> str:
    """Mean ± standard deviation."""
    if key not in row:
        return "–"
    return f"{row[key]:.{digits}f} ± {row[f'{key}_std']:.{digits}f}"


def less(row: dict[str, Any], key: str) -> str:
    """Paired difference with half of its 95 % interval; bold where the interval leaves zero out."""
    if f"{key}_less" not in row:
        return "–"
    value, half = row[f"{key}_less"], row.get(f"{key}_less_ci95")
    if half is None:
        return f"{value:+.3f}"
    text = f"{value:+.3f} ± {half:.3f}"
    return f"**{text}**" if abs(value) > half else text


def main(arguments: list[str]) -> None:
    """Print the tables of some files; a wrong argument is one line on stderr and exit status 2."""
    names = [one.removeprefix("against=") for one in arguments if one.startswith("against=")]
    files = [one for one in arguments if not one.startswith("against=")]
    if not files or {"-h", "--help"} & set(arguments):
        print(__doc__)
        return
    try:
        rows = [one for path in files for one in json.loads(Path(path).read_text("utf-8"))]
        print(table(rows, *names[-1:]))
    except (UserError, OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except (KeyError, TypeError):
        print(f"error: {' '.join(files)}: not written by benchmarks.quality.item_cold", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main(sys.argv[1:])
