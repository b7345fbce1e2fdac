"""The JSON schema of manifests, for editors: draft 2020-12, made from the models."""

from __future__ import annotations

import json
from typing import Any

from trainjobs.api.job import API_VERSION, FAMILIES, KIND, Job

DRAFT = "https://json-schema.org/draft/2020-12/schema"


def json_schema() -> dict[str, Any]:
    """What editors complete and check. It cannot say every rule; `gtj validate` does."""
    schema = untitled(Job.model_json_schema(by_alias=True, mode="validation"))
    spec = schema["$defs"]["Spec"]
    # null stands for "not given" in Python only: a manifest leaves the key out.
    spec["oneOf"] = [{"required": [family]} for family in FAMILIES]
    for definition in (*schema["$defs"].values(), schema):
        for name, field in definition.get("properties", {}).items():
            definition["properties"][name] = without_null(field)
    schema["properties"]["status"] = {"type": "object", "description": "Written by the operator; ignored in a manifest."}
    return {"$schema": DRAFT, "title": f"{KIND} ({API_VERSION})", **schema}


def schema_text() -> str:
    return json.dumps(json_schema(), indent=2) + "\n"


def untitled(part: Any, names: bool = False) -> Any:
    """Without the titles that pydantic derives from names, which editors show before the description. `names`: keys are fields' names."""
    if isinstance(part, list):
        return [untitled(item) for item in part]
    if not isinstance(part, dict):
        return part
    return {
        key: untitled(value, names=key in ("properties", "$defs") and not names) for key, value in part.items() if names or key != "title"
    }


def without_null(field: dict[str, Any]) -> dict[str, Any]:
    choices = [choice for choice in field.get("anyOf", []) if choice != {"type": "null"}]
    rest = {key: value for key, value in field.items() if key != "anyOf" and not (key == "default" and value is None)}
    if not choices:
        return rest
    return {**choices[0], **rest} if len(choices) == 1 else {"anyOf": choices, **rest}
