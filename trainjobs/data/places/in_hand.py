"""Objects that were taken from a shelf together, for who reads them one after the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

from trainjobs.data.places.place import Object, Place, Shelf


@dataclass(frozen=True)
class InHand:
    """A shelf for a moment: what is in hand is given from there, everything else by `shelf`. `taken` are small objects; `held` others, as
    long as whoever made this holds them."""

    shelf: Shelf
    taken: Mapping[Object, bytes]
    held: Mapping[Object, Path] = field(default_factory=dict)

    @classmethod
    def of(cls, shelf: Shelf, place: Place, objects: Sequence[Object]) -> InHand:
        return cls(shelf, dict(zip(objects, shelf.contents(place, objects), strict=True)))

    def hold(self, place: Place, objects: Sequence[Object]) -> AbstractContextManager[list[Path]]:
        if all(one in self.held for one in objects):
            return nullcontext([self.held[one] for one in objects])
        return self.shelf.hold(place, objects)

    def ahead(self, place: Place, objects: Sequence[Object]) -> None:
        self.shelf.ahead(place, objects)

    def contents(self, place: Place, objects: Sequence[Object]) -> list[bytes]:
        left = [one for one in objects if one not in self.taken]
        found = dict(zip(left, self.shelf.contents(place, left) if left else (), strict=True))
        return [self.taken[one] if one in self.taken else found[one] for one in objects]

    def soon(self, place: Place, objects: Sequence[Object]) -> None:
        self.shelf.soon(place, objects)

    def close(self) -> None:
        self.shelf.close()
