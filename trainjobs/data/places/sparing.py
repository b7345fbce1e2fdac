"""A shelf for looking at data, not for training on it: small objects are fetched once, of large ones readers ask for ranges."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import cast

from trainjobs.data.places.place import Object, Place
from trainjobs.data.places.refusals import unwritable

SMALL = 32 << 20  # bytes of an object
MOST = 256 << 20  # bytes of all that are fetched


@dataclass
class Sparing:
    """`folder` is for this process alone, and whoever made it takes it away."""

    folder: Path
    left: int = MOST
    _there: dict[tuple[str, str, str], Path] = field(default_factory=dict)
    _lock: Lock = field(default_factory=Lock)

    @contextmanager
    def hold(self, place: Place, objects: Sequence[Object]) -> Iterator[list[Path]]:
        yield cast("list[Path]", [one.path or self._fetched(place, one) for one in objects])  # None: by ranges

    def ahead(self, place: Place, objects: Sequence[Object]) -> None:
        """Nothing is fetched before it is needed."""

    def contents(self, place: Place, objects: Sequence[Object]) -> list[bytes]:
        with self.hold(place, objects) as paths:
            return [place.contents(one) if path is None else path.read_bytes() for one, path in zip(objects, paths, strict=True)]

    def soon(self, place: Place, objects: Sequence[Object]) -> None:
        """Nothing is fetched before it is needed."""

    def close(self) -> None:
        """There is nothing to end."""

    def _fetched(self, place: Place, one: Object) -> Path | None:
        key = (place.uri, one.name, one.tag)
        with self._lock:
            if key not in self._there and one.size <= min(SMALL, self.left):
                path = self.folder / hashlib.sha256("\0".join(key).encode("utf-8", "surrogateescape")).hexdigest()
                try:
                    self.folder.mkdir(parents=True, exist_ok=True)
                    place.fetch(one, path)
                except BaseException as error:  # half of it is nothing, and it may be asked for again
                    with suppress(OSError):
                        path.unlink(missing_ok=True)
                    if isinstance(error, OSError):
                        raise unwritable(self.folder, error) from error
                    raise
                self._there[key], self.left = path, self.left - one.size
            return self._there.get(key)


def cheap(objects: Sequence[Object]) -> bool:
    """Whether all of these can be read whole without a second thought."""
    return all(one.path is not None for one in objects) or sum(one.size for one in objects) <= MOST
