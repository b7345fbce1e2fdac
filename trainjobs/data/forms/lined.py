"""Text forms whose rows are lines: an index of where each begins, and rows read by themselves. Block: a file.

Of a plain file only the bytes of the rows are read; a packed one is unpacked, and kept in memory while it is not too large. One that is
is unpacked once from front to end, as its rows are asked for in their order.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from trainjobs.api.errors import JobError
from trainjobs.data.forms.cursor import CURSORS, Cursor, Cursors
from trainjobs.data.forms.index import Arrays, Indexing, key_of, unpacked
from trainjobs.data.forms.ranges import reading
from trainjobs.data.forms.recent import RECENT, Recent
from trainjobs.data.forms.recognise import Found
from trainjobs.data.forms.records import Block, Kind, Record, Value
from trainjobs.data.forms.streams import LIMITS, Limits, packing
from trainjobs.data.forms.streams import unpacked as unpacking
from trainjobs.data.forms.values import WORDS, fits, shown
from trainjobs.data.places.place import Object, Place, Shelf

Scan = Callable[[Callable[[int], bytes], str, str], Arrays]  # (read, name, where): the index of a file
Parse = Callable[[bytes, str], Mapping[str, Any]]  # (line, where): its fields


@dataclass(frozen=True)
class File:
    """`starts`: int64 [rows], the byte of each record in the text; `lines`: uint32 [rows], its line; `size`: bytes of the text."""

    object: Object
    starts: npt.NDArray[np.int64]
    lines: npt.NDArray[np.uint32]
    size: int
    kinds: Mapping[str, Kind | None]
    always: frozenset[str]
    broken: Mapping[str, Any]  # the error of its first records, {} where there is none

    @classmethod
    def of(cls, found: Object, arrays: Arrays) -> File:
        told = unpacked(arrays["told"])
        return cls(found, arrays["starts"], arrays["lines"], int(arrays["size"]), told["kinds"], frozenset(told["always"]), told["broken"])


def files_of(found: Found, indexing: Indexing, scan: Scan, version: int | str, limits: Limits) -> list[File]:
    """Every file, indexed: fetched, and read once from front to end."""
    place, objects, shelf = found.place, found.objects, found.shelf

    def make(number: int) -> Arrays:
        one = objects[number]
        with shelf.hold(place, [one]) as paths, unpacking(place, one, paths[0], limits) as read:
            return scan(read, one.name, place.where(one))

    made = indexing.of([key_of(place, one, found.form, version) for one in objects], make, "files")
    return [File.of(one, arrays) for one, arrays in zip(objects, made, strict=True)]


@dataclass(frozen=True)
class Lined:
    """`form`, `place`, `columns`, `blocks` as of records.Records. `text` is the column whose value is a record's name."""

    place: Place
    shelf: Shelf  # where names are read through
    files: Sequence[File]
    columns: Mapping[str, Kind]
    needed: frozenset[str]  # columns that have a value in every record
    text: str
    said: tuple[str, ...]
    form: str
    parse: Callable[[File], Parse] = field(compare=False)
    limits: Limits = LIMITS
    recent: Recent = field(default=RECENT, compare=False)
    cursors: Cursors = field(default=CURSORS, compare=False)

    @cached_property
    def blocks(self) -> Sequence[Block]:
        return tuple(Block(len(file.starts), (file.object,)) for file in self.files)

    def names(self, block: int) -> Sequence[str]:
        """A record that cannot be read is called by its line."""
        file = self.files[block]
        with self.shelf.hold(self.place, [file.object]) as paths:
            lines = self._lines(file, paths[0], range(len(file.starts)))
        return [self._name(file, line) for line in lines]

    def read(self, shelf: Shelf, block: int, rows: Sequence[int], columns: Collection[str]) -> list[Record]:
        file = self.files[block]
        with shelf.hold(self.place, [file.object]) as paths:
            lines = self._lines(file, paths[0], rows)
        return [self._record(file, row, line, columns) for row, line in zip(rows, lines, strict=True)]

    def column(self, shelf: Shelf, block: int, name: str) -> Sequence[Value]:
        return [record.values[name] for record in self.read(shelf, block, range(self.blocks[block].rows), [name])]

    def words(self) -> Iterator[str]:
        yield from self.said

    def _lines(self, file: File, path: Path, rows: Sequence[int]) -> list[bytes]:
        ends = [int(file.starts[row + 1]) if row + 1 < len(file.starts) else file.size for row in rows]
        places = [(int(file.starts[row]), end) for row, end in zip(rows, ends, strict=True)]
        if packing(file.object.name) is None:
            with reading(self.place, file.object, path) as read:
                return [read(*place) for place in places]
        if file.size > self.recent.limit:
            return self.cursors.picked(self.place, file.object, path, self.limits, places)
        key = (self.place.uri, file.object.name, file.object.tag)
        text = self.recent.get(key, lambda: self._text(file, path))
        return [text[start:stop] for start, stop in places]

    def _text(self, file: File, path: Path) -> tuple[bytes, int]:
        with unpacking(self.place, file.object, path, self.limits) as read:
            return Cursor(read).picked([(0, file.size)])[0], file.size

    def _record(self, file: File, row: int, line: bytes, columns: Collection[str]) -> Record:
        where = f"{self.place.where(file.object)}:{file.lines[row]}"
        record = self.parse(file)(line, where)
        values = {name: self._value(record, name, where) for name in columns}
        return Record(self._called(record, line), where, values)

    def _name(self, file: File, line: bytes) -> str:
        try:
            return self._called(self.parse(file)(line, ""), line)
        except JobError:
            return self._called({}, line)

    def _called(self, record: Mapping[str, Any], line: bytes) -> str:
        text = record.get(self.text)
        return _written(text if isinstance(text, str) else line.strip().decode("utf-8", "replace"))

    def _value(self, record: Mapping[str, Any], name: str, where: str) -> Value:
        value, kind = record.get(name), self.columns[name]
        if (value is None and name in self.needed) or not fits(value, kind):
            there = name in record
            why = f"it is {shown(value)}" if there else f"its fields are {', '.join(map(shown, list(record)[:8])) or 'none'}"
            how = f"the other records have {WORDS[kind]} there: mend it, or take it out"
            if kind == "text" and there and value is not None:
                plain = isinstance(value, int | float)
                how = f"write a string in quotes{f', such as {json.dumps({name: str(value)})}' if plain else ''}"
            raise JobError("GTJ0113", f"the record has no {WORDS[kind]} in field {name}", where=where, why=why, how=how)
        return _written(value) if isinstance(value, str) else value


def _written(text: str) -> str:
    """JSON can spell half a surrogate pair, which no encoding can write."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()
