"""An example of a condition (`data.conditions`) on the columns that a table has, for whoever is to write one."""

from __future__ import annotations

import math

import polars as pl

from data.conditions import condition, kinds_of, literal

OFTEN = 100  # a value is an example if it is that of every so many rows at least: a category, and no id
SHORT = 30  # characters of a value


def example(table: pl.DataFrame) -> str | None:
    """A condition on one or two columns of a table of `columns_of` that holds for some of its rows and not for all.

    None where no column tells groups of rows apart.
    """
    kinds, parts = kinds_of(table), dict[str, str]()
    for name, kind in kinds.items():
        if kind not in parts and (part := comparison(table[name].drop_nulls(), kind)):
            parts[kind] = part
    first = list(parts.values())[:2]
    for text in (" and ".join(first), *first):
        if text and 0 < table.select(condition(text, kinds).rows).to_series().sum() < len(table):
            return text
    return None


def comparison(values: pl.Series, kind: str) -> str | None:
    """A column's commonest values, or from the middle one on; None where all are the same, or all differ."""
    name = values.name
    if kind == "list of text":
        values = values.explode().drop_nulls()
    if values.n_unique() < 2:
        return None
    if kind == "true or false":
        return name
    if kind in ("integer", "number", "day"):
        middle = values.sort()[len(values) // 2]
        sign = ">=" if middle > values.min() else ">"
        short = float(f"{middle:.3g}") if kind == "number" else middle
        return f"{name} {sign} {literal(middle if short in (-math.inf, math.inf) else short)}"
    counted = values.alias("value").value_counts().filter(pl.col("count") * OFTEN >= len(values), pl.col("count") > 1)
    common = counted.sort("count", "value", descending=[True, False])["value"].head(min(2, values.n_unique() - 1))
    if not len(common) or max(map(len, common)) > SHORT or not all(map(str.isprintable, common)):
        return None
    first, *others = map(literal, common)
    if kind == "list of text":
        return f"{first} in {name}"
    return f"{name} in [{first}, {others[0]}]" if others else f"{name} == {first}"
