"""`--set training.steps=10`: a change to the manifest from the command line, checked like the manifest itself."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

from trainjobs.api.job import Job, Spec
from trainjobs.api.problem import Problem, did_you_mean, listed
from trainjobs.api.shape import Path, annotation_at, dotted, element, fields, is_list, model_of, walk
from trainjobs.cli.positions import documents

TOP = ("apiVersion", "kind", "metadata", "spec")


class Refused(Exception):
    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.what)
        self.problem = problem


def overridden(data: Any, sets: Sequence[str]) -> tuple[Any, dict[Path, str], list[tuple[str, Problem]]]:
    """The data with every change applied, the paths changed and by what, and the changes refused and why."""
    changed: dict[Path, str] = {}
    refused: list[tuple[str, Problem]] = []
    for given in sets:
        origin = f"--set {given}"
        try:
            path, value = parsed(given)
            data = override(data, path, value)
            changed[full(path)] = origin
        except Refused as error:
            refused.append((origin, error.problem))
    return data, changed, refused


def parsed(given: str) -> tuple[str, Any]:
    """("training.steps", 10) of "training.steps=10". The value is YAML, such as 10, [a, b] or {a: b}; nothing at all removes the field."""
    path, equals, text = given.partition("=")
    if not equals or not path.strip():
        raise Refused(Problem("GTJ0105", (), "--set takes path=value", how="write it like --set training.steps=100"))
    if not text.strip():
        return path.strip(), None
    found = list(documents(text))
    if len(found) > 1 or (found and found[0].problems):
        why = found[0].problems[0][1].why if found[0].problems else "it holds several documents"
        raise Refused(Problem("GTJ0105", full(path.strip()), f"{text} is not a value", why))
    return path.strip(), found[0].data if found else None


def override(data: Any, path: str, value: Any) -> Any:
    """A copy of the manifest with one value changed; None removes it. "training.steps" and "spec.training.steps" mean the same.

    Refused when nothing may stand at that path.
    """
    keys = full(path)
    if annotation_at(Job, keys) is None and not free(keys):
        raise Refused(unknown(keys))
    rest = copy.deepcopy(data)
    current = rest
    for depth, key in enumerate(keys[:-1]):
        if isinstance(current, list):
            current = item(current, key, keys[: depth + 1])
            continue
        if not isinstance(current, dict):
            raise Refused(Problem("GTJ0105", keys, f"{dotted(keys[:depth])} holds no fields in the manifest"))
        if current.get(str(key)) is None:
            if value is None:
                return rest
            current[str(key)] = {}
        current = current[str(key)]
    last = keys[-1]
    if isinstance(current, list):
        item(current, last, keys)
        current[int(last)] = value
    elif not isinstance(current, dict):
        raise Refused(Problem("GTJ0105", keys, f"{dotted(keys[:-1])} holds no fields in the manifest"))
    elif value is None:
        current.pop(str(last), None)
    else:
        current[str(last)] = value
    return rest


def item(values: list[Any], key: str | int, path: Path) -> Any:
    if not isinstance(key, int) or key >= len(values):
        raise Refused(Problem("GTJ0105", path, f"{dotted(path[:-1])} is a list of {len(values)}", how="items count from 0"))
    return values[key]


def full(path: str) -> Path:
    """The keys of a path from the top of the manifest; numbers are indices of lists."""
    keys: list[str | int] = []
    for part in path.replace("[", ".").replace("]", "").split("."):
        holder = annotation_at(Job, full_prefix(keys))
        keys.append(int(part) if part.isdecimal() and is_list(holder) else part)
    return full_prefix(keys)


def full_prefix(keys: Sequence[str | int]) -> Path:
    return tuple(keys) if keys and keys[0] in TOP else ("spec", *keys)


def free(path: Path) -> bool:
    """Whether the path leads into a map that takes anything: deepspeed.config, custom.options."""
    return any(element(annotation_at(Job, path[:depth])) is Any for depth in range(1, len(path)))


def unknown(path: Path) -> Problem:
    depth = next(depth for depth in range(1, len(path) + 1) if annotation_at(Job, path[:depth]) is None)
    key, holder = str(path[depth - 1]), model_of(annotation_at(Job, path[: depth - 1]) or Job)
    how = did_you_mean(key, fields(holder)) if holder else ""
    if not how:
        elsewhere = sorted((field.path for field in walk(Spec) if field.path[-1] == path[-1] and "*" not in field.path), key=len)
        how = (
            f"did you mean {listed(map(dotted, elsewhere))}?"
            if elsewhere
            else f"fields here: {', '.join(fields(holder))}"
            if holder
            else ""
        )
    return Problem("GTJ0101", path[:depth], f'unknown field "{key}" in {dotted(path[: depth - 1]) or "the manifest"}', how=how, on_key=True)
