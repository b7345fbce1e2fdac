"""What a value is: its kind, told by the value itself, and one kind for a column from the kinds of its parts."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from trainjobs.api.errors import JobError
from trainjobs.data.forms.records import Kind

NUMBERS: frozenset[str] = frozenset({"integer", "number"})
WORDS: Mapping[Kind, str] = {
    "image": "pictures",
    "text": "text",
    "integer": "whole numbers",
    "number": "numbers",
    "boolean": "true or false",
    "list": "lists",
    "record": "records",
    "bytes": "bytes",
}


def kind_of(value: object) -> Kind | None:
    """None where nothing is there."""
    if value is None:
        return None
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int):
        return "integer"
    if isinstance(value, float):
        return "number"
    if isinstance(value, str):
        return "text"
    if isinstance(value, bytes):
        return "bytes"
    return "record" if isinstance(value, dict) else "list"


def together(first: Kind | None, second: Kind | None) -> Kind | None:
    """The kind of a column that has values of both; None where there is none."""
    if first is None or second is None or first == second:
        return first or second
    return "number" if {first, second} == NUMBERS else None


def kinds_of(rows: Iterable[Mapping[str, object]]) -> dict[str, Kind]:
    """Columns of some rows, in the order in which they appear; one of several kinds counts as the kind that came first, and what has no
    value in any row as text."""
    kinds: dict[str, Kind | None] = {}
    for row in rows:
        for name, value in row.items():
            known = kinds.get(name)
            kinds[name] = together(known, kind_of(value)) or known
    return {name: kind or "text" for name, kind in kinds.items()}


def fits(value: object, kind: Kind) -> bool:
    """Whether a value may stand in a column; what is not there may."""
    found = kind_of(value)
    return found is None or found == kind or (kind == "number" and found == "integer") or (kind == "image" and found == "bytes")


def shown(value: object) -> str:
    """A value, for a message."""
    if isinstance(value, dict | list):  # as deep as anybody likes
        return "an object" if isinstance(value, dict) else "a list"
    if isinstance(value, bytes | bytearray):
        return f"{len(value):,} bytes"
    return value[:40] if isinstance(value, str) else json.dumps(value, default=str)[:40]


def text_of(data: bytes, where: str) -> str:
    """JobError GTJ0113 with the byte that is none of UTF-8."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        why = f"byte {error.start:,}, 0x{error.object[error.start]:02x}, is none of UTF-8 there ({error.reason})"
        how = "convert it with iconv, or remove it"
        raise JobError("GTJ0113", "the text is not UTF-8", where=where, why=why, how=how) from error


def json_of(data: bytes, where: str) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        why = f"{error.msg} at character {error.pos + 1}" if isinstance(error, json.JSONDecodeError) else str(error)
        raise JobError("GTJ0113", "it is not JSON", where=where, why=why, how="mend or remove it") from error
