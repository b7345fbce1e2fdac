"""JSON on its way: what is left out of what comes, and how what goes is spelled."""

from __future__ import annotations

import json
import re

from gentrain_operator.kube.resource import Object


def without_managed_fields(data: bytes) -> bytes:
    """JSON in which the lists called managedFields are empty. There are no lists within them (FieldsV1 is made of mappings), so the first
    bracket outside a string ends them; were there one, what is left would be no JSON."""
    if b"\\\\" in data:
        return data  # with escaped backslashes, which quotes are escaped is no longer to be seen at a glance
    parts, at = [], 0
    for found in re.finditer(rb'"managedFields":\s*\[', data):
        begin = end = found.end()
        if begin < at or data[found.start() - 1 : found.start()] == b"\\":  # within one of them; the end of a longer name
            continue
        quotes = 0
        while True:
            before, end = end, data.find(b"]", end)
            if end < 0:
                return data
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
