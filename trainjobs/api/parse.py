"""From plain data to a checked Job: every problem at once, in the user's words.

pydantic judges fields one by one; `rules.check` judges how they go together. When fields are wrong, the rules still run on the rest of the
manifest: the wrong fields are left out, and what a rule says about a field that was left out is dropped.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from trainjobs.api import uris
from trainjobs.api.fields import DNS_LABEL, DNS_SUBDOMAIN
from trainjobs.api.foreign_names import ours
from trainjobs.api.job import API_VERSION, KIND, Job
from trainjobs.api.problem import Problem, did_you_mean, listed, plain
from trainjobs.api.profile import Profile
from trainjobs.api.rules import check, check_profile
from trainjobs.api.shape import Path, annotation_at, dotted, element, fields, is_list, literals, members, model_of, walk

M = TypeVar("M", bound="Any")

KINDS = {dict: "a mapping", list: "a list", str: "a string", bool: "a boolean", int: "an integer", float: "a number", type(None): "empty"}

# What a string must look like, in words, by the end of its pattern; the pattern itself helps nobody.
PATTERNS: dict[str, str] = {
    r"^(file://|s3://|gs://|az://|hf://|builtin:).+$": "a URI: file:///folder, s3://, gs://, az://, hf:// or builtin:digits",
    r"^(file://|s3://|gs://|az://).+$": "a URI: file:///folder, s3://, gs:// or az://",
    r"^(latest|none|(file://|s3://|gs://|az://).+)$": "latest, none, or a checkpoint's URI",
    r"^[1-9][0-9]*-[1-9][0-9]*$": 'a number, or a range "min-max" such as "2-8"',
    r"^([0-9]+h)?([0-9]+m)?([0-9]+s)?$": "a duration such as 30m, 1h30m or 45s",
    r"^[0-9]+(\.[0-9]+)?$": 'a decimal number in quotes, such as "12.50"',
    r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$": "an import path such as package.module:build",
    DNS_LABEL: "lower-case letters, digits and dashes, beginning and ending with a letter or digit",
    DNS_SUBDOMAIN: "lower-case letters, digits, dashes and dots, beginning and ending with a letter or digit",
    r"^[A-Za-z_][A-Za-z0-9_.-]*$": "a letter or underscore, then letters, digits, dots, dashes and underscores",
    r"^[A-Za-z_][A-Za-z0-9_]*$": "a letter or underscore, then letters, digits and underscores",
    r"^/.+$": "an absolute path",
    r"^[!-~]+$": "the name of an image, without spaces",
}
# What stands in for a required field that was left out.
STAND_INS: dict[tuple[str, ...], Any] = {
    ("apiVersion",): API_VERSION,
    ("kind",): KIND,
    ("metadata", "name"): "job",
    ("spec", "data", "source"): "hf://left/out",
    ("spec", "training", "steps"): 1,
}
BOUNDS = {"ge": "at least", "gt": "more than", "le": "at most", "lt": "less than", "min_length": "at least", "max_length": "at most"}


def parse(data: Any) -> tuple[Job | None, list[Problem]]:
    """The job, and everything wrong with it. The job is None when a field is wrong; it may be there with problems of the rules."""
    job, problems = validated(data, Job)
    if job is not None:
        return job, check(job)
    repaired, _ = validated(completed(without(data, [problem.path for problem in problems])), Job)
    if repaired is None:
        return None, problems
    return None, problems + [problem for problem in check(repaired) if not any(related(problem, wrong) for wrong in problems)]


def parse_profile(data: Any) -> tuple[Profile | None, list[Problem]]:
    """The same of a ComputeProfile, whose metadata is Kubernetes' own; its rules are asked once every field is right."""
    content = {key: value for key, value in data.items() if key != "metadata"} if isinstance(data, dict) else data
    profile, problems = validated(content, Profile)
    return profile, problems if profile is None else check_profile(profile)


def validated(data: Any, model: type[M]) -> tuple[M | None, list[Problem]]:
    """`data` as a model, fields only: no rules. Names are the manifest's (camelCase) and nothing is converted, as on the API server."""
    problems = list(misread(data, model, ()))
    try:
        parsed = model.model_validate(data, strict=True, by_alias=True, by_name=False)
    except ValidationError as error:
        problems += translated(error.errors(include_url=False), data, model)
        parsed = None
    unique = list({(problem.path, problem.code): problem for problem in reversed(problems)}.values())[::-1]
    return (None if unique else parsed), unique


def misread(data: Any, annotation: Any, path: Path) -> Iterator[Problem]:
    """What pydantic would let pass and the API server would not: empty values, and booleans where a number of a list is allowed."""
    model, item = model_of(annotation), element(annotation)
    if data is None and path and (model or item):
        how = f"delete the line, or write `{path[-1]}: {'[]' if is_list(annotation) else '{}'}`"
        yield Problem("GTJ0105", path, f"{dotted(path)} is empty", "a key without a value means null, not the defaults", how)
    elif isinstance(data, bool) and literals(annotation):
        yield not_allowed(path, data, annotation)
    elif isinstance(data, dict) and model:
        for name, info in fields(model).items():
            if name in data:
                yield from misread(data[name], info.annotation, (*path, name))
    elif isinstance(data, dict) and item:
        for name, value in data.items():
            yield from misread(value, item, (*path, name))
    elif isinstance(data, list) and item:
        for index, value in enumerate(data):
            yield from misread(value, item, (*path, index))


def origin(annotation: Any) -> Any:
    return getattr(annotation, "__origin__", annotation)


def translated(errors: Sequence[ErrorDetails], data: Any, model: type[Any]) -> Iterator[Problem]:
    """pydantic's errors in our words. The alternatives of a union report one error each; the one whose type fits speaks for all."""
    by_path: dict[Path, ErrorDetails] = {}
    for error in errors:
        path = located(error["loc"], data, missing=error["type"] == "missing")
        if path not in by_path or not error["type"].endswith("_type"):
            by_path[path] = error
    for path, error in by_path.items():
        yield translation(error, path, model)


def located(loc: Sequence[str | int], data: Any, missing: bool) -> Path:
    """The manifest path of pydantic's location, which also names the alternatives of unions ("constrained-int") and "[key]"."""
    path: list[str | int] = []
    current = data
    for key in loc[:-1] if missing else loc:
        if holds(current, key):
            path.append(key)
            current = current[key]
    return (*path, loc[-1]) if missing else tuple(path)


def holds(data: Any, key: str | int) -> bool:
    """Whether `data[key]` exists."""
    if isinstance(data, list):
        return isinstance(key, int) and key < len(data)
    return isinstance(data, dict) and key in data


def translation(error: ErrorDetails, path: Path, model: type[Any]) -> Problem:
    kind, given, ctx = error["type"], error["input"], error.get("ctx", {})
    name = dotted(path)
    if kind == "extra_forbidden":
        return unknown_field(path, model)
    if kind == "missing":
        parent = dotted(path[:-1]) or "the manifest"
        return Problem("GTJ0105", path, f'missing field "{path[-1]}" in {parent}', how=example(path), on_key=True)
    if kind == "literal_error":
        return not_allowed(path, given, annotation_at(model, path))
    if kind == "string_pattern_mismatch":
        if literals(annotation_at(model, path)):
            return not_allowed(path, given, annotation_at(model, path))
        wanted = PATTERNS.get(ctx["pattern"], f"text like {ctx['pattern']}")
        how = f"write {uri}" if "file://" in ctx["pattern"] and (uri := uris.meant(given)) else ""
        return Problem("GTJ0102", path, f"{shown(given)} is not allowed for {name}", f"expected {wanted}", how)
    for bound, words in BOUNDS.items():
        if bound in ctx:
            unit = " characters" if kind.startswith("string") else " entries" if kind.startswith("too_") else ""
            return Problem("GTJ0102", path, f"{shown(given)} is not allowed for {name}", f"expected {words} {ctx[bound]}{unit}")
    return wrong_type(path, given, annotation_at(model, path), error["msg"])


def unknown_field(path: Path, model: type[Any]) -> Problem:
    key, parent = str(path[-1]), annotation_at(model, path[:-1])
    holder = model_of(parent)
    known = list(fields(holder)) if holder else []
    elsewhere = [dotted(field.path[:-1]) for field in walk(model) if field.path[-1] == key]
    own = elsewhere or any(plain(key) == plain(name) for name in known)  # spelt as we do, or nearly
    how = "" if own else ours(key)
    how = how or did_you_mean(key, known)
    if not how:
        how = f"{key} is a field of {listed(elsewhere)}" if elsewhere else f"fields here: {', '.join(known)}"
    return Problem("GTJ0101", path, f'unknown field "{key}" in {dotted(path[:-1]) or "the manifest"}', how=how, on_key=True)


def not_allowed(path: Path, given: Any, annotation: Any) -> Problem:
    allowed = literals(annotation)
    how = did_you_mean(given, [value for value in allowed if isinstance(value, str)]) if isinstance(given, str) else ""
    return Problem("GTJ0102", path, f"{shown(given)} is not allowed for {dotted(path)}", f"allowed: {', '.join(map(str, allowed))}", how)


def wrong_type(path: Path, given: Any, annotation: Any, message: str) -> Problem:
    wanted = [KINDS.get(origin(member), "a mapping" if model_of(member) else "") for member in members(annotation)] if annotation else []
    expected = listed(dict.fromkeys(word for word in wanted if word)) if any(wanted) else message
    how = ""
    if isinstance(given, str) and re.fullmatch(r"[-+]?[0-9.]+(e[-+]?[0-9]+)?", given) and {"an integer", "a number"} & set(wanted):
        how = "take the quotes away"
    elif isinstance(given, bool) and wanted == ["a string"]:
        how = "yes, no, on, off, y and n are booleans in YAML: put quotes around it"
    elif isinstance(given, int | float) and wanted == ["a string"]:
        how = f'put quotes around it: "{given}"'
    elif isinstance(given, str) and wanted == ["a list"]:
        how = f"write [{given}]"
    what = f"{dotted(path) or 'the manifest'} must be {expected}, not {KINDS.get(type(given), type(given).__name__)}"
    return Problem("GTJ0105", path, what, how=how)


def shown(given: Any) -> str:
    """A value in a message: quoted when text, YAML's words for booleans, shortened when long."""
    text = f'"{given}"' if isinstance(given, str) else str(given).lower() if isinstance(given, bool) else str(given)
    return text if len(text) <= 80 else text[:77] + "..."


def example(path: Path) -> str:
    examples = {
        ("apiVersion",): "add `apiVersion: gentrain.dev/v1alpha1`",
        ("kind",): "add `kind: GenerativeTrainingJob`",
        ("metadata",): "add `metadata: {name: my-job}`",
        ("metadata", "name"): "add `name: my-job`",
        ("spec", "data"): "add `data: {source: builtin:digits}`",
        ("spec", "data", "source"): "add `source: builtin:digits`",
        ("spec", "training"): "add `training: {steps: 1000}`",
        ("spec", "training", "steps"): "add `steps: 1000`",
    }
    return examples.get(tuple(str(key) for key in path), "")


def without(data: Any, paths: Sequence[Path]) -> Any:
    """A copy of the data without the values at the paths; list items take their whole list along, so that indices stay true."""
    rest = copy.deepcopy(data)
    for path in paths:
        while path and isinstance(path[-1], int):
            path = path[:-1]
        current = rest
        for key in path[:-1]:
            current = current[key] if holds(current, key) else None
        if path and isinstance(current, dict):
            current.pop(path[-1], None)
    return rest


def completed(data: Any) -> Any:
    """The data with something harmless in every required place that is empty, so that the rules can look at the rest."""
    for path, value in STAND_INS.items():
        current = data
        for key in path[:-1]:
            current = current.setdefault(key, {}) if isinstance(current, dict) else None
        if isinstance(current, dict):
            current.setdefault(path[-1], value)
    return data


def related(problem: Problem, wrong: Problem) -> bool:
    """Whether a rule's problem may be no more than an echo of a field that was left out."""
    if problem.code == "GTJ0106":
        return len(wrong.path) <= 2 and wrong.path[:1] in ((), ("spec",))
    if problem.code == "GTJ0108" and wrong.path[:2] == ("spec", "data"):
        return True
    shorter = min(len(problem.path), len(wrong.path))
    return problem.path[:shorter] == wrong.path[:shorter]
