"""The custom resource definitions, made from the pydantic models.

pydantic writes JSON schema 2020-12; Kubernetes wants a structural OpenAPI v3 schema: no `$ref`, a type everywhere, nothing but validations
inside `anyOf`, booleans for exclusive bounds. `structural` translates what both can say and **refuses** the rest, so that a model which the
API server would understand differently fails when the CRD is generated and not on somebody's cluster. It also refuses a string, list or map
without a maximum size, because the API server prices a CEL rule by the largest value that could reach it, and a field of which
`kubectl explain` could say nothing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from trainjobs.api import cel
from trainjobs.api.described import undescribed
from trainjobs.api.job import GROUP, KIND, VERSION, Spec
from trainjobs.api.profile import ProfileSpec
from trainjobs.api.rule import Rule
from trainjobs.api.status import Status
from trainjobs.api.training import OURS
from trainjobs.api.yaml import document

Schema = dict[str, Any]

# Copied unchanged. Everything else is translated by name below, or refused.
_LIMITS = ("minimum", "maximum", "multipleOf", "minLength", "maxLength", "minItems", "maxItems", "maxProperties")
_KEPT = ("type", "description", "pattern", "format", *_LIMITS)
_TRANSLATED = ("$ref", "$defs", "title", "default", "const", "enum", "anyOf", "properties", "required", "items", "additionalProperties")
_BOUNDS = {"exclusiveMinimum": "minimum", "exclusiveMaximum": "maximum"}
# A list of objects that require one of these is a list-map: entries are merged by that key, and the server refuses two of the same.
_LIST_KEYS = ("type", "name")

_COLUMNS = (
    # (name, path below .status, wide only)
    ("Phase", "phase", False),
    ("Progress", "progress.display", False),
    ("Loss", "summary.loss", False),
    ("ETA", "summary.eta", False),
    ("GPUs", "summary.gpus", False),
    ("Restarts", "summary.restarts", False),
    ("Cost", "summary.cost", False),
    ("Reason", "summary.reason", False),
    ("Family", "summary.family", True),
    ("Zero", "summary.zero", True),
    ("Throughput", "summary.throughput", True),
    ("Checkpoint", "summary.checkpoint", True),
)


class NotExpressible(ValueError):
    """A model says something that a structural schema cannot, at the path in the message."""


def structural(model: type[BaseModel]) -> Schema:
    """The structural schema of a model under the names users write."""
    whole = model.model_json_schema(by_alias=True)
    return _converted(whole, whole.get("$defs", {}), model.__name__, ())


def _converted(schema: Schema, definitions: Mapping[str, Schema], path: str, within: tuple[str, ...]) -> Schema:
    unknown = set(schema) - {*_KEPT, *_TRANSLATED, *_BOUNDS}
    if unknown:
        raise NotExpressible(f"{path}: {', '.join(sorted(unknown))}")
    if "$ref" in schema:
        name = schema["$ref"].removeprefix("#/$defs/")
        if name in within:
            raise NotExpressible(f"{path}: {name} contains itself")
        beside = {key: value for key, value in schema.items() if key != "$ref"}
        return _converted({**definitions[name], **beside}, definitions, path, (*within, name))
    if "anyOf" in schema:
        return _union(schema, definitions, path, within)

    out: Schema = {key: schema[key] for key in _KEPT if key in schema}
    for exclusive, bound in _BOUNDS.items():
        if exclusive in schema:
            if bound in schema:
                raise NotExpressible(f"{path}: both {bound} and {exclusive}")
            out |= {bound: schema[exclusive], exclusive: True}
    if "const" in schema:
        out["enum"] = [schema["const"]]
    if "enum" in schema:
        out |= _enumeration(schema["enum"], path)

    match schema.get("type"):
        case "object":
            out |= _object(schema, definitions, path, within)
        case "array":
            if "items" not in schema:
                raise NotExpressible(f"{path}: a list of anything")
            out["items"] = _converted(schema["items"], definitions, f"{path}[]", within)
            out |= _list_type(out["items"])
            _needs(out, "maxItems", path)
        case "string":
            if not {"enum", "format"} & set(out):
                _needs(out, "maxLength", path)
        case "integer" | "number" | "boolean":
            pass
        case None if "enum" in out or "x-kubernetes-int-or-string" in out:
            pass
        case None if not set(schema) - {"title", "description", "default"}:
            out["x-kubernetes-preserve-unknown-fields"] = True
        case other:
            raise NotExpressible(f"{path}: type {other}")
    if schema.get("default") is not None:
        out["default"] = _default(schema["default"])
    return out


def _union(schema: Schema, definitions: Mapping[str, Schema], path: str, within: tuple[str, ...]) -> Schema:
    """T | None is T: the server drops nulls. int | str is int-or-string with the bounds of both, each of which binds only its own type."""
    members = [member for member in schema["anyOf"] if member != {"type": "null"}]
    beside = {key: value for key, value in schema.items() if key != "anyOf"}
    if len(members) == 1:
        return _converted({**members[0], **beside}, definitions, path, within)
    if [member.get("type") for member in members] != ["integer", "string"]:
        raise NotExpressible(f"{path}: a union other than int | str")
    number, text = (_converted(member, definitions, path, within) for member in members)
    bounds = {key: value for key, value in {**number, **text}.items() if key != "type"}
    return {**bounds, **_int_or_string(), **{key: beside[key] for key in ("description", "default") if key in beside}}


def _enumeration(values: list[Any], path: str) -> Schema:
    kinds = {type(value) for value in values}
    if kinds == {str}:
        return {"type": "string", "enum": values}
    if kinds == {int}:
        return {"type": "integer", "enum": values}
    if kinds != {int, str}:
        raise NotExpressible(f"{path}: an enumeration of {', '.join(sorted(kind.__name__ for kind in kinds))}")
    numbers, texts = [value for value in values if type(value) is int], [value for value in values if isinstance(value, str)]
    rule = f"type(self) == int ? self in {json.dumps(numbers)} : self in {json.dumps(texts)}"
    validation = {"rule": rule, "message": f"must be one of {', '.join(map(str, values))}"}
    return {**_int_or_string(), "maxLength": max(map(len, texts)), "x-kubernetes-validations": [validation]}


def _int_or_string() -> Schema:
    return {"x-kubernetes-int-or-string": True, "anyOf": [{"type": "integer"}, {"type": "string"}]}


def _object(schema: Schema, definitions: Mapping[str, Schema], path: str, within: tuple[str, ...]) -> Schema:
    out: Schema = {}
    if "properties" in schema:
        out["properties"] = {name: _converted(inner, definitions, f"{path}.{name}", within) for name, inner in schema["properties"].items()}
        if schema.get("required"):
            out["required"] = schema["required"]
        if schema.get("additionalProperties", False) is not False:
            raise NotExpressible(f"{path}: named fields and a free-form map at once")
    elif schema.get("additionalProperties", True) is True:
        out["x-kubernetes-preserve-unknown-fields"] = True
    elif schema["additionalProperties"] is not False:
        out["additionalProperties"] = _converted(schema["additionalProperties"], definitions, f"{path}.*", within)
        _needs(schema, "maxProperties", path)
    return out


def _list_type(items: Schema) -> Schema:
    key = next((key for key in _LIST_KEYS if key in items.get("required", ()) and "default" not in items["properties"][key]), None)
    return {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": [key]} if key else {}


def _default(default: Any) -> Any:
    """The default with every field spelled out: the server checks it against the rules before it fills in anything. Null is absent."""
    if isinstance(default, dict):
        return {name: _default(value) for name, value in default.items() if value is not None}
    return default


def _needs(out: Schema, limit: str, path: str) -> None:
    if limit not in out:
        raise NotExpressible(f"{path}: no {limit}")


def _with_rules(schema: Schema, rules: tuple[Rule, ...]) -> Schema:
    """Adds each rule at its path. KeyError when there is no such path."""
    for rule in rules:
        at = schema
        for key in rule.keys:
            at = at["properties"][key] if key != "*" else at["items"] if "items" in at else at["additionalProperties"]
        validation = {"rule": rule.cel, "message": f"{rule.code} {rule.message}", **({"fieldPath": f".{rule.field}"} if rule.field else {})}
        at["x-kubernetes-validations"] = [*at.get("x-kubernetes-validations", ()), validation]
    return schema


def _without_defaults(schema: Schema) -> Schema:
    """For the status: were the server to add to what the operator wrote, the operator would see a difference and write again."""
    return {
        key: _without_defaults(value)
        if key == "items"
        else {name: _without_defaults(inner) for name, inner in value.items()}
        if key == "properties"
        else value
        for key, value in schema.items()
        if key != "default"
    }


def _without_our_keys(config: Schema) -> Schema:
    """DeepSpeed's own JSON without the settings that have a field of their own: training.config_is_free, where CEL cannot look."""
    stage = {"required": ["zero_optimization"], "properties": {"zero_optimization": {"required": ["stage"]}}}
    zero = {
        "type": "object",
        "description": "DeepSpeed's settings of ZeRO, but for the stage.",
        "x-kubernetes-preserve-unknown-fields": True,
    }
    return {**config, "properties": {"zero_optimization": zero}, "not": {"anyOf": [*({"required": [key]} for key in OURS), stage]}}


def _definition(
    kind: str, short: str, scope: str, schema: Schema, rules: tuple[Rule, ...], columns: list[Schema], subresources: Schema
) -> Schema:
    if (silent := next(undescribed(schema, kind), None)) is not None:
        raise NotExpressible(f"{silent}: no description")
    plural = kind.lower() + "s"
    version = {
        "name": VERSION,
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": _with_rules(schema, rules)},
        "additionalPrinterColumns": [*columns, {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}],
        **subresources,
    }
    names = {
        "kind": kind,
        "listKind": f"{kind}List",
        "plural": plural,
        "singular": kind.lower(),
        "shortNames": [short],
        "categories": ["gentrain"],
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{GROUP}"},
        "spec": {"group": GROUP, "names": names, "scope": scope, "versions": [version]},
    }


def _root(description: str, properties: Schema) -> Schema:
    standing = {
        "apiVersion": {"type": "string", "description": "Group and version of this definition."},
        "kind": {"type": "string", "description": "Name of this definition."},
        "metadata": {"type": "object"},  # the server's own, of which it lets nobody say more
    }
    return {"type": "object", "description": description, "properties": {**standing, **properties}, "required": ["spec"]}


def job_definition() -> Schema:
    """The CustomResourceDefinition of GenerativeTrainingJob."""
    spec = {**structural(Spec), "description": "What to train, and how. Everything here may also be run by `gtj run`."}
    deepspeed = spec["properties"]["deepspeed"]["properties"]
    deepspeed["config"] = _without_our_keys(deepspeed["config"])
    status = {**_without_defaults(structural(Status)), "description": "What the operator sees. Programs read the conditions."}
    schema = _root("Trains one generative model.", {"spec": spec, "status": status})
    columns = [
        {"name": name, "type": "string", "jsonPath": f".status.{path}", **({"priority": 1} if wide else {})}
        for name, path, wide in _COLUMNS
    ]
    return _definition(KIND, "gtj", "Namespaced", schema, cel.RULES, columns, {"subresources": {"status": {}}})


def profile_definition() -> Schema:
    """The CustomResourceDefinition of ComputeProfile."""
    spec = {**structural(ProfileSpec), "description": "What the nodes look like and what a job's pods need to run on them."}
    columns = [
        {"name": name, "type": kind, "jsonPath": f".spec.{path}"}
        for name, kind, path in (
            ("Provider", "string", "provider"),
            ("Accelerator", "string", "accelerator.type"),
            ("Per-Node", "integer", "accelerator.perNode"),
            ("Capacity", "string", "capacity"),
        )
    ]
    schema = _root("A pool of nodes that jobs may run on.", {"spec": spec})
    return _definition("ComputeProfile", "cprof", "Cluster", schema, cel.PROFILE_RULES, columns, {})


def definitions() -> dict[str, Schema]:
    """Both definitions, by file name."""
    both = (job_definition(), profile_definition())
    return {f"{GROUP}_{definition['spec']['names']['plural']}.yaml": definition for definition in both}


def texts() -> dict[str, str]:
    """Both definitions as YAML, by file name."""
    head = "# Generated from trainjobs/api by `make generate`. Do not edit.\n"
    return {name: head + document(definition) for name, definition in definitions().items()}


def write(folder: Path) -> list[Path]:
    """Writes both definitions into `folder`; the files, in order of name."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in texts().items():
        (folder / name).write_text(text, encoding="utf-8")
    return [folder / name for name in sorted(texts())]
