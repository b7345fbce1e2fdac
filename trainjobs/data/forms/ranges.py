"""Parts of an object, read where they are needed: of a file by its descriptor, of a bucket by ranges."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from trainjobs.api.errors import JobError
from trainjobs.data.places.place import SMALL, Object, Place, Shelf
from trainjobs.data.places.refusals import cut
from trainjobs.data.tree import unreadable

Read = Callable[[int, int], bytes]  # (start, stop): those bytes, fewer where the object ends before

LEAST = 1536  # a tar header, a small member and the next header
MOST = 256 * 1024
NEAR = 16 * 1024  # what lies so near behind is read on to, rather than asked for anew


@contextmanager
def there(shelf: Shelf, place: Place, objects: Sequence[Object]) -> Iterator[Mapping[Object, Path | bytes]]:
    """Objects of which many may be small: for `reading`, those as bytes and the others as files."""
    small = [one for one in dict.fromkeys(objects) if one.path is None and one.size <= SMALL]
    found: dict[Object, Path | bytes] = dict(zip(small, shelf.contents(place, small) if small else (), strict=True))
    large = [one for one in dict.fromkeys(objects) if one not in found]
    if not large:
        yield found
        return
    with shelf.hold(place, large) as paths:
        yield found | dict(zip(large, paths, strict=True))


@contextmanager
def reading(place: Place, found: Object, path: Path | bytes | None = None) -> Iterator[Read]:
    """Of the file `path`, or the bytes, where the object is on this machine, else by ranges of the place."""
    if isinstance(path, bytes):
        data = path
        yield lambda start, stop: data[start:stop]
        return
    path = path or found.path
    if path is None:
        yield lambda start, stop: place.read(found, start, stop)
        return
    where = place.where(found)
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError as error:
        raise unreadable(Path(where), _without_name(error)) from error

    def read(start: int, stop: int) -> bytes:
        try:
            return os.pread(descriptor, stop - start, start)
        except OSError as error:
            raise unreadable(Path(where), _without_name(error)) from error

    try:
        yield read
    finally:
        os.close(descriptor)


def skipping(read: Read, size: int, least: int = LEAST, most: int = MOST) -> Read:
    """`read` for who goes through an object of `size` bytes from front to end and leaves out much of it: after a leap little is fetched,
    and more and more where what follows is wanted too."""
    start, kept, ahead = 0, b"", least

    def wanted(first: int, last: int) -> bytes:
        nonlocal start, kept, ahead
        stop = start + len(kept)
        if not (start <= first and last <= stop):
            ahead = min(most, 4 * ahead) if kept and 0 <= first - stop < NEAR else least
            start, kept = first, read(first, min(size, max(last, first + ahead)))
        return kept[first - start : last - start]

    return wanted


def ended(read: Read, size: int, most: int = 64 * 1024) -> Read:
    """`read` for who looks at the end of an object again and again: that is read once, `most` bytes of it."""
    begin = max(0, size - most)
    end: list[bytes] = []

    def wanted(start: int, stop: int) -> bytes:
        if start < begin:
            return read(start, stop)
        if not end:
            end.append(read(begin, size))
        return end[0][start - begin : stop - begin]

    return wanted


class Ranged(io.RawIOBase):
    """An object as a file that can be sought in, for libraries that want one."""

    def __init__(self, read: Read, size: int) -> None:
        self._read, self._size, self._at = read, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        return self._at

    def tell(self) -> int:
        return self._at

    def read(self, size: int | None = -1) -> bytes:
        stop = self._size if size is None or size < 0 else min(self._size, self._at + size)
        data = self._read(self._at, stop) if stop > self._at else b""
        self._at += len(data)
        return data


def whole(place: Place, found: Object, path: Path | bytes | None = None, limit: int = 1 << 30) -> bytes:
    """All of a small object; JobError GTJ0113 when it has more than `limit` bytes, or fewer than it should."""
    if found.size > limit:
        why, how = f"it has {found.size:,} bytes, more than {limit:,}", "take it out, or make it smaller"
        raise JobError("GTJ0113", f"{found.name} is too large", where=place.where(found), why=why, how=how)
    with reading(place, found, path) as read:
        data = b""
        while len(data) < found.size and (part := read(len(data), found.size)):
            data += part
    if len(data) != found.size:
        raise cut(place, found, len(data))
    return data


def _without_name(error: OSError) -> OSError:
    """A fetched object lies under a name of the cache's own, which says nothing to anybody."""
    return PermissionError(error.errno, error.strerror) if isinstance(error, PermissionError) else OSError(error.errno, error.strerror)
