"""Text as a stream of bytes, plain or out of .gz and .zst; and its lines, which end with a line feed."""

from __future__ import annotations

import codecs
import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from trainjobs.api.errors import JobError
from trainjobs.data.forms.ranges import Ranged, reading
from trainjobs.data.places.place import Object, Place

CHUNK = 4 * 1024 * 1024  # bytes
LONGEST = 256 * 1024 * 1024  # bytes of a line


@dataclass(frozen=True)
class Limits:
    """What an object may unpack to: `most` bytes, and beyond `free` at most `ratio` times its size. Text packs 3 to 20 times."""

    most: int = 1 << 38
    free: int = 64 * 1024 * 1024
    ratio: int = 200


LIMITS = Limits()
_PACKED = {".gz": "gzip", ".zst": "zstd"}


def packing(name: str) -> str | None:
    """ "gzip", "zstd", or None of what is plain."""
    return next((kind for suffix, kind in _PACKED.items() if name.lower().endswith(suffix)), None)


class Stream:
    """Called with a number, gives as many of the next bytes, b"" at the end."""

    def __init__(self, place: Place, found: Object, raw: Ranged, limits: Limits) -> None:
        self._raw, self._limits, self._found, self._where = raw, limits, found, place.where(found)
        kind = packing(found.name)
        self._from: Any = raw if kind is None else pa.CompressedInputStream(pa.PythonFile(raw, mode="r"), kind)
        self._total = 0 if kind else None

    @property
    def taken(self) -> int:
        """Bytes of the object itself that were read, at most 64 KiB more than what was given is made of."""
        return self._raw.tell()

    def __call__(self, size: int) -> bytes:
        if self._total is None:
            return bytes(self._from.read(size))
        name, packed = self._found.name, self._found.size
        try:
            data = bytes(self._from.read(size))
        except (pa.ArrowException, OSError) as error:
            why = f"after {self._total:,} bytes of text: {' '.join(str(error).split())[:160]}"
            raise JobError("GTJ0113", f"{name} cannot be unpacked", where=self._where, why=why, how="copy or pack it again") from error
        self._total += len(data)
        if self._total > self._limits.most or self._total > max(self._limits.free, self._limits.ratio * packed):
            why, how = f"its {packed:,} bytes unpack to more than {self._total:,}", "if that is text that is meant, unpack it first"
            raise JobError("GTJ0113", f"{name} is a decompression bomb", where=self._where, why=why, how=how)
        return data


@contextmanager
def unpacked(place: Place, found: Object, path: Path | bytes | None, limits: Limits = LIMITS) -> Iterator[Stream]:
    """The text of an object. JobError GTJ0113 where the packing is broken, or unpacks beyond the limits."""
    with reading(place, found, path) as read:
        yield Stream(place, found, Ranged(read, found.size), limits)


def pieces(
    read: Callable[[int], bytes], name: str, where: str, longest: int = LONGEST, *, lenient: bool = False
) -> Iterator[tuple[int, int, bytes]]:
    """(byte, number of the first line, whole lines) piece by piece: UTF-8, without its byte order mark. The last may end without \\n.

    JobError GTJ0113 with line and byte of what is no UTF-8, unless `lenient`, and for a line without an end.
    """
    at, number, rest, ended = 0, 1, b"", False
    while not ended:
        data = read(CHUNK)
        ended = not data
        data = rest + data
        stop = len(data) if ended else data.rfind(b"\n") + 1
        rest = data[stop:]
        if len(rest) > longest:
            why = f"line {number + data[:stop].count(10):,} has more than {longest:,} bytes"
            raise JobError("GTJ0113", f"a line of {name} has no end", where=where, why=why, how="write one record per line")
        if not stop:
            continue
        if at == 0 and data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            how = f"convert it: iconv -f utf-16 -t utf-8 {shlex.quote(name.rpartition('/')[2])}"
            raise JobError("GTJ0113", f"{name} is not UTF-8 text", where=f"{where}:1", why="it begins as UTF-16 does", how=how)
        skip = len(codecs.BOM_UTF8) if at == 0 and data.startswith(codecs.BOM_UTF8) else 0
        lines = data[skip:stop]
        try:
            lines.decode(errors="surrogateescape" if lenient else "strict")
        except UnicodeDecodeError as error:
            line = number + lines[: error.start].count(b"\n")
            why = f"byte {at + skip + error.start} of the file, 0x{lines[error.start]:02x}, is none of UTF-8 there ({error.reason})"
            how = "convert it with iconv, or remove the file"
            raise JobError("GTJ0113", f"{name} is not UTF-8 text", where=f"{where}:{line}", why=why, how=how) from error
        yield at + skip, number, lines
        at += stop
        number += lines.count(b"\n")


def lines(read: Callable[[int], bytes], name: str, where: str, *, lenient: bool = False) -> Iterator[tuple[int, int, str]]:
    """(byte, number, line with its end) of every line, as `pieces`; where that is `lenient`, bytes that are no UTF-8 as surrogates."""
    for at, number, piece in pieces(read, name, where, lenient=lenient):
        for line in piece.splitlines(keepends=True) if b"\r" not in piece else _split(piece):
            yield at, number, line.decode(errors="surrogateescape")
            at += len(line)
            number += 1


def _split(piece: bytes) -> Iterator[bytes]:
    start = 0
    while start < len(piece):
        stop = piece.find(b"\n", start) + 1 or len(piece)
        yield piece[start:stop]
        start = stop
