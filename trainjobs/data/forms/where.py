"""The condition of `data.where`: comparisons of columns with values, put together by and, or, not.

    language == 'en' and width >= 256 and not (licence in ['nc', 'nd'])

The grammar is a part of Python's; it becomes an expression of pyarrow's. A comparison with a value that is not there is not true, nor is
its opposite; `x == None` asks for that.
"""

from __future__ import annotations

import ast
import operator
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow.compute as pc

from trainjobs.api.errors import JobError
from trainjobs.data.forms.records import Kind
from trainjobs.data.forms.roles import known
from trainjobs.data.forms.values import NUMBERS, WORDS, kind_of

_WHERE = "data.where"
_HOW = "write comparisons (== != < <= > >= in) of a column with a value, joined by and, or, not"
_COMPARISONS = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}
_CONSTANTS = {"true": True, "false": False, "null": None, "none": None}
_QUOTED = re.compile(r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"|`([^`]+)`")
_COMPARED = ("text", "integer", "number", "boolean")


@dataclass(frozen=True)
class Condition:
    """`expression` is pyarrow's, over `columns`."""

    text: str
    columns: tuple[str, ...]
    expression: Any


def condition(text: str, columns: Mapping[str, Kind]) -> Condition:
    """JobError GTJ0102 where the text cannot be understood (it says at which character), names no column that is there, or compares what
    cannot be compared. A name that is no word stands in backticks."""
    quoted: dict[str, str] = {}

    def plain(match: re.Match[str]) -> str:
        if match[1] is None:
            return match[0]
        name = f"_{len(quoted)}".ljust(len(match[0]), "_")  # as long, so that places in the text stay
        quoted[name] = match[1]
        return name

    try:
        text = text.replace("\n", " ")
        with warnings.catch_warnings(action="ignore"):  # of a backslash in a text
            tree = ast.parse(_QUOTED.sub(plain, text), mode="eval")
        return _Reader(text, columns, quoted).condition(tree.body)
    except SyntaxError as error:
        raise _wrong(text, (error.offset or len(text) + 1) - 1, error.msg) from error
    except (ValueError, RecursionError, MemoryError) as error:
        raise _wrong(text, 0, str(error) or "it is nested too deeply") from error


class _Reader:
    def __init__(self, text: str, columns: Mapping[str, Kind], quoted: Mapping[str, str]) -> None:
        self._text, self._columns, self._quoted = text, columns, quoted
        self._used: dict[str, None] = {}

    def condition(self, node: ast.expr) -> Condition:
        expression = self._true(node)
        return Condition(self._text, tuple(self._used), expression)

    def _true(self, node: ast.expr) -> Any:
        if isinstance(node, ast.BoolOp):
            parts = [self._true(value) for value in node.values]
            whole = parts[0]
            for part in parts[1:]:
                whole = whole & part if isinstance(node.op, ast.And) else whole | part
            return whole
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            return ~self._true(node.operand)
        if isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
            parts = [self._compared(sides[number], op, sides[number + 1]) for number, op in enumerate(node.ops)]
            whole = parts[0]
            for part in parts[1:]:
                whole = whole & part
            return whole
        if (name := self._name(node)) is not None and self._column(node, name) == "boolean":
            return pc.field((name,))
        raise self._wrong(node, "this is no comparison")

    def _compared(self, left: ast.expr, op: ast.cmpop, right: ast.expr) -> Any:
        names = self._name(left), self._name(right)
        if names == (None, None):
            raise self._wrong(left, "no side of the comparison is a column")
        if isinstance(op, ast.In | ast.NotIn):
            return self._among(left, names[0], op, right)
        if type(op) not in _COMPARISONS:
            raise self._wrong(left, "this is no comparison that is known")
        sides, kinds = [], list[Kind | None]()
        for node, name in zip((left, right), names, strict=True):
            if name is None:
                value = self._value(node)
                sides.append(pc.scalar(value))
                kinds.append(kind_of(value))
            else:
                kinds.append(self._column(node, name))
                sides.append(pc.field((name,)))
        if None in kinds:
            return self._empty(left, op, sides[0] if names[0] is not None else sides[1])
        if kinds[0] != kinds[1] and not {*kinds} <= NUMBERS:
            both = [f"{name} is {WORDS[kind]}" if name else WORDS[kind] for name, kind in zip(names, kinds, strict=True) if kind]
            first, second = both if names[0] else reversed(both)
            raise self._wrong(left, f"{first}, and cannot be compared with {second}")
        return _COMPARISONS[type(op)](sides[0], sides[1])

    def _empty(self, node: ast.expr, op: ast.cmpop, column: Any) -> Any:
        if isinstance(op, ast.Eq | ast.NotEq):
            return column.is_null() if isinstance(op, ast.Eq) else column.is_valid()
        raise self._wrong(node, "nothing is larger or smaller than None")

    def _among(self, left: ast.expr, name: str | None, op: ast.cmpop, right: ast.expr) -> Any:
        if name is None or not isinstance(right, ast.List | ast.Tuple | ast.Set) or not right.elts:
            raise self._wrong(right, "`in` asks whether a column is one of a list of values: licence in ['by', 'cc0']")
        kind, values = self._column(left, name), [self._value(element) for element in right.elts]
        for element, value in zip(right.elts, values, strict=True):
            other = kind_of(value)
            if other is None or (other != kind and not {other, kind} <= NUMBERS):
                raise self._wrong(element, f"{name} is {WORDS[kind]}, and this is {WORDS[other] if other else 'no value'}")
        if kind == "integer" and any(isinstance(value, float) for value in values):
            values = [int(value) for value in values if value == int(value)]  # no whole number is 1.5
        column = pc.field((name,))
        found = column.isin(values)
        return found & column.is_valid() if isinstance(op, ast.In) else ~found & column.is_valid()

    def _name(self, node: ast.expr) -> str | None:
        """Of a column: a word, words with dots between them, or what stood in backticks."""
        if isinstance(node, ast.Attribute):
            before = self._name(node.value)
            return None if before is None else f"{before}.{node.attr}"
        if isinstance(node, ast.Name) and not (node.id in _CONSTANTS and node.id not in self._columns):
            return self._quoted.get(node.id, node.id)
        return None

    def _column(self, node: ast.expr, name: str) -> Kind:
        if name not in self._columns:
            raise known(self._columns, name, _WHERE)
        kind = self._columns[name]
        if kind not in _COMPARED:
            raise self._wrong(node, f"{name} holds {WORDS[kind]}, which cannot be compared")
        self._used[name] = None
        return kind

    def _value(self, node: ast.expr) -> Any:
        if isinstance(node, ast.Constant) and isinstance(node.value, str | int | float | None):
            return node.value
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.UAdd):
            value = self._value(node.operand)
            if isinstance(value, int | float) and not isinstance(value, bool):
                return -value if isinstance(node.op, ast.USub) else value
        if isinstance(node, ast.Name) and node.id in _CONSTANTS:
            return _CONSTANTS[node.id]
        raise self._wrong(node, "this is no value: text in quotes, a number, True, False or None")

    def _wrong(self, node: ast.expr, why: str) -> JobError:
        # Python counts bytes of UTF-8.
        return _wrong(self._text, len(self._text.encode()[: node.col_offset].decode("utf-8", "ignore")), why)


def _wrong(text: str, at: int, why: str) -> JobError:
    near = text[max(0, at) :][:30]
    place = f"at character {at + 1}, {near!r}" if near else "at its end"
    return JobError("GTJ0102", f"data.where cannot be understood {place}", where=_WHERE, why=why, how=_HOW)
