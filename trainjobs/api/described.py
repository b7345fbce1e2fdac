"""Fields of a definition of which `kubectl explain` could say nothing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


def undescribed(schema: dict[str, Any], path: str) -> Iterator[str]:
    """The path of every field without a description, but for metadata, of which the server lets nobody say anything."""
    for name, inner in schema.get("properties", {}).items():
        if not inner.get("description") and name != "metadata":
            yield f"{path}.{name}"
        yield from undescribed(inner, f"{path}.{name}")
    for below in (schema.get("items"), schema.get("additionalProperties")):
        if isinstance(below, dict):
            yield from undescribed(below, f"{path}[]")
