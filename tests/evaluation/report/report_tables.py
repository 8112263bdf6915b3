"""The report's tables, read back from its HTML and compared with metrics.json, cell by cell."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from typing import Any

import pytest

NUMBER = re.compile(r"(?<![\w@])[+-]?[\d,]+(?:\.\d+)?(?!\w)")
Tables = dict[str, list[list[str]]]


def body_of(source: str) -> ET.Element:
    """The page's content; fails on tags that do not match."""
    return ET.fromstring(source[source.index("<main>") : source.index("</main>")] + "</main>")


def text_of(element: ET.Element) -> str:
    return re.sub(r"\s+", " ", " ".join(element.itertext()))


def read_tables(source: str) -> Tables:
    """The rows of every table, the head first, by its caption."""
    return {
        text_of(table[0]): [[text_of(cell) for cell in row] for row in table.iter("tr")]
        for table in body_of(source).iter("table")
    }


def figure(row: dict[str, Any], key: str, digits: int = 3, scale: float = 1) -> Any:
    """What a cell of a figure and its interval is read as: both, as far as its digits go."""
    if row[key] is None:
        return []
    both = [scale * one for one in (row[key], *row.get(f"{key}_ci95", []))]
    return pytest.approx(both, abs=0.51 * 10**-digits)


def assert_tables_are(tables: Tables, metrics: dict[str, Any]) -> None:
    """Tables of the comparison, differences, parts, buckets and outcomes hold what metrics.json holds, no row more."""
    budgets = [int(key.split("@")[1]) for key in metrics["audience"][0] if key.startswith("target_users_found@")]
    middle, rates = metrics["best_baseline"]["budget"], {row["part"]: row for row in metrics["outcomes"]["parts"]}

    def outcomes(row: dict[str, Any]) -> list[Any]:
        return [figure(row, f"{name}_rate", 1, 100) for name in ("favourite", "completion")]

    def found(row: dict[str, Any], budgets: list[int]) -> list[Any]:
        return [one for b in budgets for one in (figure(row, f"found@{b}", 0), figure(row, f"recall@{b}"))]

    def counts(row: dict[str, Any]) -> list[Any]:
        keys = [f"{key}@{b}" for b in budgets for key in ("target_users_found", "reached", "recall")]
        return [figure(row, key) if key.startswith("recall") else [row[key]] for key in keys]

    def bucket(row: dict[str, Any]) -> list[Any]:
        recalls = [figure(row, key) for key in ("recall", "baseline_recall", "difference")]
        return [[row["songs"]], [row["listeners"]], *recalls]

    of_methods, parts, buckets = metrics["audience"], metrics["parts"], metrics["buckets"]["rows"]
    wanted: dict[str, list[tuple[list[str], list[Any]]]] = {
        "By users named": [([row["method"]], counts(row)) for row in of_methods],
        "Less the best baseline": [([row["method"]], found(row, budgets)) for row in metrics["differences"]],
        "Differences with": [
            ([row["part"], row["method"], row["less"]], found(row, [middle]) + outcomes(rates[row["part"]]))
            for row in parts
        ],
        "Share of the users": [
            ([row["method"], row["other"]], [figure(row, f"overlap@{b}") for b in budgets])
            for row in metrics["overlap"]
        ],
        "Recall by bucket": [([f"{row['by']}: {row['bucket']}"], bucket(row)) for row in buckets],
        f"Recall at {budgets[-1]} users a song by": [
            ([row["method"]], [figure(third, "recall") for third in row["by_listeners"]]) for row in of_methods
        ],
        "Outcomes of": [([row["method"]], [[row["outcomes"]], *outcomes(row)]) for row in metrics["outcomes"]["rows"]],
    }
    for caption, rows in wanted.items():
        (table,) = [rows for name, rows in tables.items() if name.startswith(caption)]
        assert len(table) - 1 == len(rows) > 0
        for cells, (names, figures) in zip(table[1:], rows, strict=True):
            assert cells[: len(names)] == names
            read = [[float(one.replace(",", "")) for one in NUMBER.findall(cell)] for cell in cells[len(names) :]]
            assert read == figures
