"""Conditions on the columns of a table, such as `language == "zh" and not (artist_id in ["a1", "a2"])`: one text, which
polars evaluates on a table's rows and Milvus on those of a collection.

The syntax is what Python and Milvus have in common: comparisons of a column with a constant (also 1 <= x < 5), `in` and
`not in` a list, `"rock" in genres` where the column holds lists, `is null`, `is not null`, a Boolean column alone; and,
or, not, parentheses. A day is written as the text "2024-06-01". A missing value makes a comparison neither true nor
false. Its negation is then not true either: only `is null` finds such a row.

A collection of Milvus has no nulls: MISSING names the columns of a row that have no value. So every server and
milvus-lite find the same rows. Servers before 2.5 know no nulls, and milvus-lite does not find the same by `not in` as
by `!=` (findings/milvus_lite_not_in.sh). Nor has it days: they are texts there, in the same order.
"""

from __future__ import annotations

import ast
import json
import keyword
import math
import operator
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from typing import Any

import polars as pl

from configs.errors import UserError

LONGEST = 2_000  # characters of a condition
NAMED = 30  # columns that an error names
WRITTEN = (
    "write comparisons by ==, !=, <, <=, >, >=, in […], not in […], is null, is not null, joined by and, or, not; "
    'texts as "…"'
)
TEXT_BYTES, LIST_MOST = 65_535, 4_096  # that a value of Milvus may have
LEFT_OUT = ("title", "lyrics")  # free text
DAY = re.compile("[0-9]{4}-[0-9]{2}-[0-9]{2}")
ESCAPED = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n", "\r": r"\r"})  # of a text; milvus-lite knows no \u000b
NULL, FLAGS = "null", {"true": True, "false": False}
MISSING = "missing"  # field of a collection: the columns of a row that have no value
EMPTY: dict[str, Any] = {"text": "", "day": "", "integer": 0, "number": 0.0, "true or false": False, "list of text": []}
PLURAL = {"day": "days", "integer": "integers", "number": "numbers"}
IN_MILVUS = {"day": "text"}  # kinds of which a collection makes another
TYPES: dict[str, pl.DataType] = {
    "text": pl.String(),
    "day": pl.Date(),
    "integer": pl.Int64(),
    "number": pl.Float64(),
    "true or false": pl.Boolean(),
    "list of text": pl.List(pl.String()),
}
SIGNS: dict[type[ast.cmpop], str] = {
    ast.Eq: "==", ast.NotEq: "!=", ast.Lt: "<", ast.GtE: ">=", ast.LtE: "<=", ast.Gt: ">"
}  # fmt: skip
OPPOSITE = {"==": "!=", "<": ">=", "<=": ">"}
OPPOSITE |= {other: sign for sign, other in OPPOSITE.items()}
TURNED = {"==": "==", "!=": "!=", "<": ">", ">": "<", "<=": ">=", ">=": "<="}
COMPARE: dict[str, Callable[[Any, Any], Any]] = {
    "==": operator.eq, "!=": operator.ne, "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge
}  # fmt: skip


@dataclass(frozen=True)
class Condition:
    """A condition as a polars expression, never null, and as an expression of Milvus."""

    rows: pl.Expr
    milvus: str


class ConditionError(UserError):
    """A text that is no condition: `option=text: why`, and why alone."""

    def __init__(self, option: str, text: str, why: str) -> None:
        super().__init__(f"{option}={text!r}: {why}")
        self.option, self.why = option, why


def columns_of(table: pl.DataFrame) -> pl.DataFrame:
    """What conditions may name of a table: columns of text, days, numbers, true or false, and lists of text.

    Times become days. NaN, infinite numbers and days of other years than 1 to 9999 become null. Free text, paths and
    columns with other names than Python's variables have are left out; so is one named MISSING.
    """
    named = [
        name
        for name in table.columns
        if name.isascii() and name.isidentifier() and not keyword.iskeyword(name)
        if name not in (*LEFT_OUT, MISSING, NULL, *FLAGS) and not name.startswith("audio_")
    ]
    made = [made for name in named if (made := _simple(name, table.schema[name])) is not None]
    found = table.select(made)
    return found.select(one for one in found if _fits(one))


def kinds_of(table: pl.DataFrame) -> dict[str, str]:
    """The kind (of TYPES) of each column of a table of `columns_of`."""
    kinds = {repr(dtype): kind for kind, dtype in TYPES.items()}
    return {name: kinds[repr(dtype)] for name, dtype in table.schema.items()}


def without_nulls(table: pl.DataFrame) -> pl.DataFrame:
    """A table of `columns_of` as a collection of Milvus has it: with MISSING, and something EMPTY for each null."""
    table = days_as_text(table)
    kinds = kinds_of(table)
    names = [pl.when(pl.col(name).is_null()).then(pl.lit(name)) for name in kinds]
    filled = [pl.col(name).fill_null(pl.lit(EMPTY[kind], dtype=TYPES[kind])) for name, kind in kinds.items()]
    return table.select(*filled, pl.concat_list(names).list.drop_nulls().alias(MISSING))


def days_as_text(table: pl.DataFrame) -> pl.DataFrame:
    """A table of `columns_of` with days as a collection of Milvus has them, YYYY-MM-DD."""
    return table.with_columns(pl.col(pl.Date).dt.strftime("%Y-%m-%d"))


def condition(text: str, kinds: dict[str, str], option: str = "where") -> Condition:
    """Read a condition on columns of the given kinds.

    Raises:
        ConditionError: another syntax, an unknown column, or a constant of another kind than the column; it names
            `option`.
    """
    try:
        if len(text) > LONGEST:
            raise ValueError(f"longer than {LONGEST:,} characters")
        return _read(ast.parse(text.strip(), mode="eval").body, kinds, False)
    except (SyntaxError, RecursionError, MemoryError) as error:
        why = f"not a condition{_place(text.strip(), error)}: {WRITTEN}"
    except (ValueError, ArithmeticError) as error:
        why = str(error)
    shown = text if len(text) <= 200 else text[:200] + "…"
    raise ConditionError(option, shown, f"{why}; columns: {_columns(kinds)}")


def _place(text: str, error: Exception) -> str:
    """Where a text stops being a condition, if Python says."""
    if not isinstance(error, SyntaxError) or not error.lineno or not error.offset:
        return ""
    rest = text.splitlines()[error.lineno - 1][error.offset - 1 :]
    return f" from {rest[:20] + ('…' if len(rest) > 20 else '')!r} on" if rest else ""


def _columns(kinds: dict[str, str]) -> str:
    """The columns that a condition may name."""
    named = [f"{name} ({kind})" for name, kind in kinds.items()]
    more = [f"and {len(named) - NAMED:,} more"] if len(named) > NAMED else []
    return ", ".join(named[:NAMED] + more) or "none"


def _simple(name: str, dtype: Any) -> pl.Expr | None:
    """A column as one of TYPES; None where it is none of them."""
    column = pl.col(name)
    if dtype in (pl.Date, pl.Datetime):
        day = column.dt.date()
        return pl.when(day.is_between(date.min, date.max)).then(day)
    if dtype in (pl.String, pl.Categorical, pl.Enum):
        return column.cast(pl.String)
    if dtype == pl.Boolean:
        return column
    if dtype.is_integer():
        return column.cast(pl.Int64, strict=False)
    if dtype.is_float() or dtype.is_decimal():
        # single precision by its digits, as 4.2 and not as 4.199999809
        number = (column.cast(pl.String) if dtype == pl.Float32 else column).cast(pl.Float64)
        return pl.when(number.is_finite()).then(number)
    if dtype == pl.List and dtype.inner in (pl.String, pl.Categorical, pl.Enum):
        return column.cast(pl.List(pl.String)).map_batches(_full, return_dtype=pl.List(pl.String))
    return None


def _full(lists: pl.Series) -> pl.Series:
    """Lists without the nulls in them; polars takes two seconds to look for some in a million lists one by one."""
    nulls = int(lists.list.len().sum() or 0) - lists.explode().drop_nulls().len()
    return lists.list.drop_nulls() if nulls else lists


def _fits(column: pl.Series) -> bool:
    """Whether Milvus can hold the values."""
    if column.dtype == pl.List:
        return int(column.list.len().max() or 0) <= LIST_MOST and _fits(column.explode())
    return column.dtype != pl.String or int(column.str.len_bytes().max() or 0) <= TEXT_BYTES


def _read(node: ast.expr, kinds: dict[str, str], negated: bool) -> Condition:
    """The condition that a node, or its negation, is."""
    if isinstance(node, ast.BoolOp):
        return _joined([_read(one, kinds, negated) for one in node.values], isinstance(node.op, ast.And) != negated)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        return _read(node.operand, kinds, not negated)
    if isinstance(node, ast.Compare):
        sides = [node.left, *node.comparators]
        links = zip(sides, node.ops, sides[1:], strict=False)
        return _joined([_compared(left, op, right, kinds, negated) for left, op, right in links], not negated)
    if isinstance(node, ast.Name) and kinds.get(node.id) == "true or false":
        return _signed(node.id, "!=" if negated else "==", True, False)
    raise ValueError(f"{_shown(node)} is not a comparison: {WRITTEN}")


def _joined(parts: list[Condition], every: bool) -> Condition:
    """All of the parts, or any."""
    if len(parts) == 1:
        return parts[0]
    word, of_rows = (" and ", pl.all_horizontal) if every else (" or ", pl.any_horizontal)
    return Condition(of_rows(part.rows for part in parts), "(" + word.join(part.milvus for part in parts) + ")")


def _compared(left: ast.expr, op: ast.cmpop, right: ast.expr, kinds: dict[str, str], negated: bool) -> Condition:
    """One comparison, or its opposite."""
    if isinstance(op, ast.Is | ast.IsNot):
        name = _column(left, kinds)
        if not (isinstance(right, ast.Name) and right.id == NULL):
            isnt = "is not" if isinstance(op, ast.IsNot) else "is"
            raise ValueError(f"{name} {isnt} {_shown(right)}: write {name} {isnt} null, or compare by == and !=")
        if isinstance(op, ast.Is) != negated:
            return Condition(pl.col(name).is_null(), _missing(name))
        return Condition(pl.col(name).is_not_null(), f"not {_missing(name)}")
    if isinstance(op, ast.In | ast.NotIn):
        return _contained(left, right, kinds, isinstance(op, ast.In) != negated)
    sign = SIGNS[type(op)]
    if _is_name(right) and not _is_name(left):
        left, right, sign = right, left, TURNED[sign]
    name = _column(left, kinds)
    if kinds[name] == "list of text":
        raise ValueError(f'{name} holds lists: write "…" in {name}')
    if kinds[name] == "true or false" and sign not in ("==", "!="):
        raise ValueError(f"{name} is true or false: it is not {sign} anything")
    value = _constant(right, name, kinds[name])
    return _signed(name, OPPOSITE[sign] if negated else sign, value, EMPTY[kinds[name]])


def _signed(name: str, sign: str, value: Any, empty: Any) -> Condition:
    """A column beside a constant; `empty` is what a collection has for null."""
    rows, known = COMPARE[sign](pl.col(name), pl.lit(value)).fill_null(False), COMPARE[sign](empty, _in_milvus(value))
    return Condition(rows, _known(name, f"{name} {sign} {literal(value)}", known))


def _contained(left: ast.expr, right: ast.expr, kinds: dict[str, str], inside: bool) -> Condition:
    """A column's value in a list of constants, or a constant in a column's lists; or neither."""
    empty = False  # whether it is true of what a collection has for null
    if isinstance(right, ast.Name):
        name = _column(right, kinds)
        if kinds[name] != "list of text":
            raise ValueError(f"{name} holds no lists: write {name} == {_shown(left)}")
        value = _constant(left, name, "text")
        rows, text = pl.col(name).list.contains(pl.lit(value)), f"array_contains({name}, {literal(value)})"
    else:
        name = _column(left, kinds)
        if kinds[name] == "list of text":
            raise ValueError(f'{name} holds lists: write "…" in {name}')
        if not isinstance(right, ast.List | ast.Tuple) or not right.elts:
            raise ValueError(f"after {name} in … a list of constants is wanted, not {_shown(right)}")
        values = [_constant(one, name, kinds[name]) for one in right.elts]
        rows = pl.col(name).is_in(pl.Series(values, dtype=TYPES[kinds[name]]).implode())
        text, empty = f"{name} in [{', '.join(map(literal, values))}]", EMPTY[kinds[name]] in values
    if inside:
        return Condition(rows.fill_null(False), _known(name, text, empty))
    return Condition((~rows).fill_null(False), _known(name, f"not ({text})", not empty))


def _known(name: str, text: str, empty: bool) -> str:
    """A comparison in Milvus, of rows with a value alone; `empty`: it is true of what stands for null."""
    return f"(not {_missing(name)} and {text})" if empty else text


def _missing(name: str) -> str:
    return f'array_contains({MISSING}, "{name}")'


def _column(node: ast.expr, kinds: dict[str, str]) -> str:
    """The column that a node names."""
    if isinstance(node, ast.Name) and node.id in kinds:
        return node.id
    if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value in kinds:
        raise ValueError(f"{_shown(node)} is a text: write {node.value} without quotes")
    raise ValueError(f"{_shown(node)} is not a column")


def _is_name(node: ast.expr) -> bool:
    """Whether a node is named as a column is."""
    return isinstance(node, ast.Name) and node.id not in (NULL, *FLAGS)


def _constant(node: ast.expr, name: str, kind: str) -> Any:
    """The constant that a node is, of a column's kind."""
    minus = isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub)
    inner = node.operand if isinstance(node, ast.UnaryOp) and minus else node
    value = inner.value if isinstance(inner, ast.Constant) else None
    if isinstance(inner, ast.Name):
        value = FLAGS.get(inner.id)
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if kind == "text" and isinstance(value, str):
        value.encode()  # half a surrogate pair is an error of the value, and a ValueError
        return value
    if kind == "day" and isinstance(value, str) and (day := _day(value)) is not None:
        return day
    if kind == "true or false" and isinstance(value, bool) and not minus:
        return value
    if kind == "integer" and is_number and isinstance(value, int) and value < 2**63:
        return -value if minus else value
    if kind == "number" and is_number and math.isfinite(float(value)):  # type: ignore[arg-type]
        return -float(value) if minus else float(value)  # type: ignore[arg-type]
    raise ValueError(f"{name} holds {PLURAL.get(kind, kind)}, not {_shown(node)}{_advice(node, name, kind)}")


def _day(text: str) -> date | None:
    """The day that a text is, YYYY-MM-DD; None for another text."""
    try:
        return date.fromisoformat(text) if DAY.fullmatch(text) else None
    except ValueError:  # the 30th of February
        return None


def _advice(node: ast.expr, name: str, kind: str) -> str:
    """What is to be written for a constant of another kind than the column, if that is plain."""
    shown, value = _shown(node), node.value if isinstance(node, ast.Constant) else None
    if shown.lower() in (NULL, "none"):
        return f": write {name} is null, or is not null"
    if isinstance(node, ast.List | ast.Tuple):
        return f": write {name} in {shown}"
    if kind == "day":
        return ': write "2024-06-01" for the first of June'
    if kind == "text" and (isinstance(node, ast.Name) or isinstance(value, int | float)):
        return f': write "{shown}"'
    if kind in ("integer", "number") and isinstance(value, str) and value.strip().isdecimal():
        return f": write {value.strip()}"
    return ""


def _in_milvus(value: Any) -> Any:
    """A constant as a collection has it."""
    return value.isoformat() if isinstance(value, date) else value


def literal(value: Any) -> str:
    """A constant as it is written, also for Milvus."""
    value = _in_milvus(value)
    if isinstance(value, str):
        return f'"{value.translate(ESCAPED)}"'
    return json.dumps(value) if isinstance(value, bool) else repr(value)


def _shown(node: ast.expr) -> str:
    """A part of the condition in an error."""
    text = ast.unparse(node)
    return text if len(text) <= 40 else text[:40] + "…"
