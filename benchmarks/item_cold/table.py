"""Rows of the item-cold benchmark as Markdown tables: `python -m benchmarks.item_cold.table FILE.json …`"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from benchmarks.item_cold.measure import BUCKETS, TO_SONGS, TO_USERS, USERS

FOUND = f"target_users_found@{USERS}"
HEADS = {TO_SONGS: "Recall@20", "ndcg@20": "NDCG@20", TO_USERS: "songs→users R@50", FOUND: "found@50"}


def table(rows: list[dict[str, Any]]) -> str:
    """A table for each feature set: mean ± standard deviation, and how much less than `firstplay`, paired by seed."""
    parts = []
    for features in dict.fromkeys((row["data"], row["features"]) for row in rows):
        some = [row for row in rows if (row["data"], row["features"]) == features]
        parts.append(f"{features[0]}, {features[1]}, {some[0]['seeds']} seeds")
        parts.append(comparison(some))
        parts.append(buckets(some))
    return "\n\n".join(parts)


def comparison(rows: list[dict[str, Any]]) -> str:
    """Figures and paired differences."""
    head = ["method", *HEADS.values(), "less than firstplay: R@20", "NDCG@20", "R@50", "seconds"]
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for row in rows:
        cells = [cell(row, key, 0 if key == FOUND else 3) for key in HEADS]
        cells += [less(row, key) for key in (TO_SONGS, "ndcg@20", TO_USERS)]
        lines.append(f"| {row['method']} | " + " | ".join([*cells, f"{row['seconds']:.0f}"]) + " |")
    return "\n".join(lines)


def buckets(rows: list[dict[str, Any]]) -> str:
    """Songs → users by thirds of the new songs, and how popular the neighbours found are."""
    head = ["method", *(f"R@50, {bucket} songs" for bucket in BUCKETS), "popularity rank of neighbours"]
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for row in rows:
        cells = [cell(row, f"{TO_USERS}_{bucket}") for bucket in BUCKETS] + [cell(row, "neighbour_popularity")]
        lines.append(f"| {row['method']} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


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


if __name__ == "__main__":
    print(table([row for path in sys.argv[1:] for row in json.loads(Path(path).read_text())]))
