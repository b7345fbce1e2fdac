"""What may stand where in a manifest: walks the models by the keys a user writes."""

from __future__ import annotations

import types
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

Path = tuple[str | int, ...]


@dataclass(frozen=True)
class Field:
    """One field of one model, its holder: `path` as users write it, "*" for a key of a map or an index of a list."""

    path: tuple[str, ...]
    info: FieldInfo
    annotation: Any
    holder: type[BaseModel]


def members(annotation: Any) -> tuple[Any, ...]:
    """The alternatives of a type, without Annotated and without None: int for `Annotated[int, ...] | None`."""
    if get_origin(annotation) is Annotated:
        return members(get_args(annotation)[0])
    if get_origin(annotation) in (Union, types.UnionType):
        return tuple(inner for part in get_args(annotation) for inner in members(part) if inner is not type(None))
    return (annotation,)


def is_model(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def element(annotation: Any) -> Any | None:
    """The type of a list's items or a map's values; None for anything else."""
    for member in members(annotation):
        if get_origin(member) is list:
            return get_args(member)[0]
        if get_origin(member) is dict:
            return get_args(member)[1]
    return None


def is_list(annotation: Any) -> bool:
    return any(get_origin(member) is list for member in members(annotation))


def model_of(annotation: Any) -> type[BaseModel] | None:
    """The model an annotation holds, if it holds one."""
    return next((member for member in members(annotation) if is_model(member)), None)


@cache
def fields(model: type[BaseModel]) -> dict[str, FieldInfo]:
    """The fields of a model under the names users write (camelCase)."""
    return {info.alias or name: info for name, info in model.model_fields.items()}


@cache
def attributes(model: type[BaseModel]) -> dict[str, str]:
    """The names of a model's attributes by the names users write."""
    return {info.alias or name: name for name, info in model.model_fields.items()}


def annotation_at(root: type[BaseModel], path: Path) -> Any | None:
    """The type expected at a path, e.g. Optimizer at ("spec", "training", "optimizers", "default"); None when nothing may stand there."""
    current: Any = root
    for key in path:
        model = model_of(current)
        if model is None:
            current = element(current)
        else:
            info = fields(model).get(str(key))
            current = info.annotation if info else None
        if current is None:
            return None
    return current


def walk(root: type[BaseModel], at: tuple[str, ...] = ()) -> Iterator[Field]:
    """Every field below a model, parents before children."""
    for name, info in fields(root).items():
        path = (*at, name)
        yield Field(path, info, info.annotation, root)
        inner: Any = info.annotation
        while model_of(inner) is None and (below := element(inner)) is not None:
            inner, path = below, (*path, "*")
        model = model_of(inner)
        if model is not None:
            yield from walk(model, path)


def literals(annotation: Any) -> tuple[Any, ...]:
    """The values of a Literal, also within a union or an Optional; () for anything else."""
    return tuple(value for member in members(annotation) if get_origin(member) is Literal for value in get_args(member))


def dotted(path: Path) -> str:
    """("spec", "pod", "env", 0, "name") as users read it: spec.pod.env[0].name."""
    text = ""
    for key in path:
        text += f"[{key}]" if isinstance(key, int) else f".{key}" if text else str(key)
    return text
