"""Plain data as YAML: a writer of a page, because the API may import nothing but pydantic.

Block style, keys in their order, strings quoted as JSON unless they are certainly plain in YAML 1.1 and 1.2 alike. What PyYAML reads back
is what was written.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

_PLAIN = re.compile(r"[A-Za-z_$][A-Za-z0-9_$]*([ ./-][A-Za-z0-9_$]+)*")
_RESERVED = {"y", "n", "yes", "no", "on", "off", "true", "false", "null"}


def document(data: Any) -> str:
    """One YAML document. `data` is made of dicts with string keys, lists, strings, numbers, booleans and None."""
    return "\n".join(_lines(data)) + "\n"


def _lines(data: Any) -> Iterator[str]:
    if isinstance(data, dict) and data:
        for key, value in data.items():
            yield from _entry(f"{_scalar(key)}:", value, "  ")
    elif isinstance(data, list) and data:
        for value in data:
            if isinstance(value, dict | list) and value:
                first, *rest = _lines(value)
                yield f"- {first}"
                yield from (f"  {line}" for line in rest)
            else:
                yield f"- {_scalar(value)}"
    else:
        yield _scalar(data)


def _entry(head: str, value: Any, indent: str) -> Iterator[str]:
    if isinstance(value, dict | list) and value:
        yield head
        yield from (indent + line for line in _lines(value))
    else:
        yield f"{head} {_scalar(value)}"


def _scalar(value: Any) -> str:
    if isinstance(value, str):
        return value if _PLAIN.fullmatch(value) and value.lower() not in _RESERVED else _quoted(value)
    text = json.dumps(value)
    # YAML 1.1 reads 1e-05 as a string: a float needs its point.
    return text.replace("e", ".0e") if isinstance(value, float) and "e" in text and "." not in text else text


def _quoted(value: str) -> str:
    """A JSON string, which is a YAML one too, except that YAML wants what cannot be printed escaped."""
    quoted = json.dumps(value, ensure_ascii=False)
    return "".join(character if character.isprintable() else f"\\U{ord(character):08x}" for character in quoted)
