"""Fields that say nothing of themselves."""

from __future__ import annotations

from typing import Any

from trainjobs.api.described import undescribed


def test_every_field_without_a_description_is_named_at_any_depth() -> None:
    leaf: dict[str, Any] = {"type": "string"}
    told = {"type": "string", "description": "It."}
    schema = {
        "properties": {
            "metadata": {"type": "object"},
            "a": {**told, "properties": {"b": leaf, "c": told}},
            "list": {**told, "items": {"properties": {"d": leaf}}},
            "map": {"additionalProperties": {"properties": {"e": leaf}}},
        }
    }
    assert list(undescribed(schema, "x")) == ["x.a.b", "x.list[].d", "x.map", "x.map[].e"]
