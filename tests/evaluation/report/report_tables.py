"""The report's tables, read back from its HTML and compared with metrics.json, cell by cell."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import Any

import pytest

NUMBER = re.compile(r"(?<![\w@])[+-]?[\d,]+(?:\.\d+)?(?!\w)")
Tables = dict[str, list[list[str]]]


class _Tables(HTMLParser):
    def __init__(self, source: str) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.tables: Tables = {}
        self.cell: list[str] | None = None
        self.feed(source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "tr":
            self.rows.append([])
        if tag in ("th", "td", "caption"):
            self.cell = []

    def handle_data(self, data: str) -> None:
        if self.cell is not None:
            self.cell.append(data)

    def handle_endtag(self, tag: str) -> None:
        if tag in ("th", "td", "caption"):
            content, self.cell = re.sub(r"\s+", " ", "".join(self.cell or [])), None
            if tag == "caption":
                self.tables[content] = self.rows = []
            else:
                self.rows[-1].append(content)


def read_tables(source: str) -> Tables:
    """The rows of every table, the head first, by its caption."""
    return _Tables(source).tables


def starting(tables: Tables, caption: str) -> list[list[str]]:
    (rows,) = [rows for name, rows in tables.items() if name.startswith(caption)]
    return rows


def numbers(cell: str) -> list[float]:
    return [float(one.replace(",", "")) for one in NUMBER.findall(cell)]


def shown(value: float | None, ends: list[float] | None, digits: int, scale: float = 1) -> Any:
    """What a cell of a figure and its interval is read as: both, as far as its digits go."""
    if value is None:
        return []
    return pytest.approx([scale * one for one in (value, *(ends or []))], abs=0.51 * 10**-digits)


def figure(row: dict[str, Any], key: str, digits: int, scale: float = 1) -> Any:
    return shown(row[key], row.get(f"{key}_ci95"), digits, scale)


def assert_tables_are(tables: Tables, metrics: dict[str, Any]) -> None:
    """Tables of the comparison, differences, parts, buckets and outcomes hold what metrics.json holds, no row more."""
    budgets = [int(key.split("@")[1]) for key in metrics["audience"][0] if key.startswith("target_users_found@")]
    wanted: dict[str, list[tuple[list[str], list[Any]]]] = {}
    wanted["By users named"] = [
        ([row["method"]], [
            one for b in budgets
            for one in ([row[f"target_users_found@{b}"]], [row[f"reached@{b}"]], figure(row, f"recall@{b}", 3))
        ]) for row in metrics["audience"]
    ]  # fmt: skip
    wanted["Less the best baseline"] = [
        (
            [row["method"]],
            [one for b in budgets for one in (figure(row, f"found@{b}", 0), figure(row, f"recall@{b}", 3))],
        )
        for row in metrics["differences"]
    ]
    middle, rates = metrics["best_baseline"]["budget"], {row["part"]: row for row in metrics["outcomes"]["parts"]}
    wanted["Differences with"] = [
        ([row["part"], row["method"], row["less"]], [
            figure(row, f"found@{middle}", 0), figure(row, f"recall@{middle}", 3),
            *(figure(rates[row["part"]], key, 1, 100) for key in ("favourite_rate", "completion_rate")),
        ]) for row in metrics["parts"]
    ]  # fmt: skip
    wanted["Recall by bucket"] = [
        ([f"{row['by']}: {row['bucket']}"], [
            [row["songs"]], [row["listeners"]], shown(row["recall"], None, 3), shown(row["baseline_recall"], None, 3),
            figure(row, "difference", 3),
        ]) for row in metrics["buckets"]["rows"]
    ]  # fmt: skip
    wanted[f"Recall at {budgets[-1]} users a song by"] = [
        ([row["method"]], [shown(one["recall"], None, 3) for one in row["by_listeners"]]) for row in metrics["audience"]
    ]
    wanted["Outcomes of"] = [
        (
            [row["method"]],
            [[row["outcomes"]], *(figure(row, f"{key}_rate", 1, 100) for key in ("favourite", "completion"))],
        )
        for row in metrics["outcomes"]["rows"]
    ]
    for caption, rows in wanted.items():
        told = starting(tables, caption)[1:]
        assert len(told) == len(rows) > 0
        for cells, (names, figures) in zip(told, rows, strict=True):
            assert cells[: len(names)] == names
            assert [numbers(cell) for cell in cells[len(names) :]] == figures
