"""A rule: what a part of the spec must fulfil, in Python and in the API server's own language (CEL), side by side.

Rules stand beside the part of the spec that they are about; `rules.py` and `cel.py` only gather them. Both languages see the same value,
the one at the rule's path, and neither is asked where there is none. A property test asks both about generated specs and wants the same
verdict. Rules see defaults: the server fills them in before it asks, and what it costs to ask is computed from the fields' maximum sizes
when the CRD is installed, which is why every one of them has a maximum.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
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
Parts = list[tuple[Path, Any]]  # values with their places
Known = dict[str, Parts]  # by path


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

    def problems(self, whole: BaseModel, known: Known | None = None) -> Iterator[Problem]:
        """What Python has against the parts of a manifest at the rule's path. `known` is kept from rule to rule of one manifest."""
        if self.check is not None:
            for place, part in parts(whole, self.path, {} if known is None else known):
                for breach in self.check(part):
                    yield breach.problem(self.code, place)


def parts(whole: BaseModel, path: str, known: Known) -> Parts:
    """Every value that stands at a path, with its place; none where something on the way was not given. `known` has what was looked up
    already, of this manifest: most rules are about a few places, and an operator that starts checks ten thousand manifests."""
    found = known.get(path)
    if found is None:
        if path:
            above, _, key = path.rpartition(".")
            found = [part for place, value in parts(whole, above, known) for part in _below(value, key, place)]
        else:
            found = [((), whole)]
        known[path] = found
    return found


def _below(value: Any, key: str, place: Path) -> Parts:
    if key == "*":
        inner: Iterable[tuple[str | int, Any]] = value.items() if isinstance(value, dict) else enumerate(value)
        return [((*place, name), item) for name, item in inner if item is not None]
    assert isinstance(value, BaseModel)  # whatever has fields is a model
    item = getattr(value, attributes(type(value))[key])
    return [] if item is None else [((*place, key), item)]
