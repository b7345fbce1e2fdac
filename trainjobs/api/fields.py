"""The small types every model of the job is made of: the base model, names, URIs, durations.

Limits are part of the types. Kubernetes prices a CEL rule by the largest value that could reach it, so every
string, list and map that a user writes has a maximum size here, and the same maximum stands in the CRD.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, GetJsonSchemaHandler
from pydantic.alias_generators import to_camel
from pydantic.json_schema import JsonSchemaValue

from trainjobs.api.only import described, effects


class Model(BaseModel):
    """A part of the manifest: camelCase outside, snake_case inside, frozen, unknown fields refused."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        extra="forbid",
        frozen=True,
        populate_by_name=True,
        protected_namespaces=(),
    )

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: Any, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """pydantic's schema, in which a field that has an effect only sometimes says when."""
        schema = handler(core_schema)
        properties = handler.resolve_ref_schema(schema).get("properties", {})
        for effect in effects(cls):
            properties[effect.name]["description"] = described(effect, properties[effect.name].get("description", ""))
        return schema


DNS_LABEL = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"
DNS_SUBDOMAIN = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"

ObjectName = Annotated[str, Field(min_length=1, max_length=253, pattern=DNS_SUBDOMAIN)]
LabelName = Annotated[str, Field(min_length=1, max_length=63, pattern=DNS_LABEL)]
Identifier = Annotated[str, Field(min_length=1, max_length=63, pattern=r"^[A-Za-z_][A-Za-z0-9_.-]*$")]

ImageName = Annotated[str, Field(min_length=1, max_length=512, pattern=r"^[!-~]+$")]
LabelText = Annotated[str, Field(max_length=63, pattern=r"^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$")]

# No user info, no query, no fragment, no "..": those are rules (uris.py), whose messages can say which.
DataUri = Annotated[str, Field(min_length=1, max_length=1024, pattern=r"^(file://|s3://|gs://|az://|hf://|builtin:).+$")]
StoreUri = Annotated[str, Field(min_length=1, max_length=1024, pattern=r"^(file://|s3://|gs://|az://).+$")]

# Go's duration syntax, whole units only: 30m, 1h30m, 45s.
Duration = Annotated[str, Field(min_length=2, max_length=32, pattern=r"^([0-9]+h)?([0-9]+m)?([0-9]+s)?$")]

DecimalString = Annotated[str, Field(max_length=32, pattern=r"^[0-9]+(\.[0-9]+)?$")]


def seconds(duration: str) -> int:
    """The length of a `Duration` in seconds: `seconds("1h30m") == 5400`."""
    total, digits = 0, ""
    for character in duration:
        if character.isdigit():
            digits += character
        else:
            total += int(digits) * {"h": 3600, "m": 60, "s": 1}[character]
            digits = ""
    return total


PositiveInt = Annotated[int, Field(ge=1, le=2**31 - 1)]


Width = Annotated[int, Field(ge=1, le=4096)]
