"""A rule: what a part of the spec must fulfil, in Python and in the API server's own language (CEL), side by side.

Rules stand beside the part of the spec that they are about; `rules.py` and `cel.py` only gather them. Both languages see the same value,
the one at the rule's path, and neither is asked where there is none. A property test asks both about generated specs and wants the same
verdict. Rules see defaults: the server fills them in before it asks, and what it costs to ask is computed from the fields' maximum sizes
when the CRD is installed, which is why every one of them has a maximum.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pydantic import BaseModel

from trainjobs.api.problem import Problem
from trainjobs.api.shape import Path, attributes


@dataclass(frozen=True)
class Breach:
    """One way in which a part breaks its rule. `at` leads from the part to the value at fault, `beside` from the part as well; the other
    fields are those of Problem. `code` is there when it is not the rule's."""

    at: Path
    what: str
    why: str = ""
    how: str = ""
    on_key: bool = False
    beside: Path = ()
    code: str = ""

    def problem(self, code: str, place: Path) -> Problem:
        """The breach of a rule of that code by the part at that place."""
        beside = (*place, *self.beside) if self.beside else ()
        return Problem(self.code or code, (*place, *self.at), self.what, self.why, self.how, self.on_key, beside)

    def within(self, *place: str | int) -> Breach:
        """The same, seen from a part that holds this one at that place."""
        return replace(self, at=(*place, *self.at), beside=(*place, *self.beside) if self.beside else ())


Check = Callable[[Any], Iterator[Breach]]


@dataclass(frozen=True)
class Rule:
    """`path` is dotted, with "*" for each value of a map or item of a list.

    `check` yields how the value there breaks the rule; None where only a server can know. `cel` must be true of the same value, and the
    server says `code` and `message` where it is not; empty where the definition's schema says the same by other means. `field`, dotted
    from the part on, is what the server is to name where it is not the part itself.
    """

    path: str
    code: str
    check: Check | None
    cel: str = ""
    message: str = ""
    field: str = ""

    @property
    def keys(self) -> tuple[str, ...]:
        return tuple(self.path.split(".")) if self.path else ()

    def problems(self, whole: BaseModel) -> Iterator[Problem]:
        """What Python has against the parts of a manifest at the rule's path."""
        if self.check is not None:
            for place, part in parts(whole, self.keys):
                for breach in self.check(part):
                    yield breach.problem(self.code, place)


def _model(value: Any) -> type[BaseModel]:
    """The model that a value is of; whatever has fields is of one."""
    assert isinstance(value, BaseModel)
    return type(value)


def parts(value: Any, keys: Sequence[str], place: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Every value that stands at the keys, with its place; none where something on the way was not given."""
    if value is None:
        return
    if not keys:
        yield place, value
    elif keys[0] == "*":
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from parts(item, keys[1:], (*place, key))
    else:
        yield from parts(getattr(value, attributes(_model(value))[keys[0]]), keys[1:], (*place, keys[0]))
