"""Plain text, plain or packed: a file is a document. Block: some hundred files."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from trainjobs.data.forms.ranges import there
from trainjobs.data.forms.recognise import Found, counted
from trainjobs.data.forms.records import Block, Kind, Record
from trainjobs.data.forms.streams import LIMITS, Limits, pieces, unpacked
from trainjobs.data.places.place import Object, Place, Shelf

FILES = 256  # of a block


def open_texts(found: Found, limits: Limits = LIMITS) -> Texts:
    """There is nothing to index: a file is a row."""
    column = found.data.columns.text or found.data.text.field
    said = ", ".join(["text", counted(len(found.objects), "file"), f"{sum(one.size for one in found.objects):,} bytes"])
    return Texts(found.place, found.objects, column, (said, *found.left_out()), limits)


@dataclass(frozen=True)
class Texts:
    """`form`, `place`, `columns`, `blocks` as of records.Records. There is one column, called as the manifest calls its text."""

    place: Place
    objects: Sequence[Object]
    text: str
    said: tuple[str, ...]
    limits: Limits = LIMITS
    form: str = "text"

    @property
    def columns(self) -> Mapping[str, Kind]:
        return {self.text: "text"}

    @cached_property
    def blocks(self) -> Sequence[Block]:
        parts = [tuple(self.objects[start : start + FILES]) for start in range(0, len(self.objects), FILES)]
        return tuple(Block(len(part), part) for part in parts)

    def names(self, block: int) -> Sequence[str]:
        return [one.name for one in self.blocks[block].objects]

    def read(self, shelf: Shelf, block: int, rows: Sequence[int], columns: Collection[str]) -> list[Record]:
        objects = [self.blocks[block].objects[row] for row in rows]
        if not columns:
            return [Record(one.name, self.place.where(one), {}) for one in objects]
        records = []
        with there(shelf, self.place, objects) as found:
            for one in objects:
                where = self.place.where(one)
                with unpacked(self.place, one, found[one], self.limits) as read:
                    text = "".join(lines.decode() for _, _, lines in pieces(read, one.name, where, 1 << 40))
                # As a file that is opened as text: line ends of every system are \n.
                records.append(Record(one.name, where, {self.text: text.replace("\r\n", "\n").replace("\r", "\n")}))
        return records

    def words(self) -> Iterator[str]:
        yield from self.said
