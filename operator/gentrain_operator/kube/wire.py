"""JSON on its way: how it is read and written, what is left out of what comes, and how what goes is spelled.

pydantic's reader and writer take a half and a third of the time of Python's, which is most of an operator's start where ten thousand jobs
stand. What they refuse and Python's do not (half of a character beyond 16 bits, more depth) goes through Python's.
"""

from __future__ import annotations

import json
import re
from typing import Any

from pydantic_core import from_json, to_json

from gentrain_operator.kube.resource import Object

_MANAGED = b'"managedFields":'


def read(data: bytes) -> Any:
    """What json.loads makes of it; ValueError for what is no JSON. A lone half of a character may stand in it by itself, as `packed` writes
    it."""
    try:
        return from_json(data, cache_strings="keys")
    except ValueError:
        return json.loads(data.decode("utf-8", "surrogatepass"))


def packed(obj: Object) -> bytes:
    """The least JSON of it, which `read` reads again."""
    try:
        return to_json(obj)
    except ValueError:
        return json.dumps(obj, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")


def read_lean(data: bytes) -> Any:
    """What `read` makes of it, without managedFields: to leave them out as text takes a tenth of the time that it takes to read them.

    At a glance is enough mostly. A bracket within a string that was taken for the end leaves an odd number of quotes, or the name of the
    next managedFields outside of any, and that is no JSON.
    """
    for glance in (True, False):
        try:
            return read(without_managed_fields(data, glance=glance))
        except ValueError:
            continue
    return read(data)


def without_managed_fields(data: bytes, *, glance: bool = False) -> bytes:
    """JSON in which the lists called managedFields are empty. There are no lists within them (FieldsV1 is made of mappings), so the first
    bracket outside a string ends them; were there one, what is left would be no JSON. At a `glance`, the first bracket."""
    if not glance and b"\\\\" in data:
        return data  # with escaped backslashes, which quotes are escaped is no longer to be seen at a glance
    parts, at, found = [], 0, -1
    while (found := data.find(_MANAGED, found + 1)) >= 0:
        end = found + len(_MANAGED)
        while data[end : end + 1].isspace():
            end += 1
        # Within one of them; the end of a longer name; no list.
        if found < at or data[found - 1 : found] == b"\\" or data[end : end + 1] != b"[":
            continue
        begin = end = end + 1
        quotes = 0
        while True:
            before, end = end, data.find(b"]", end)
            if end < 0:
                return data
            if glance:
                break
            quotes += data.count(b'"', before, end) - data.count(b'\\"', before, end)
            if quotes % 2 == 0:
                break
            end += 1
        parts.append(data[at:begin])
        at = end
    return b"".join([*parts, data[at:]])


def as_yaml(body: Object) -> bytes:
    """JSON that a reader of YAML takes as well: there an escape is a whole character, so a character beyond 16 bits, which JSON escapes in
    two halves, has to stand as itself; others do as an escape, because YAML takes some of them in no other way."""
    text = json.dumps(body, ensure_ascii=False)
    return re.sub("[\x7f-\uffff]", lambda found: f"\\u{ord(found[0]):04x}", text).encode()
