"""A shelf without a disk, for who looks at a little of much."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from trainjobs.data.places.place import Object, Place


@dataclass(frozen=True)
class Straight:
    """A shelf on which nothing is kept: readers ask the place for what they need."""

    @contextmanager
    def hold(self, place: Place, objects: Sequence[Object]) -> Iterator[list[Path]]:
        yield cast("list[Path]", [one.path for one in objects])  # None: by ranges

    def ahead(self, place: Place, objects: Sequence[Object]) -> None:
        """Nothing is fetched."""

    def contents(self, place: Place, objects: Sequence[Object]) -> list[bytes]:
        return [place.contents(one) for one in objects]

    def soon(self, place: Place, objects: Sequence[Object]) -> None:
        """Nothing is fetched."""

    def close(self) -> None:
        """There is nothing to end."""
