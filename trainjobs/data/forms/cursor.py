"""Where the reading of a packed file stands: who reads on goes on from there, instead of unpacking it from its front again.

Text is read part after part, so one place for each file is enough. It is the state of the unpacking, some megabytes of memory: neither
the text nor an open file is kept.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from pathlib import Path

from trainjobs.data.forms.ranges import Ranged, Read, reading
from trainjobs.data.forms.streams import CHUNK, Limits, Stream
from trainjobs.data.places.place import Object, Place

MOST = 4  # files, of each process


class Cursor:
    """A stream of text that is read from front to end, with leaps."""

    def __init__(self, read: Callable[[int], bytes]) -> None:
        self._read = read
        self.at, self._rest = 0, b""  # what is to come begins at this byte, with these bytes

    def picked(self, places: Sequence[tuple[int, int]]) -> list[bytes]:
        """Bytes (start, stop), none of them before `at`; without more of the text in memory than they are. Afterwards `at` is where the
        last of them begins."""
        wanted = sorted(range(len(places)), key=lambda number: places[number])
        found = [b""] * len(places)
        for number in wanted:
            start, stop = places[number]
            parts = [self._rest]
            while self.at + sum(map(len, parts)) < stop and (data := self._read(CHUNK)):
                if self.at + len(parts[0]) <= start and len(parts) == 1:  # nothing of it is wanted any more
                    self.at, parts = self.at + len(parts[0]), []
                parts.append(data)
            rest = b"".join(parts)
            self._rest, self.at = rest[max(0, start - self.at) :], max(self.at, start)
            found[number] = self._rest[: stop - start]
        return found


class _Packed(Cursor):
    """Of an object, whose bytes are had through `raw`, which is there while somebody reads."""

    def __init__(self, place: Place, found: Object, limits: Limits) -> None:
        super().__init__(Stream(place, found, Ranged(self._raw, found.size), limits))
        self.raw: Read | None = None

    def _raw(self, start: int, stop: int) -> bytes:
        assert self.raw is not None, "somebody reads"
        return self.raw(start, stop)


class Cursors:
    """One for each of the files that were read last. Two threads that read the same file at once each unpack it."""

    def __init__(self, most: int = MOST) -> None:
        self._most, self._lock = most, threading.Lock()
        self._left: OrderedDict[Hashable, _Packed] = OrderedDict()

    def picked(self, place: Place, found: Object, path: Path | None, limits: Limits, places: Sequence[tuple[int, int]]) -> list[bytes]:
        """Bytes (start, stop) of the text of an object. JobErrors as of streams.unpacked."""
        key = (place.uri, found.name, found.tag, limits)
        first = min((start for start, _ in places), default=0)
        with self._lock:
            cursor = self._left.pop(key, None)
        if cursor is None or cursor.at > first:
            cursor = _Packed(place, found, limits)
        with reading(place, found, path) as cursor.raw:
            bytes_ = cursor.picked(places)
        cursor.raw = None
        with self._lock:
            self._left[key] = cursor
            if len(self._left) > self._most:
                self._left.popitem(last=False)
        return bytes_


CURSORS = Cursors()
