"""Small objects that were taken from a shelf together, for who reads them one after the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from trainjobs.data.places.place import Object, Place, Shelf


@dataclass(frozen=True)
class InHand:
    """A shelf for a moment: what is in hand is given from there, everything else by `shelf`."""

    shelf: Shelf
    taken: Mapping[Object, bytes]

    @classmethod
    def of(cls, shelf: Shelf, place: Place, objects: Sequence[Object]) -> InHand:
        return cls(shelf, dict(zip(objects, shelf.contents(place, objects), strict=True)))

    def hold(self, place: Place, objects: Sequence[Object]) -> AbstractContextManager[list[Path]]:
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
