"""For every field of a manifest another value, derived from its type: what is changed between two attempts of a run.

The models are walked, so a field that is new is in the list by itself; what no value can be derived for is told, and fails the campaign.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from trainjobs.api.job import FAMILIES, Job
from trainjobs.api.parse import parse
from trainjobs.api.shape import Field, element, fields, is_list, literals, members, model_of, walk

# Of text, some of each form that a field may ask for; each is tried until one fits.
TEXTS = ("other", "/other", "45m", "12.50", "1-2", "other:build", "OTHER", "file:///tmp/other", "heldout/perplexity", "modes/quality")
Manifest = dict[str, Any]


@dataclass(frozen=True)
class Change:
    """A manifest of which one field has another value than in `base`; with it `names`, the leaves that differ, dotted, without `spec.`."""

    field: str
    base: str
    manifest: Manifest
    names: Mapping[str, tuple[Any, Any]]


def fields_of(root: type[BaseModel] = Job, family: str | None = None) -> list[Field]:
    """The fields that hold a value, and the parts that may be left out, of a job of one family, or of all."""
    others = {name for name in FAMILIES if name != family} if family else set()
    return [
        field
        for field in walk(root)
        if (not holds_model(field.annotation) or (optional(field.annotation) and model_of(field.annotation)))
        and not (len(field.path) > 1 and field.path[1] in others)
        and field.path[1:] not in {(name,) for name in FAMILIES}
    ]


def holds_model(annotation: Any) -> bool:
    """Whether it is a part with fields of its own, or a list or a map of such."""
    while model_of(annotation) is None and (inner := element(annotation)) is not None:
        annotation = inner
    return model_of(annotation) is not None


def optional(annotation: Any) -> bool:
    parts = get_args(annotation) if get_origin(annotation) is not Literal else ()
    return type(None) in parts or any(optional(part) for part in parts)


def single(annotation: Any) -> bool:
    """Whether there is but one value that it may have."""
    return len(literals(annotation)) == 1 == len(members(annotation))


def change(field: Field, bases: Mapping[str, Manifest], given: Mapping[str, Any]) -> Change | str:
    """A change of the field that leaves a manifest valid, the first of this field alone if there is one, else why there is
    none. `given` has values, by base, to take instead."""
    why, fallback = "no value could be derived from its type", None
    for name, base in bases.items():
        plain = dumped(base)
        for manifest in changed(plain, Job, field.path, given.get(name, given.get(""))):
            job, problems = parse(manifest)
            if problems or job is None:
                why = problems[0].error().line() if problems else why
                continue
            found = Change(dotted(field.path), name, manifest, different(plain, dumped(manifest)))
            if not any(concerns(field.path, leaf) for leaf in found.names):
                continue
            if len(found.names) == 1:
                return found
            fallback = fallback or found
    return fallback or why


def concerns(path: tuple[str, ...], leaf: str) -> bool:
    """Whether a leaf is the field, lies below it, or is the list that holds it."""
    keys = leaf.split(".")
    ours = [key for key in path if key != "spec"]
    return all(our in ("*", key) for our, key in zip(ours, keys, strict=False)) and (len(keys) >= len(ours) or "*" in ours[len(keys) :])


def dotted(path: tuple[str, ...]) -> str:
    return ".".join(path).removeprefix("spec.")


def dumped(manifest: Manifest) -> Manifest:
    """The manifest with every default written out."""
    found: Manifest = Job.model_validate(manifest).model_dump(mode="json", by_alias=True, exclude_none=True)
    return found


def different(old: Any, new: Any) -> dict[str, tuple[Any, Any]]:
    """The leaves that differ, with both values."""
    before, after = dict(leaves(old)), dict(leaves(new))
    return {name: (before.get(name), after.get(name)) for name in {**before, **after} if before.get(name) != after.get(name)}


def leaves(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from leaves(inner, (*path, key))
    else:
        yield dotted(path), value


def changed(node: Any, annotation: Any, path: tuple[str, ...], given: Any = None) -> Iterator[Any]:
    """Every way to give the field at `path` below a node another value; a part that may be left out is also begun anew for it."""
    if not path:
        yield from [given] if given is not None else candidates(annotation, node)
        return
    key, rest = path[0], path[1:]
    if key == "*" and is_list(annotation):
        items = node or []
        for index, item in enumerate(items):
            yield from ([*items[:index], new, *items[index + 1 :]] for new in changed(item, element(annotation), rest, given))
        yield from ([*items, new] for new in changed(None, element(annotation), rest, given))
    elif key == "*":
        for name in (*(node or {}), "default"):
            yield from ({**(node or {}), name: new} for new in changed((node or {}).get(name), element(annotation), rest, given))
    else:
        model = model_of(annotation)
        assert model is not None
        for have in ([node] if node is not None else []) + ([minimal(model)] if node is None or optional(annotation) else []):
            now = have.get(key) if have is node else None  # what was made up to fill a place is no value that is to be changed
            for new in changed(now, whole(fields(model)[key]), rest, given):
                yield {**have, key: new} if new is not None else {name: value for name, value in have.items() if name != key}


def minimal(model: type[BaseModel]) -> dict[str, Any]:
    """The required fields of a part, each with the first value that it may have."""
    required = {name: whole(info) for name, info in fields(model).items() if info.is_required()}
    return {name: next(candidates(annotation, None), None) for name, annotation in required.items()}


def whole(info: FieldInfo) -> Any:
    """The field's type with its bounds."""
    return Annotated[info.annotation, *info.metadata] if info.metadata else info.annotation


def candidates(annotation: Any, now: Any) -> Iterator[Any]:
    """Other values of a type than `now`, of which those that are outside its bounds are left out."""
    fits = TypeAdapter(annotation)
    for value in proposed(annotation, now):
        try:
            fits.validate_python(copy.deepcopy(value), strict=True)
        except ValidationError:
            continue
        if value != now or isinstance(value, bool) != isinstance(now, bool):
            yield value


def proposed(annotation: Any, now: Any) -> Iterator[Any]:
    yield from literals(annotation)
    for member in members(annotation):
        if member is bool:
            yield not now
        elif member in (int, float) and not literals(annotation):
            number = now if isinstance(now, int | float) else None
            if number is not None:
                yield from (number * 2, number + 1, number / 2 if member is float else number // 2, number - 1)
            yield from (0.5, 0.25, 2.0) if member is float else (2, 4, 8, 300)
        elif member is str:
            yield from TEXTS
        elif is_list(member):
            yield from listed(member, now or [])
        elif get_origin(member) is dict:
            yield from ({**(now or {}), "other": value} for value in proposed(element(member), None))
        elif member is Any:
            yield 1
        elif model_of(member) is not None and now is None:
            yield minimal(member)
    if optional(annotation) and now is not None:
        yield None


def listed(annotation: Any, now: list[Any]) -> Iterator[list[Any]]:
    """One item more, one other, one less."""
    items = list(dict.fromkeys(value for item in [*now, None] for value in candidates(element(annotation), item)))
    yield from ([*now, value] for value in items)
    yield from ([*now[:index], value, *now[index + 1 :]] for index in range(len(now)) for value in items)
    yield now[:-1]


def names_in(message: str, names: Iterator[str] | list[str]) -> set[str]:
    """Those of the dotted names that a line tells of."""
    return {name for name in names if re.search(rf"(?<![\w.])(?:spec\.)?{re.escape(name)}(?![\w.]*\w)", message)}
