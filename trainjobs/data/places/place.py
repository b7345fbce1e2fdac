"""What a data set asks of where it lies, and nothing more: a list of objects, and their bytes. Nothing is ever written there."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

SMALL = 256 << 10  # bytes of an object of which many are fetched and kept together


@dataclass(frozen=True, slots=True)
class Object:
    """`name` is relative to its place, with "/". `tag` names its contents (an ETag, a generation, a digest; of a file its size and time):
    other contents have another tag. `path` is there for what lies on this machine's file system."""

    name: str
    size: int  # bytes
    tag: str
    path: Path | None = None


@dataclass(frozen=True)
class Listed:
    """All objects of a place, by name; and what is left out, as counts, for the line that says what was found. `splits` are the names of
    the objects of each split, where the place itself says which those are (a dataset of the hub), else None: their names tell."""

    objects: tuple[Object, ...]
    others: Counter[str] = field(default_factory=Counter)  # "hidden .jpg", "pipe"
    folders: Counter[str] = field(default_factory=Counter)  # folders that were not entered, by name
    loops: int = 0
    splits: Mapping[str, Sequence[str]] | None = None


class Place(Protocol):
    """Every operation raises JobError: GTJ0113 for what is not there, GTJ0112 for what is refused (which request, as whom), GTJ0219 for
    what does not answer."""

    def __hash__(self) -> int: ...

    @property
    def uri(self) -> str:
        """With everything resolved that may change: of a dataset of the hub its commit."""

    def listed(self) -> Listed: ...

    def read(self, found: Object, start: int, stop: int) -> bytes:
        """Bytes start..stop of an object, fewer where it ends before; of the very contents that were listed."""

    def fetch(self, found: Object, to: Path) -> None:
        """All of an object, into a new file."""

    def contents(self, found: Object) -> bytes:
        """All of a small object, looked at as closely as `fetch` does."""

    def where(self, found: Object) -> str:
        """How a message names it: its URI, or its path."""


class Shelf(Protocol):
    """Objects on this machine's disk, up to a limit, shared by its processes; those used longest ago are dropped first."""

    def hold(self, place: Place, objects: Sequence[Object]) -> AbstractContextManager[list[Path]]:
        """The objects as files, fetched where they are not here; not dropped while they are held. What lies on this machine anyway is
        given as it is."""

    def ahead(self, place: Place, objects: Sequence[Object]) -> None:
        """Soon these will be held, in this order: begin to fetch them, and return at once. What was told last of a place is kept after it
        was held, too, until it is told no more."""

    def contents(self, place: Place, objects: Sequence[Object]) -> list[bytes]:
        """All of each, of small objects (at most SMALL bytes) that lie elsewhere: fetched side by side where they are not here."""

    def soon(self, place: Place, objects: Sequence[Object]) -> None:
        """Small objects whose `contents` will be asked for in this order, behind those that were told before: fetched ahead. Returns
        at once."""

    def close(self) -> None:
        """Nothing more is fetched ahead; what is on its way goes on."""


class Ranks(Protocol):
    """Who reads the data together: trainjobs.world.World, or ALONE."""

    @property
    def rank(self) -> int: ...

    @property
    def size(self) -> int: ...

    def gather(self, value: Any) -> list[Any]:
        """Every rank's value, in the order of ranks, on every rank."""


@dataclass(frozen=True)
class Alone:
    rank: int = 0
    size: int = 1

    def gather(self, value: Any) -> list[Any]:
        return [value]


ALONE = Alone()
